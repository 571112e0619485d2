"""Which days of a source are over, and which of those `events/` holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from rtml.define.source import EventSource
from rtml.instants import BEGINNING, DAY, HOUR, Instant, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.touched import in_history, touched_days
from streaming.positions import read_positions, watermark

if TYPE_CHECKING:
    from redis import Redis

GRACE = 2 * HOUR
"""How long after its end a day may wait to be built: compaction runs every hour."""


@dataclass(frozen=True)
class WholeDays:
    """A source's days that nothing on time comes to any more."""

    newest: date | None
    """The newest of them by the calendar, with events or without; None where none is over."""
    counts: dict[date, int]
    """The rows of `raw/` of each that has any."""
    built: tuple[date, ...]
    """Those that `events/` was built from all of, in order."""
    behind: tuple[date, ...]
    """Those that should have been built by now and are not, in order."""


def whole_days(lake: Lake, client: Redis, source: EventSource) -> WholeDays:
    """Return the days of a source that are over, by how far its mirror has come."""
    # First: what is mirrored meanwhile is of no day that is over by then.
    mirrored = watermark(read_positions(client, keys.mirrored(source.name), source.stream.partitions))
    raw = {
        day: count for day, count in rows_by_day(open_table(lake.raw(source.name))).items() if in_history(source, day)
    }
    if mirrored == BEGINNING or not raw:
        return WholeDays(None, {}, (), ())
    newest = _last_over(source, mirrored)
    touched = set(touched_days(lake, source))
    over = {day: count for day, count in sorted(raw.items()) if day <= newest}
    due = [day for day in over if to_instant(day) + DAY + source.lateness_us + GRACE <= mirrored]
    return WholeDays(
        newest if newest >= source.first_day else None,
        over,
        tuple(day for day in over if day not in touched),
        tuple(day for day in due if day in touched),
    )


def _last_over(source: EventSource, mirrored: Instant) -> date:
    last = to_datetime(mirrored - source.lateness_us).date() - timedelta(days=1)
    return last if source.last_day is None else min(last, source.last_day)
