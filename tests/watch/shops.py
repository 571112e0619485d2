"""Definitions with promises, for the tests of the watch."""

from __future__ import annotations

import polars as pl

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Mean, RedisStream, StreamFeatureView
from rtml.registry import Registry


class Payment(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    card: int
    amount: float = rtml.Field(ge=0, le=1e6)


payments = EventSource(
    name="payments",
    schema=Payment,
    timestamp="event_time",
    event_id="event_id",
    stream=RedisStream("payments"),
    lateness="1h",
    starts="2024-03-01",
    ends="2024-03-31",
    sla=rtml.SLA(lag="5s", heartbeat="2s", nulls={"amount": 0.1}, remedy=("restart",)),
)
spent = StreamFeatureView(
    name="spent",
    source=payments,
    entity=Entity("card", join_keys=["card"]),
    features=[Count(windows=["5m", "1h"]), Mean("amount", windows=["1h"])],
    derive={"large": pl.col("amount") > 1000},
    sla=rtml.SLA(freshness="1s", remedy=("backfill",)),
)
fraud = FeatureService("fraud", features=[spent[["count_5m"]]], sla=rtml.SLA(p99="50ms", availability=0.99))
REGISTRY = Registry.of([payments, spent, fraud])
