"""Events in order: by entity, then by time, then by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array

_ENTITY = "__entity"


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
class Entities:
    """Numbers for entities, in the order of their keys: the same whenever the entities are.

    The same events and rows so give the same bits. Other events beside them may move the blocks that sums are made
    of, and change a sum's last bits.
    """

    known: pl.DataFrame
    """Join keys, and the number."""

    @classmethod
    def of(cls, frame: pl.DataFrame, names: Iterable[str]) -> Entities:
        """Number the entities of a frame, by these join keys."""
        keys = list(names)
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
    bits = max(len(times) - 1, 1).bit_length()
    if count << bits < 2**63 and not np.any(times[1:] < times[:-1]):
        rows, owners = _by_entity(entities, count, bits)
        ordered = Ordered(rows, owners, times[rows])
    else:
        ordered = _by_entity_and_time(entities, count, times)
    _settle_ties(ordered, events)
    return ordered


def _by_entity(entities: Array, count: int, bits: int) -> tuple[Array, Array]:
    """Sort by entity and row at once: numbers are sorted many times faster than their places are found."""
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
