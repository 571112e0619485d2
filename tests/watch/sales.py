"""Definitions for the tests of the watch."""

from __future__ import annotations

import rtml


class Sale(rtml.Event):
    id: str
    at: rtml.Timestamp
    shop: str
    amount: float = rtml.Field(nullable=True)


sales = rtml.EventSource(
    name="sales",
    schema=Sale,
    timestamp="at",
    event_id="id",
    stream=rtml.RedisStream("sales", partitions=2),
    sla=rtml.SLA(freshness="5s", lag="10s", heartbeat="1s", nulls={"amount": 0.1}),
)
idle = rtml.EventSource(name="idle", schema=Sale, timestamp="at", event_id="id", stream=rtml.RedisStream("idle"))

shop_sales = rtml.StreamFeatureView(
    name="shop_sales",
    source=sales,
    entity=rtml.Entity("shop"),
    features=[rtml.Count(windows=["1h"]), rtml.Mean("amount", windows=["1h"])],
    freshness="10s",
)

till = rtml.FeatureService("till", features=[shop_sales], log=1.0, sla=rtml.SLA(p99="2s", availability=0.99))
