"""Two small sources, and services over them: what the tests of the server serve."""

import polars as pl

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Max, Mean, RedisStream, StreamFeatureView, Sum


class Purchase(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    user: str
    amount: float = rtml.Field(nullable=True)
    quantity: int


class Visit(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    shop: int
    bought: bool


def source(name: str, contract: type) -> EventSource:
    return EventSource(
        name=name, schema=contract, timestamp="event_time", event_id="event_id", stream=RedisStream(name)
    )


user_purchases = StreamFeatureView(
    name="user_purchases",
    source=source("purchases", Purchase),
    entity=Entity("user"),
    features=[
        Count(windows=["30m", "3h"]),
        Sum("amount", windows=["3h"]),
        Mean("amount", windows=["3h"]),
        Max("amount", windows=["3h"]),
        Sum("quantity", windows=["3h"]),
    ],
    freshness="5s",
    ttl="1d",
)
shop_visits = StreamFeatureView(
    name="shop_visits",
    source=source("visits", Visit),
    entity=Entity("shop"),
    where=pl.col("bought"),
    features=[Count(windows=["1h"])],
    freshness="5s",
)
spending = FeatureService("spending", features=[user_purchases], description="What a user spends")
shopping = FeatureService("shopping", features=[user_purchases[["count_3h"]], shop_visits], version=2)
