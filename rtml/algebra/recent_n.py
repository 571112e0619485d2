"""Lists of the first and the last values, by event time; ties go by the event id's hash (I7).

A state is the records that its list is made of (time, id64, value: 24 bytes each), in the list's order: as many as
there are, up to n. So a tile with one event takes 24 bytes, not n times as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rtml.algebra.family import (
    EVENT_TIME,
    ID64,
    NUMPY_KIND,
    RAGGED,
    Aggregate,
    Array,
    Events,
    Family,
    Identity,
    Kind,
    Output,
    Span,
    States,
    Values,
    repeat_groups,
)
from rtml.errors import CodecError, DefinitionError
from rtml.lazy import pl

LONGEST = 100
"""How long a list may be."""


@dataclass(frozen=True)
class Listed(Family):
    """Up to `n` records from one end of the order (event time, id64)."""

    n: int

    newest_first: ClassVar[bool]
    distinct: ClassVar[bool] = False

    @property
    def part(self) -> str:
        """The state column."""
        return self._named(f"{self.code}_{self.n}")

    @property
    def columns(self) -> dict[str, str]:
        """Records, one after the other."""
        return {self.part: RAGGED}

    @property
    def empty(self) -> dict[str, Identity]:
        """None."""
        return {self.part: b""}

    @cached_property
    def record(self) -> np.dtype[Any]:
        """One event of the list."""
        return np.dtype([("time", "<i8"), ("id64", "<u8"), ("value", NUMPY_KIND[self.kind])])

    def records(self, times: Array, id64s: Array, values: Array) -> Array:
        """Return events as records; −0.0 is 0.0, so that equal values are the same bytes."""
        found = np.empty(len(times), dtype=self.record)
        found["time"], found["id64"] = times, id64s
        found["value"] = values + 0.0 if self.kind == "f64" else values
        return found

    def lower(self) -> list[pl.Expr]:
        """Collect a group's events, and keep the first of them."""
        present = pl.col(self.column).is_not_null()
        parts = [pl.col(part).filter(present) for part in (EVENT_TIME, ID64, self.column)]

        def listed(columns: Any) -> pl.Series:
            found = self.records(*(column.to_numpy() for column in columns))
            kept, _ = self.keep(found, np.zeros(len(found), dtype=np.int64), 1)
            return pl.Series([kept.tobytes()], dtype=pl.Binary)

        return [pl.map_groups(parts, listed, return_dtype=pl.Binary(), returns_scalar=True).alias(self.part)]

    def lift(self, events: Events) -> dict[str, Array]:
        """A list of one, where there is a value."""
        values, valid = events.lanes[self.column]
        return {self.part: cut(self.records(events.time, events.id64, values)[valid], valid)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Put all records of a group in order, and keep the first of them."""
        records, sizes = self.read(states[self.part])
        group = np.repeat(repeat_groups(starts, len(sizes)), sizes)
        return {self.part: cut(*self.keep(records, group, len(starts)))}

    def read(self, entries: Array) -> tuple[Array, Array]:
        """Return the records of all lists, one list after the other, and how many each has.

        Raises:
            CodecError: a list holds a part of a record.
        """
        width = self.record.itemsize
        sizes = np.fromiter(map(len, entries), dtype=np.int64, count=len(entries))
        if np.any(sizes % width):
            raise CodecError(f"{self.part}: a state must be records of {width} bytes; got {int(sizes.max())} bytes")
        return np.frombuffer(b"".join(entries.tolist()), dtype=self.record), sizes // width

    def keep(self, records: Array, group: Array, count: int) -> tuple[Array, Array]:
        """Return the lists of groups that stand one after the other, and their lengths."""
        order = _in_order(records, group, self.newest_first)
        if self.distinct:
            order = order[_first_of_each(records["value"][order], group)]
            group = group[order]
        lengths = np.bincount(group, minlength=count)
        rank = np.arange(len(group)) - (np.cumsum(lengths) - lengths)[group]
        return records[order[rank < self.n]], np.minimum(lengths, self.n)


def _in_order(records: Array, group: Array, newest_first: bool) -> Array:
    """Return the places of records group by group, each in order of time and id64.

    Group and time as one number are sorted many times faster than one after the other; they fit but for odd times.
    """
    times = np.ascontiguousarray(records["time"])
    if not len(times):
        return np.empty(0, dtype=np.int64)
    first, last = int(times.min()), int(times.max())
    if (last - first + 1) * (int(group[-1]) + 1) < 1 << 63:
        packed = group * (last - first + 1) + (last - times if newest_first else times - first)
        order = np.argsort(packed)
        packed = packed[order]
        if not np.any(packed[1:] == packed[:-1]):
            return order
    sign = -1 if newest_first else 1
    return np.lexsort((records["id64"], times, sign * group))[::sign]


def _first_of_each(values: Array, group: Array) -> Array:
    """Return where a value stands for the first time in its group."""
    order = np.lexsort((values, group))
    again = np.zeros(len(order), dtype=bool)
    again[order[1:]] = (values[order[1:]] == values[order[:-1]]) & (group[order[1:]] == group[order[:-1]])
    return ~again


def cut(records: Array, lengths: Array) -> Array:
    """Return the bytes of lists of these lengths that stand one after the other."""
    data, ends = records.tobytes(), np.cumsum(lengths) * records.dtype.itemsize
    starts = np.append(0, ends[:-1]) if len(ends) else ends
    entries = np.empty(len(ends), dtype=object)
    entries[:] = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return entries


@dataclass(frozen=True)
class OldestN(Listed):
    """The first records, oldest first."""

    code: ClassVar[str] = "first"
    newest_first: ClassVar[bool] = False


@dataclass(frozen=True)
class NewestN(Listed):
    """The last records, newest first."""

    code: ClassVar[str] = "last"
    newest_first: ClassVar[bool] = True


@dataclass(frozen=True)
class NewestDistinctN(Listed):
    """The last records with different values, newest first: of each value its newest one.

    What is among the n newest values of a union is among the n newest of its part as well: nothing is lost.
    """

    code: ClassVar[str] = "last_distinct"
    newest_first: ClassVar[bool] = True
    distinct: ClassVar[bool] = True


@dataclass(frozen=True)
class FirstN(Aggregate):
    """The values of the first `n` events that have one, oldest first; an empty list when there are none."""

    name = "first_n"
    takes_string = True
    family: ClassVar[type[Listed]] = OldestN

    n: int = 5

    def __post_init__(self) -> None:
        """Refuse a list that is too long, or none."""
        if not isinstance(self.n, int) or isinstance(self.n, bool) or not 1 <= self.n <= LONGEST:
            raise DefinitionError.at(self.name, "n", f"an integer from 1 to {LONGEST}", self.n)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The records."""
        return (self.family(column, kind, self.n),)

    def output(self, kind: Kind) -> Output:
        """A list of values."""
        return Output(kind, self.n)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the records' values."""
        del span
        family = self.family(column, kind, self.n)
        records, lengths = family.read(states[family.part])
        found = self.output(kind).room(len(lengths))
        found.values[np.arange(self.n) < lengths[:, None]] = records["value"]
        return Values(found.values, np.ones(len(lengths), dtype=bool), lengths)


@dataclass(frozen=True)
class LastN(FirstN):
    """The values of the last `n` events that have one, newest first; an empty list when there are none."""

    name = "last_n"
    family = NewestN


@dataclass(frozen=True)
class LastDistinctN(FirstN):
    """The last `n` different values, newest first, each once; an empty list when there are none."""

    name = "last_distinct_n"
    family = NewestDistinctN
