"""Events in order: by entity, then by time, then by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.point_in_time.parallel import in_slices

_ENTITY = "__entity"
_SPARSE = 2
"""How many integers there may be to each key for a table of them."""
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Axis:
    """Instants as small numbers, so that one integer holds an entity and an instant.

    A place is the distance from the first event or, where that is too wide, how many different times lie before.
    """

    start: int
    span: int
    """One more than the place of an instant after all events."""
    times: Array | None

    @classmethod
    def of(cls, times: Array, entities: int) -> Axis:
        """Return an axis for events at these times, of so many entities."""
        start, end = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        span = end - start + 2
        if span * (entities + 1) < 2**63:
            return cls(start, span, None)
        different = np.unique(times)
        return cls(start, len(different) + 1, different)

    def pack(self, entities: Array, instants: Array, *, inside: bool = False) -> Array:
        """Return entity and instant as one integer. Of an event's, those are less whose event is before the instant.

        With `inside` no instant lies before the first event or after the last one.
        """
        if self.times is not None:
            places = np.searchsorted(self.times, instants)
        elif inside:
            places = instants - self.start
        else:
            places = np.clip(instants, self.start, self.start + self.span - 1)
            places -= self.start
        places += entities * np.int64(self.span)
        return places

    def unpack(self, packed: Array) -> tuple[Array, Array]:
        """Return entities and times of events."""
        entities = packed // self.span
        places = packed - entities * self.span
        return narrow(entities), places + self.start if self.times is None else self.times[places]


@dataclass(frozen=True)
class Places:
    """Numbers of integers that lie close together, looked up by how far each is from the least."""

    least: int
    numbers: Array
    """By distance; the last one is that of all integers that have none."""

    @classmethod
    def of(cls, keys: pl.Series) -> tuple[Places, Array] | None:
        """Number integers by their order, and return them in it; None where the table would outgrow the keys."""
        least, greatest = keys.min(), keys.max()
        if not isinstance(least, int) or not isinstance(greatest, int):
            return None
        span = greatest - least + 1
        if span > _SPARSE * len(keys):
            return None
        there = np.zeros(span, dtype=bool)

        def mark(part: slice) -> None:
            there[keys[part].drop_nulls().to_numpy() - least] = True

        in_slices(len(keys), _AT_ONCE, mark)
        known = np.flatnonzero(there)
        numbers = np.full(span + 1, len(known), dtype=np.uint32)
        numbers[known] = np.arange(len(known))
        return cls(least, numbers), known + least

    def look_up(self, keys: pl.Series) -> Array:
        """Return the number of each; of a null, and of what was not there, the first that is free."""
        found = np.empty(len(keys), dtype=self.numbers.dtype)
        in_slices(len(keys), _AT_ONCE, lambda part: self._look_up(keys[part], found[part]))
        return found

    def _look_up(self, keys: pl.Series, found: Array) -> None:
        whole = keys.fill_null(self.least) if keys.null_count() else keys
        with np.errstate(over="ignore"):
            # What is less wraps round, and lands beyond all that is greater.
            places = (whole.to_numpy() - np.int64(self.least)).view(np.uint64)
        np.take(self.numbers, np.minimum(places, len(self.numbers) - 1).view(np.int64), out=found)
        if whole is not keys:
            found[keys.is_null().to_numpy()] = self.numbers[-1]


@dataclass(frozen=True)
class Entities:
    """Numbers for entities, in the order of their keys: the same whenever the entities are.

    The same events and rows so give the same bits. Other events beside them may move the blocks that sums are made
    of, and change a sum's last bits.
    """

    known: pl.DataFrame
    """Join keys, and the number."""
    places: Places | None = None
    """Where one integer tells entities apart, and they lie close together: the same numbers, many times faster."""

    @classmethod
    def of(cls, frame: pl.DataFrame, names: Iterable[str]) -> Entities:
        """Number the entities of a frame, by these join keys."""
        keys = list(names)
        if len(keys) == 1 and frame.schema[keys[0]] == pl.Int64() and (found := Places.of(frame[keys[0]])):
            places, known = found
            return cls(pl.DataFrame({keys[0]: known}).with_row_index(_ENTITY), places)
        return cls(frame.select(keys).unique().drop_nulls().sort(keys).with_row_index(_ENTITY))

    def __len__(self) -> int:
        """Return how many entities there are."""
        return self.known.height

    @property
    def names(self) -> list[str]:
        """The join keys."""
        return self.known.columns[1:]

    def numbers(self, frame: pl.DataFrame) -> Array:
        """Return each row's number; what has none gets the first that is free."""
        if self.places is not None:
            return self.places.look_up(frame[self.names[0]])
        joined = frame.select(self.names).join(self.known, on=self.names, how="left", maintain_order="left")
        return joined[_ENTITY].fill_null(len(self)).to_numpy()

    def keys(self, numbers: Array) -> pl.DataFrame:
        """Return the join keys of numbers."""
        return self.known.select(self.names)[numbers]


class Ordered(NamedTuple):
    """Events in order: their row numbers, entities and times."""

    rows: Array
    entities: Array
    times: Array


def in_order(entities: Array, count: int, events: pl.DataFrame) -> Ordered:
    """Put the events of the `count` known entities in order; fastest when they are sorted by time, as `events/` is."""
    times = events[EVENT_TIME].to_numpy()
    if count << _bits(len(times)) < 2**63 and not np.any(times[1:] < times[:-1]):
        rows, owners = by_entity(entities, count)
        ordered = Ordered(rows, owners, times[rows])
    else:
        ordered = _by_entity_and_time(entities, count, times)
    _settle_ties(ordered, events)
    return ordered


def _bits(rows: int) -> int:
    """Return how many bits hold the number of each row."""
    return max(rows - 1, 1).bit_length()


def by_entity(entities: Array, count: int) -> tuple[Array, Array]:
    """Return the rows of the `count` known entities by entity, else in their order, and their entities.

    Sorts by entity and row at once: numbers are sorted many times faster than their places are found.
    """
    bits = _bits(len(entities))
    packed = entities.astype(np.int64)
    packed <<= bits
    packed |= np.arange(len(entities))
    packed.sort()
    packed = packed[: np.searchsorted(packed, count << bits)]
    rows = narrow(packed & ((1 << bits) - 1))
    packed >>= bits
    return rows, narrow(packed)


def _by_entity_and_time(entities: Array, count: int, times: Array) -> Ordered:
    axis = Axis.of(times, count)
    known = np.flatnonzero(entities < count)
    packed = axis.pack(entities[known], times[known], inside=True)
    order = np.argsort(packed)
    packed = packed[order]
    return Ordered(narrow(known[order]), *axis.unpack(packed))


def _settle_ties(ordered: Ordered, events: pl.DataFrame) -> None:
    """Put events of one entity and one time in the order of their ids."""
    rows, entities, times = ordered
    same = times[1:] == times[:-1]
    same &= entities[1:] == entities[:-1]
    if same.any():
        tied = np.zeros(len(rows), dtype=bool)
        tied[1:] = same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        ids = events[ID64].to_numpy()[rows[places]]
        rows[places] = rows[places][np.lexsort((ids, times[places], entities[places]))]


def narrow(numbers: Array) -> Array:
    """Return positions in four bytes where they fit, with room for a block more."""
    return numbers.astype(np.int32) if len(numbers) == 0 or int(numbers.max()) < 2**30 else numbers
