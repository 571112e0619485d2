"""Definitions for the end-to-end tests: two partitions, odd keys, every aggregate, both tails."""

import polars as pl

import rtml
from rtml import (
    Count,
    Entity,
    EventSource,
    FeatureService,
    First,
    LabelSource,
    Last,
    Max,
    Mean,
    Min,
    RedisStream,
    Spine,
    Stddev,
    StreamFeatureView,
    Sum,
    Variance,
    Window,
)


class Trade(rtml.Event):
    trade_id: str
    at: rtml.Timestamp
    account: str
    desk: int
    price: float = rtml.Field(ge=-1e9, le=1e9, nullable=True)
    lots: int = rtml.Field(ge=-1000, le=1000)


trades = EventSource(
    name="trades",
    schema=Trade,
    timestamp="at",
    event_id="trade_id",
    stream=RedisStream("trades", partitions=2),
    lateness="15m",
    skew="1m",
    starts="2024-01-01",
    ends="2029-12-31",
)

WINDOWS = ["1m", "30m", "24h", "7d"]

account_trades = StreamFeatureView(
    name="account_trades",
    source=trades,
    entity=Entity("account", join_keys=["account"]),
    features=[
        Count(windows=WINDOWS),
        Sum("price", windows=WINDOWS),
        Mean("price", windows=WINDOWS),
        Min("price", windows=WINDOWS),
        Max("lots", windows=WINDOWS),
        Sum("lots", windows=WINDOWS),
        Variance("price", windows=WINDOWS),
        Stddev("price", windows=WINDOWS),
        First("price", windows=WINDOWS),
        Last("lots", windows=WINDOWS),
    ],
)

desk_trades = StreamFeatureView(
    name="desk_trades",
    source=trades,
    entity=Entity("desk_account", join_keys=["desk", "account"]),
    where=pl.col("lots") != 0,
    derive={"bought": pl.col("lots") > 0, "value": pl.col("price") * pl.col("lots")},
    tail="exact",
    features=[
        Count(windows=["3h", "8d", "lifetime", Window("3h", offset="1d", tail="tile")]),
        Mean("bought", windows=["3h", "8d"], name="bought_share"),
        Sum("value", windows=["3h", "8d", "lifetime"]),
        Last("value", windows=["3h", "8d"]),
    ],
)

next_trade = LabelSource(name="next_trade", source=trades, join_keys=["account"], labels=["price"], horizon="1h")

risk = FeatureService(
    "risk",
    features=[account_trades, desk_trades],
    training=Spine(trades, labels=[next_trade]),
    version=1,
    log=1,
)
