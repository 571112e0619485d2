"""What rows look at of a source's events that `events/<source>` does not hold, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import numpy as np

from rtml.algebra.family import Array
from rtml.define.source import EventSource
from rtml.errors import NotReadyError
from rtml.instants import DAY, to_instant
from rtml.lake import Lake
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.spans import Reach, days_between
from rtml_assets.tables.touched import outside_days, touched_days

_SHOWN = 5


def check_history(lake: Lake, source: EventSource, view: str) -> None:
    """Refuse to answer from a table that is not there: without one, every value would be that of no events.

    Raises:
        NotReadyError: the lake has no table `events/<source>`; says where it was looked for, and what builds it.
    """
    uri = lake.events(source.name)
    if open_table(uri) is not None:
        return
    mirrored = rows_by_day(open_table(lake.raw(source.name)))
    found = f"raw/{source.name} has {len(mirrored)} days" if mirrored else f"there is no raw/{source.name} either"
    raise NotReadyError(
        f"view {view!r}: no table events/{source.name} in the lake {lake.root}, and {found}. If that is the right "
        f"lake (RTML_LAKE), run Dagster's job compact_{source.name}, or for its whole history `rtml backfill {view}`"
    )


def gaps(lake: Lake, source: EventSource, reach: Reach, at: Array) -> list[str]:
    """Say what rows at some instants (int64 µs) look at that is not counted: days, and the ends of history."""
    if not len(at):
        return []
    first, last = int(at.min()) - reach.before, int(at.max()) + reach.after
    behind = days_between(dict.fromkeys(touched_days(lake, source), 1), first, last)
    outside = days_between(dict.fromkeys(outside_days(lake, source), 1), first, last)
    found = []
    if behind:
        found.append(
            f"{len(behind)} days of source {source.name!r} are mirrored but not compacted, and so not (or not wholly) "
            f"counted: {_listed(behind)}. Run Dagster's job compact_{source.name} (or LocalPlatform.compact())"
        )
    if outside:
        found.append(
            f"{len(outside)} days of source {source.name!r} lie outside its history (starts {source.first_day}, ends "
            f"{source.last_day or 'today'}) and are not counted, though serving counts them: {_listed(outside)}. "
            "Change starts or ends, or leave out the rows that look at them"
        )
    return [*found, *_ends(lake, source, reach, at)] if reach.before else found


def _ends(lake: Lake, source: EventSource, reach: Reach, at: Array) -> Iterator[str]:
    """Say how many rows look back beyond the first day on record, or lie behind the last one."""
    days = list(rows_by_day(open_table(lake.events(source.name))))
    if not days:
        return
    first, last = min(days), max(days)
    early = np.count_nonzero(at - reach.before < to_instant(first)) if first > source.first_day else 0
    if early:
        yield (
            f"{early:,} of {len(at):,} rows look at what lies before {first}, the first day of events/{source.name}: "
            "what is older is not counted (online, such values have the status partial)"
        )
    ended = source.last_day is not None and last >= source.last_day
    behind = 0 if ended else np.count_nonzero(at > to_instant(last) + DAY)
    if behind:
        yield (
            f"{behind:,} of {len(at):,} rows lie after {last}, the last day of events/{source.name}: "
            "what has happened since is not counted"
        )


def _listed(days: Sequence[date]) -> str:
    return ", ".join(map(str, days[:_SHOWN])) + (", …" if len(days) > _SHOWN else "")
