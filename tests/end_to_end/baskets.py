"""Definitions for the tests of drift: a model is asked when a customer pays, and trained on those instants."""

import polars as pl

import rtml
from rtml import Count, Drift, Entity, EventSource, FeatureService, Mean, RedisStream, Spine, StreamFeatureView, Sum


class Item(rtml.Event):
    item_id: str
    at: rtml.Timestamp
    customer: int
    price: float = rtml.Field(nullable=True)
    pieces: int
    paid: bool


items = EventSource(
    name="items",
    schema=Item,
    timestamp="at",
    event_id="item_id",
    stream=RedisStream("items"),
    lateness="15m",
    starts="2024-01-01",
    ends="2024-12-31",
)
basket = StreamFeatureView(
    name="basket",
    source=items,
    entity=Entity("customer"),
    where=~pl.col("paid"),
    features=[Count(windows=["3h"]), Mean("price", windows=["3h"]), Sum("pieces", windows=["3h"])],
)
checkout = FeatureService(
    "checkout",
    features=[basket],
    training=Spine(items, where=pl.col("paid")),
    drift=Drift(minimum=100, sample=1_000, features={"basket__price_mean_3h": Drift(severity="critical")}),
    log=1.0,
)
quiet = FeatureService("quiet", features=[basket], drift=None, log=1.0)
unlogged = FeatureService("unlogged", features=[basket], log=0)
