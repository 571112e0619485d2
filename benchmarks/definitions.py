"""What the benchmarks of the stream compute: one source, one view of nine features over three windows."""

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Max, Mean, RedisStream, StreamFeatureView


class Payment(rtml.Event):
    payment_id: str
    at: rtml.Timestamp
    card: str
    amount: float = rtml.Field(ge=0)


payments = EventSource(
    name="payments", schema=Payment, timestamp="at", event_id="payment_id", stream=RedisStream("payments")
)

card_payments = StreamFeatureView(
    name="card_payments",
    source=payments,
    entity=Entity("card"),
    features=[
        Count(windows=["1h", "24h", "7d"]),
        Mean("amount", windows=["1h", "24h", "7d"]),
        Max("amount", windows=["1h", "24h", "7d"]),
    ],
)

fraud = FeatureService("fraud", features=[card_payments])
