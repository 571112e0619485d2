"""A version's history up to its boundary B: adaptive tiles, built from `events/` and written once to Redis."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rtml.algebra.family import Array
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, Instant, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.online.adaptive import Grown, fold, grow
from rtml.online.codec import field, state_value
from rtml.projection import INGESTED_AT
from rtml.tiles import Tile
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.events import is_late, load_events
from rtml_assets.tables.publisher import Hold
from rtml_assets.tables.reach import history_start
from rtml_assets.tables.runs import Run, runs
from rtml_assets.tables.strings import EntityStrings, StringsWriter
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

EVENTS_AT_ONCE = 100_000
"""About how many events are held back to be combined and written in one go."""


class History(NamedTuple):
    """What was written."""

    events: int
    tiles: int
    keys: int
    """Entities (partial states where there are salts), once for every day that they have events on."""


def publish_history(lake: Lake, client: Redis, view: StreamFeatureView, version: Version, hold: Hold) -> History:
    """Write the tiles of all events before the boundary that a window can reach, late ones up to `folded_to` included.

    What a lifetime window counts before the boundary is in bases.

    All values are absolute, and nobody else writes tiles before the boundary: it may die anywhere and be repeated.
    `hold` is called before each write.
    """
    plan, source = version.plan, view.source
    start = history_start(version)
    time = pl.col(source.timestamp)
    folded = ~is_late(source, plan.lateness) | (pl.col(INGESTED_AT) < to_datetime(version.folded_to))
    inside = (time >= to_datetime(start)) & (time < to_datetime(version.boundary))
    writer = _Writer(client, version, hold)
    for day in rows_by_day(open_table(lake.events(source.name))):
        if to_datetime(start).date() <= day <= to_datetime(version.boundary).date():
            hold()
            events = load_events(lake, source, [day]).filter(inside & folded)
            for run in runs(view, plan, events, plan.tiles.coarsest):
                writer.add(run)
    writer.flush()
    return History(writer.events, writer.tiles, writer.keys)


def history_from(lake: Lake, view: StreamFeatureView) -> Instant:
    """Return where history on record begins; the beginning of time where it is the source's whole history."""
    days = list(rows_by_day(open_table(lake.events(view.source.name))))
    return BEGINNING if not days or _first(days) <= view.source.first_day else to_instant(_first(days))


def _first(days: list[date]) -> date:
    return min(days)


class _Writer:
    """Collects what grows out of runs of events, and writes it in pipelines."""

    def __init__(self, client: Redis, version: Version, hold: Hold) -> None:
        self._client = client
        self._hold = hold
        self._plan = version.plan
        self._suffix = keys.versioned(version.view, version.version)
        self._held: list[tuple[str, Grown, EntityStrings]] = []
        self._strings = StringsWriter(client, version.plan)
        self._held_events = 0
        self.events = self.tiles = self.keys = 0

    def add(self, run: Run) -> None:
        """Take the events of one entity and coarsest tile."""
        tile = Tile(self._plan.tiles.top, run.tile)
        self._held.append((run.tag + self._suffix, grow(self._plan, tile, run.records), run.strings))
        self._held_events += len(run.records)
        if self._held_events >= EVENTS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Combine all states in one go, and write."""
        packed = iter(self._folded())
        pipeline = self._client.pipeline(transaction=False)
        life, raw_life = self._plan.expire_after // 1_000, self._plan.raw_expire_after // 1_000
        for key, grown, strings in self._held:
            self._strings.write(pipeline, key, strings)
            values: dict[Any, Any] = {field(tile): value for tile, value in grown.leaves.items()}
            for tile, records in grown.states.items():
                count = len(records) if tile.level == 0 else 0
                values[field(tile)] = state_value(count, next(packed))
            for index, data in grown.raw.items():
                pipeline.set(keys.raw(key, index), data, px=raw_life)
            pipeline.hset(key, mapping=values)
            pipeline.pexpire(key, life)
            self.tiles += len(values)
        self._hold()
        pipeline.execute()
        self.events += self._held_events
        self.keys += len(self._held)
        self._held, self._held_events = [], 0

    def _folded(self) -> list[bytes]:
        pending: list[tuple[bytes | None, Array]] = [
            (None, records) for _, grown, _ in self._held for records in grown.states.values()
        ]
        return fold(self._plan, pending)
