"""What a backfill costs: days, events, and the time that they take by a sample of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from rtml.define.views import StreamFeatureView
from rtml.lake import Lake, raw_schema, unsigned
from rtml.plan import Plan
from rtml_assets.tables.delta import open_table, scan
from rtml_assets.tables.events import deduplicate
from rtml_assets.tables.tiles import build_tiles
from rtml_assets.tables.touched import touched_days
from streaming.mended import mirrored_by_day

SAMPLE_ROWS = 200_000
"""At most so many events are built to see how long they take."""


class Cost(NamedTuple):
    """Days that are to be built, the rows of `raw/` that they have, and about how many seconds that takes."""

    days: Sequence[date]
    rows: int
    seconds: float

    def __str__(self) -> str:
        """Return it in words."""
        days = f"{len(self.days)} day{'' if len(self.days) == 1 else 's'}"
        return f"{days}, {self.rows:,} events, about {max(1, round(self.seconds))} s"


def cost_of(lake: Lake, view: StreamFeatureView, plan: Plan, days: Sequence[date] | None = None) -> Cost:
    """Estimate what building days of a view takes; by default those that are not built from all of `raw/`.

    The time is that of building a sample in memory, so what the scheduler adds is left out.
    """
    table = open_table(lake.raw(view.source.name))
    counts = mirrored_by_day(lake, view.source)
    days = touched_days(lake, view.source, [plan]) if days is None else [day for day in days if counts.get(day)]
    rows = sum(counts[day] for day in days)
    if not rows:
        return Cost(days, 0, 0.0)
    largest = max(days, key=lambda day: counts[day])
    started = time.perf_counter()
    sample = scan(table, raw_schema(view.source), [largest]).head(SAMPLE_ROWS).collect()
    events, _ = deduplicate(view.source, sample)
    build_tiles(view, plan, events.lazy().with_columns(unsigned()))
    return Cost(days, rows, (time.perf_counter() - started) * rows / max(1, sample.height))
