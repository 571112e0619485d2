"""How history is read that is larger than memory: rows by spans of time, and within them by entity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import Array
from rtml.instants import DAY, Duration, Instant, to_datetime

ROWS_AT_ONCE = 8_000_000
"""About so many events are in memory at a time."""
_LAST: Instant = 253_402_300_799_999_999
"""The end of the year 9999; there are no events after it, and none before the epoch."""


class Reach(NamedTuple):
    """How far from its instant a row looks for events: `before` and `after`, both inclusive, in microseconds."""

    before: Duration
    after: Duration

    @property
    def whole(self) -> Duration:
        """The stretch of events that one row looks at."""
        return self.before + self.after


class Span(NamedTuple):
    """Rows whose instants lie in `[first, last]`, the days of events that they look at, and in how many parts."""

    first: Instant
    last: Instant
    days: tuple[date, ...]
    parts: int


def spans(times: Array, reach: Reach, counts: Mapping[date, int], limit: int) -> Iterator[Span]:
    """Split rows by their instants (int64 µs, in any order) so that each span's events are about `limit` at most.

    A span is no shorter than what one of its rows looks at, so that events are read about twice at most; where its
    events are still too many, they are to be read in parts, by entity.

    Args:
        times: the rows' instants.
        reach: how far each of them looks.
        counts: how many events each day has; the other days have none.
        limit: how many events may be in memory.
    """
    if not len(times):
        return
    starts = (pl.Series(times) // DAY * DAY).unique().sort().to_list()
    first = open_to = starts[0]
    for start in starts[1:]:
        long_enough = start - first >= reach.whole
        if long_enough and _events(counts, reach, first, start + DAY - 1) > limit:
            yield _span(times, reach, counts, limit, first, open_to + DAY - 1)
            first = start
        open_to = start
    yield _span(times, reach, counts, limit, first, open_to + DAY - 1)


def days_between(counts: Mapping[date, int], first: Instant, last: Instant) -> tuple[date, ...]:
    """Return the days with events that an inclusive stretch of instants touches."""
    edges = [to_datetime(min(max(instant, 0), _LAST)).date() for instant in (first, last)]
    return tuple(day for day in counts if edges[0] <= day <= edges[1])


def entity_parts(keys: pl.DataFrame, parts: int) -> Iterator[Array]:
    """Return the rows of each part; rows of one entity are in one part, and no part is empty."""
    if parts == 1:
        yield np.arange(keys.height)
        return
    code = entity_codes(keys)[0] % parts
    for part in range(parts):
        rows = np.flatnonzero(code == part)
        if len(rows):
            yield rows


def entity_codes(*frames: pl.DataFrame) -> list[Array]:
    """Return a number for each row of frames of join keys: the same where, and only where, the entity is."""
    entities = pl.concat([frame.unique() for frame in frames]).unique(maintain_order=True).with_row_index("__code")
    names = frames[0].columns
    coded = [frame.join(entities, on=names, how="left", maintain_order="left")["__code"] for frame in frames]
    return [codes.to_numpy().astype(np.int64) for codes in coded]


def _span(times: Array, reach: Reach, counts: Mapping[date, int], limit: int, first: Instant, last: Instant) -> Span:
    inside = times[(times >= first) & (times <= last)]
    exact = int(inside.min()), int(inside.max())
    days = days_between(counts, exact[0] - reach.before, exact[1] + reach.after)
    return Span(*exact, days, max(1, -(-sum(counts[day] for day in days) // limit)))


def _events(counts: Mapping[date, int], reach: Reach, first: Instant, last: Instant) -> int:
    return sum(counts[day] for day in days_between(counts, first - reach.before, last + reach.after))
