"""Definitions for the test of all pages: one expectation that is met, one that is not, and promises."""

import rtml
from rtml import SLA, Count, Entity, EventSource, Expect, FeatureService, Mean, RedisStream, StreamFeatureView


class Sale(rtml.Event):
    sale_id: str
    at: rtml.Timestamp
    kiosk: str
    price: float = rtml.Field(ge=0, nullable=True)


sales = EventSource(
    name="sales",
    description="What kiosks sell",
    schema=Sale,
    timestamp="at",
    event_id="sale_id",
    stream=RedisStream("sales"),
    lateness="1m",
    starts="2024-01-01",
    quality=[
        Expect("expect_column_values_to_not_be_null", "price", name="price_known"),
        Expect("expect_column_values_to_be_between", "price", max_value=50, name="price_in_euros"),
    ],
    sla=SLA(lag="30s"),
)
kiosk_sales = StreamFeatureView(
    name="kiosk_sales",
    source=sales,
    entity=Entity("kiosk", join_keys=["kiosk"]),
    features=[Count(windows=["1h"]), Mean("price", windows=["1h"])],
    freshness="30s",
)
pricing = FeatureService("pricing", features=[kiosk_sales], sla=SLA(p99="1s", availability=0.9))
