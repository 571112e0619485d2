"""What the benchmark of stored bytes computes: one view of three features over a window of 30 days."""

from benchmarks.definitions import payments
from rtml import Count, Entity, FeatureService, Max, Mean, StreamFeatureView

card_month = StreamFeatureView(
    name="card_month",
    source=payments,
    entity=Entity("card"),
    features=[Count(windows=["30d"]), Mean("amount", windows=["30d"]), Max("amount", windows=["30d"])],
)

month = FeatureService("month", features=[card_month])
