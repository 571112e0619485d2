"""What the benchmarks of serving compute: three views of five features, each with windows of 1h, 24h and 7d."""

from benchmarks.definitions import payments
from rtml import Count, Entity, FeatureService, Max, Mean, Min, Stddev, StreamFeatureView, Sum

card = Entity("card")

card_volume = StreamFeatureView(
    name="card_volume",
    source=payments,
    entity=card,
    features=[Count(windows=["1h", "24h", "7d"]), Sum("amount", windows=["24h", "7d"])],
)
card_level = StreamFeatureView(
    name="card_level",
    source=payments,
    entity=card,
    features=[Mean("amount", windows=["1h", "24h", "7d"]), Max("amount", windows=["24h", "7d"])],
)
card_spread = StreamFeatureView(
    name="card_spread",
    source=payments,
    entity=card,
    features=[Stddev("amount", windows=["1h", "24h", "7d"]), Min("amount", windows=["1h", "24h"])],
)

fraud = FeatureService("fraud", features=[card_volume, card_level, card_spread])
