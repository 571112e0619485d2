"""What the offline tables are behind with: days to build anew, and up to when nothing of `raw/` is missing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from rtml.define.source import EventSource
from rtml.instants import BEGINNING, DAY, Instant, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml_assets.tables.delta import built_from, open_table, rows_by_day
from rtml_assets.tables.events import events_meaning, missing_since
from rtml_assets.tables.tiles import tiles_meaning
from streaming.positions import read_positions, watermark

if TYPE_CHECKING:
    from redis import Redis


def touched_days(lake: Lake, source: EventSource, plans: Iterable[Plan] = ()) -> list[date]:
    """Return the source's days whose `events/`, or whose `tiles/` of some plans, are not built from all of `raw/`.

    `raw/` only grows, so a day's number of rows tells; days outside the source's history are left alone.
    """
    counts = rows_by_day(open_table(lake.raw(source.name)))
    wanted = {day: count for day, count in counts.items() if in_history(source, day)}
    touched = _behind(wanted, lake.events(source.name), events_meaning(source))
    for plan in plans:
        touched |= _behind(wanted, lake.tiles(plan.view), tiles_meaning(plan))
    return sorted(touched)


def unbuilt_days(lake: Lake, source: EventSource, plan: Plan) -> list[date]:
    """Return the days of `events/` that `tiles/` never held as a view is defined now.

    A day that has been built, and to which events have come since, is not among them.
    """
    days = [day for day in rows_by_day(open_table(lake.raw(source.name))) if in_history(source, day)]
    events = built_from(open_table(lake.events(source.name)), days, events_meaning(source))
    tiles = built_from(open_table(lake.tiles(plan.view)), days, tiles_meaning(plan))
    return sorted(set(events) - set(tiles))


def in_history(source: EventSource, day: date) -> bool:
    """Whether a day lies in a source's history."""
    return source.first_day <= day and (source.last_day is None or day <= source.last_day)


def outside_days(lake: Lake, source: EventSource) -> list[date]:
    """Return the days of `raw/` that no asset builds, because they lie outside the source's history."""
    return [day for day in rows_by_day(open_table(lake.raw(source.name))) if not in_history(source, day)]


def complete_to(lake: Lake, source: EventSource, mirrored: Instant) -> Instant:
    """Return the instant before which all that was ingested, and mirrored up to an instant, is in `events/`."""
    days = touched_days(lake, source)
    if not days:
        return mirrored
    missing = missing_since(open_table(lake.raw(source.name)), lake, source, days)
    first = missing.min()
    return mirrored if first is None else min(mirrored, to_instant(first))


def complete_now(lake: Lake, client: Redis, source: EventSource) -> Instant:
    """Return `complete_to` for what is mirrored at present; the beginning of time where nothing is."""
    mirrored = watermark(read_positions(client, keys.mirrored(source.name), source.stream.partitions))
    return BEGINNING if mirrored == BEGINNING else complete_to(lake, source, mirrored)


def whole_days(lake: Lake, source: EventSource, plan: Plan, complete: Instant) -> list[date]:
    """Return the days that are over, the latest first: `tiles/` holds all that `raw/` has of them."""
    touched = set(touched_days(lake, source, [plan]))
    days = rows_by_day(open_table(lake.events(source.name)))
    over = (day for day in days if to_instant(day) + DAY + source.lateness_us <= complete)
    return sorted((day for day in over if day not in touched), reverse=True)


def _behind(wanted: dict[date, int], uri: str, meaning: str) -> set[date]:
    built = built_from(open_table(uri), list(wanted), meaning)
    return {day for day, count in wanted.items() if built.get(day) != count}
