"""Up to when all that arrived at a source is in the lake: by the mirror's positions, or else by its newest event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl
from redis.exceptions import ConnectionError, TimeoutError

from rtml.define.source import EventSource
from rtml.instants import BEGINNING, SECOND, Duration, Instant, to_instant
from rtml.lake import EVENT_DATE, Lake, raw_schema
from rtml.online import keys
from rtml.projection import INGESTED_AT
from rtml.settings import Settings
from rtml_assets.tables.delta import open_table, scan
from rtml_assets.tables.events import missing_since
from rtml_assets.tables.touched import touched_days
from streaming.broker import connect
from streaming.positions import read_positions, watermark

_PATIENCE = 0.5
"""Seconds to wait for a Redis that is not needed."""


@dataclass(frozen=True)
class Arrivals:
    """How to tell up to when all has arrived.

    Where Redis answers, all partitions are mirrored up to the least of their positions. Without it, the newest event
    of `events/` tells how far one partition was; another may be behind by an epoch of the mirror, and its events by
    the lateness.
    """

    redis: Settings | str = ""
    epoch: Duration = 30 * SECOND

    def known_to(self, lake: Lake, source: EventSource) -> Instant:
        """Return the last instant up to which all that arrived at a source is in `events/`."""
        mirrored = self._mirrored(source)
        if mirrored == BEGINNING:
            newest = _newest(lake, source)
            mirrored = BEGINNING if newest == BEGINNING else newest - source.lateness_us - self.epoch
        days = touched_days(lake, source)
        if mirrored == BEGINNING or not days:
            return mirrored
        first = missing_since(lake, source, days).min()
        return mirrored if first is None else min(mirrored, to_instant(first) - 1)

    def _mirrored(self, source: EventSource) -> Instant:
        """Return up to when all partitions are mirrored; the beginning of time where nobody can say."""
        if not self.redis:
            return BEGINNING
        with connect(self.redis, timeout=_PATIENCE) as client:
            try:
                return watermark(read_positions(client, keys.mirrored(source.name), source.stream.partitions))
            except (ConnectionError, TimeoutError):
                return BEGINNING


def _newest(lake: Lake, source: EventSource) -> Instant:
    """Return the last `ingested_at` of `events/`. The table's log says which days may have it, to the millisecond."""
    table = open_table(lake.events(source.name))
    if table is None:
        return BEGINNING
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    days: list[date] | None = None
    if (latest := f"max.{INGESTED_AT}") in files.columns and not files[latest].has_nulls():
        near = pl.col(latest) >= pl.col(latest).max() - pl.duration(milliseconds=1)
        days = files.filter(near)[f"partition.{EVENT_DATE}"].unique().to_list()
    found = scan(table, raw_schema(source), days).select(pl.col(INGESTED_AT).max()).collect().item()
    return BEGINNING if found is None else to_instant(found)
