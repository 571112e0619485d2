"""The stream against `tiles/<view>`: a past day of `raw/` replayed into a scratch version, and read back."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quality.parity import Parity
from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, DAY, to_instant
from rtml.lake import LEVEL, Lake, unsigned
from rtml.plan import Plan
from rtml.projection import project
from rtml_assets.tables.events import is_late, load_events
from rtml_assets.tables.read_back import read_back
from rtml_assets.tables.scratch import scratch_version
from rtml_assets.tables.tile_parity import check_built, compare_tiles, events_of, lower, stored_tiles
from rtml_assets.tables.touched import touched_days
from streaming.mended import scan_mirrored

if TYPE_CHECKING:
    from redis import Redis


def stream_versus_batch(lake: Lake, client: Redis, view: StreamFeatureView, plan: Plan, day: date) -> Parity:
    """Send a day of `raw/` through the stream's own parts, and compare what they write with the day's tiles.

    The raw records of hot tiles are compared with those tiles' states. Late events of the day are added to what was
    read back: they are publish's. Redis holds the day once more meanwhile.

    Raises:
        NotReadyError: the day's tiles are not built from all of `raw/`.
    """
    # Bytewax is for the processes that stream: those that only define assets need not load it.
    from streaming.table_replay import replay_table  # noqa: PLC0415

    _check_untouched(lake, view, plan, day)
    check_built(lake, view, plan, day)
    source = view.source
    late = project(view, plan, load_events(lake, source, [day]).filter(is_late(source))).collect()
    with scratch_version(client, plan) as version:
        replay_table(
            client, lake, source, [(view, version)], start=BEGINNING, end=_last(view, day), days=[day], fence=False
        )
        entities = _entities(lake, view, plan, day)
        streamed = read_back(client, version, late, entities)
    stored, events = stored_tiles(lake, plan, day), events_of(lake, view, plan, day)
    parts = [
        compare_tiles(plan, level, got, stored.filter(pl.col(LEVEL) == level).drop(LEVEL), lower(plan, events, level))
        for level, got in enumerate(streamed.levels)
    ]
    # Serving reads those records wherever a window's edge cuts their tile. Not among them is what is late, or what
    # another salt keeps elsewhere.
    recorded = events.join(streamed.records, on=streamed.records.columns, how="semi", maintain_order="left")
    lowered = lower(plan, recorded, 0)
    parts.append(compare_tiles(plan, 0, streamed.raw, streamed.hot, lowered, note=", raw records"))
    _check_untouched(lake, view, plan, day)
    return Parity.joined(parts)


def _last(view: StreamFeatureView, day: date) -> int:
    """Return the last instant at which an on-time event of a day is ingested."""
    return to_instant(day) + DAY + view.source.lateness_us


def _entities(lake: Lake, view: StreamFeatureView, plan: Plan, day: date) -> pl.DataFrame:
    """Return whoever has events in `raw/` or rows in `tiles/`."""
    rows = scan_mirrored(lake, view.source, [day]).with_columns(unsigned())
    seen = project(view, plan, rows).select(plan.key_names)
    stored = stored_tiles(lake, plan, day).lazy().select(plan.key_names)
    return pl.concat([seen, stored]).unique().sort(plan.key_names).collect()


def _check_untouched(lake: Lake, view: StreamFeatureView, plan: Plan, day: date) -> None:
    if day in touched_days(lake, view.source, [plan]):
        raise NotReadyError(
            f"view {view.name!r}: raw/{view.source.name} has rows of {day} that tiles/{view.name} was not built from: "
            "materialise that day first"
        )
