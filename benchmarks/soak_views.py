"""What the soak computes: the three views of serving over short tiles, so that all that is remembered turns over soon.

With tiles of five minutes and a lateness of fifteen, a writer remembers the last twenty minutes of busy entities, and
grows for so long. Here that is done within the first minute.
"""

from dataclasses import replace

from benchmarks import definitions, three_views
from rtml import FeatureService

payments = replace(definitions.payments, lateness="10s")

card_volume, card_level, card_spread = (
    replace(view, source=payments, ladder=["10s", "5m", "1h", "1d"])
    for view in (three_views.card_volume, three_views.card_level, three_views.card_spread)
)

fraud = FeatureService("fraud", features=[card_volume, card_level, card_spread])
