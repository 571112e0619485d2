"""What runs while things are broken: one source of two partitions, two views, one service, with tight promises."""

from __future__ import annotations

import polars as pl

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Last, Max, Mean, Min, RedisStream, StreamFeatureView, Sum

SOURCE, SERVICE = "orders", "shop"


class Order(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    customer: str
    store: str
    amount: float = rtml.Field(ge=0, le=1e6)
    items: int


orders = EventSource(
    name=SOURCE,
    schema=Order,
    timestamp="event_time",
    event_id="event_id",
    stream=RedisStream(SOURCE, partitions=2),
    lateness="2m",
    skew="30s",
    starts="2025-01-01",
    sla=rtml.SLA(lag="2s", heartbeat="8s", late=0.1, refused=0.05, remedy=("restart",)),
)

WINDOWS = ["1m", "10m", "1h"]

customer_orders = StreamFeatureView(
    name="customer_orders",
    source=orders,
    entity=Entity("customer", join_keys=["customer"]),
    features=[
        Count(windows=WINDOWS),
        Sum("amount", windows=WINDOWS),
        Min("amount", windows=WINDOWS),
        Max("items", windows=WINDOWS),
        Last("amount", windows=WINDOWS),
    ],
    freshness="10s",
)
store_orders = StreamFeatureView(
    name="store_orders",
    source=orders,
    entity=Entity("store", join_keys=["store"]),
    where=pl.col("items") > 1,
    derive={"large": pl.col("amount") > 50},
    features=[Count(windows=["1m", "1h"]), Mean("large", windows=["1m", "1h"], name="large_share")],
    freshness="10s",
)

shop = FeatureService(
    SERVICE,
    features=[customer_orders, store_orders],
    version=1,
    log=1.0,
    sla=rtml.SLA(p99="2s", availability=0.99),
)
