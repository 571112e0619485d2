"""Definitions for the tests of pushed events: two partitions with event ids, and a source that has none."""

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Last, RedisStream, StreamFeatureView, Sum


class Order(rtml.Event):
    order_id: str
    at: rtml.Timestamp
    shop: str
    amount: float = rtml.Field(ge=0, le=1e6)


class Ping(rtml.Event):
    at: rtml.Timestamp
    host: int


orders = EventSource(
    name="orders",
    schema=Order,
    timestamp="at",
    event_id="order_id",
    stream=RedisStream("orders", partitions=2),
    lateness="10m",
)
pings = EventSource(name="pings", schema=Ping, timestamp="at", stream=RedisStream("pings"), lateness="10m")

shop_orders = StreamFeatureView(
    name="shop_orders",
    source=orders,
    entity=Entity("shop"),
    features=[Count(windows=["1h"]), Sum("amount", windows=["1h"]), Last("amount", windows=["1h"])],
)
host_pings = StreamFeatureView(name="host_pings", source=pings, entity=Entity("host"), features=[Count(windows=["1h"])])
sales = FeatureService("sales", features=[shop_orders])
uptime = FeatureService("uptime", features=[host_pings])
