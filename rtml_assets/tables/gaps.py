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
from streaming.mended import mirrored_by_day

_SHOWN = 5


def check_history(lake: Lake, source: EventSource, view: str) -> None:
    """Refuse to answer from a table that is not there: without one, every value would be that of no events.

    Raises:
        NotReadyError: the lake has no table `events/<source>`; says where it was looked for, and what builds it.
    """
    uri = lake.events(source.name)
    if open_table(uri) is not None:
        return
    mirrored = mirrored_by_day(lake, source)
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
    return [*found, *_ends(lake, source, at)] if reach.before else found


def _ends(lake: Lake, source: EventSource, at: Array) -> Iterator[str]:
    """Say so when most rows lie before the first day on record, or behind the last one: it may be the wrong lake.

    Some always do, and that a window reaches back beyond the first day is nothing to tell: every history begins
    somewhere.
    """
    days = list(rows_by_day(open_table(lake.events(source.name))))
    if not days:
        return
    first, last = min(days), max(days)
    outside = np.count_nonzero((at <= to_instant(first)) | (at > to_instant(last) + DAY))
    if 2 * outside > len(at):
        yield (
            f"{outside:,} of {len(at):,} rows lie outside of the days on record of events/{source.name}, {first} to "
            f"{last}: is {lake.root} the right lake (RTML_LAKE)?"
        )


def _listed(days: Sequence[date]) -> str:
    return ", ".join(map(str, days[:_SHOWN])) + (", …" if len(days) > _SHOWN else "")
