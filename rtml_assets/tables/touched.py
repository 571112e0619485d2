"""What the offline tables are behind with: days to build anew, and up to when nothing of `raw/` is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from rtml.define.source import EventSource
from rtml.instants import BEGINNING, DAY, Instant, to_instant
from rtml.lake import EVENT_DATE, Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml_assets.tables.decisions import CHECK
from rtml_assets.tables.delta import built_from, open_table
from rtml_assets.tables.events import events_meaning, missing_since
from rtml_assets.tables.quarantine import HELD, STATE, gates, held
from rtml_assets.tables.tiles import tiles_meaning
from streaming.mended import mirrored_by_day
from streaming.positions import read_positions, watermark

if TYPE_CHECKING:
    from redis import Redis


def touched_days(lake: Lake, source: EventSource, plans: Iterable[Plan] = ()) -> list[date]:
    """Return the source's days whose `events/`, or whose `tiles/` of some plans, are not built from all of `raw/`.

    `raw/` and `decisions/` only grow, so a day's number of rows tells; days outside its history are left alone.
    """
    counts = mirrored_by_day(lake, source)
    wanted = {day: count for day, count in counts.items() if in_history(source, day)}
    touched = _behind(wanted, lake.events(source.name), events_meaning(source))
    for plan in plans:
        touched |= _behind(wanted, lake.tiles(plan.view), tiles_meaning(plan))
    return sorted(touched)


def blocked_days(lake: Lake, source: EventSource) -> set[date]:
    """Return the touched days that a check kept from being built, and of which it holds events still.

    Built in one run with others, such a day would keep theirs from what is downstream, too.
    """
    return {day for days in blocked_by(lake, source).values() for day in days}


def blocked_by(lake: Lake, source: EventSource) -> dict[str, list[date]]:
    """Return the same by check, in order."""
    of_gate = pl.col("reason").is_in(gates(source))
    rows = held(lake, source, of_gate, bodies=False)
    waiting = rows.filter(pl.col(STATE) == HELD).select("reason", EVENT_DATE).unique()
    if waiting.is_empty():
        return {}
    of_touched = waiting.filter(pl.col(EVENT_DATE).is_in(touched_days(lake, source))).sort(EVENT_DATE)
    found: dict[str, list[date]] = {}
    for reason, day in of_touched.rows():
        found.setdefault(reason.removeprefix(CHECK), []).append(day)
    return found


def unbuilt_days(lake: Lake, source: EventSource, plan: Plan) -> list[date]:
    """Return the days of `events/` that `tiles/` never held as a view is defined now.

    A day that has been built, and to which events have come since, is not among them.
    """
    days = [day for day in mirrored_by_day(lake, source) if in_history(source, day)]
    events = built_from(open_table(lake.events(source.name)), days, events_meaning(source))
    tiles = built_from(open_table(lake.tiles(plan.view)), days, tiles_meaning(plan))
    return sorted(set(events) - set(tiles))


def in_history(source: EventSource, day: date) -> bool:
    """Whether a day lies in a source's history."""
    return source.first_day <= day and (source.last_day is None or day <= source.last_day)


def outside_days(lake: Lake, source: EventSource) -> list[date]:
    """Return the days of `raw/` that no asset builds, because they lie outside the source's history."""
    return [day for day in mirrored_by_day(lake, source) if not in_history(source, day)]


def complete_to(lake: Lake, source: EventSource, mirrored: Instant) -> Instant:
    """Return the instant before which all that was ingested, and mirrored up to an instant, is in `events/`."""
    days = touched_days(lake, source)
    if not days:
        return mirrored
    first = missing_since(lake, source, days).min()
    return mirrored if first is None else min(mirrored, to_instant(first))


def complete_now(lake: Lake, client: Redis, source: EventSource) -> Instant:
    """Return `complete_to` for what is mirrored at present; the beginning of time where nothing is."""
    mirrored = _mirrored(client, source)
    return BEGINNING if mirrored == BEGINNING else complete_to(lake, source, mirrored)


@dataclass(frozen=True)
class PastDays:
    """How far a view's days can be compared."""

    view: str
    raw: int
    """How many days of the source's history `raw/` has rows of."""
    mirrored: Instant
    over: tuple[date, ...]
    """Of those, the days that nothing on time comes to any more."""
    whole: tuple[date, ...]
    """Of those, the days of which `tiles/` holds all that `raw/` has; the latest first."""

    @property
    def expected(self) -> bool:
        """Whether there ought to be something to compare."""
        return bool(self.over) or (self.raw > 0 and self.mirrored == BEGINNING)

    def __str__(self) -> str:
        """Say why there is nothing to compare."""
        if not self.raw:
            return "nothing is mirrored yet"
        if self.mirrored == BEGINNING:
            return (
                f"raw/ has rows of {self.raw:,} days, and not all of the source's partitions say how far they have come"
            )
        if not self.over:
            return f"of the {self.raw:,} days that raw/ has rows of none is over yet"
        return (
            f"{len(self.over):,} days of raw/ are over, and tiles/{self.view} was built from all of none of them: "
            "is compaction behind?"
        )


def past_days(lake: Lake, client: Redis, source: EventSource, plan: Plan) -> PastDays:
    """Return the days that are over, and those of them that can be compared."""
    mirrored = _mirrored(client, source)  # first: what is mirrored meanwhile is of no day that is over by then
    touched = set(touched_days(lake, source, [plan]))
    days = [day for day in mirrored_by_day(lake, source) if in_history(source, day)]
    over = sorted((day for day in days if to_instant(day) + DAY + source.lateness_us <= mirrored), reverse=True)
    return PastDays(plan.view, len(days), mirrored, tuple(over), tuple(day for day in over if day not in touched))


def _mirrored(client: Redis, source: EventSource) -> Instant:
    return watermark(read_positions(client, keys.mirrored(source.name), source.stream.partitions))


def _behind(wanted: dict[date, int], uri: str, meaning: str) -> set[date]:
    built = built_from(open_table(uri), list(wanted), meaning)
    return {day for day, count in wanted.items() if built.get(day) != count}
