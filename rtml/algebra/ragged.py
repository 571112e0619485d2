"""States that are one entry of bytes each: made from many values at once, joined in groups, checked when read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from rtml.algebra.family import NUMPY_KIND, RAGGED, Array, Events, Family, Identity, Kind, States
from rtml.lazy import pl

_LONG = 64
_MIX = tuple(map(np.uint64, (30, 0xBF58476D1CE4E5B9, 27, 0x94D049BB133111EB, 31, 0x9E3779B97F4A7C15)))


@dataclass(frozen=True)
class Gathering(Family):
    """A family with one ragged column, whose states are made straight from runs of values."""

    heavy: ClassVar[bool] = True

    @property
    @abstractmethod
    def state(self) -> str:
        """The name of its column: whatever its parameters are is part of it, since a view may have several."""

    @abstractmethod
    def gather(self, values: Array, starts: Array) -> Array:
        """The state of each run of values; runs begin at `starts`, none of them empty."""

    @abstractmethod
    def join(self, states: Array, starts: Array) -> Array:
        """Many states → one a group.

        Raises:
            CodecError: a state is not one of this family's.
        """

    @property
    def columns(self) -> dict[str, str]:
        """One entry of bytes."""
        return {self.state: RAGGED}

    @property
    def empty(self) -> dict[str, Identity]:
        """No bytes."""
        return {self.state: b""}

    def lower(self) -> list[pl.Expr]:
        """Hand a group's values over at once."""
        values = pl.col(self.column).drop_nulls()
        return [values.map_batches(self._lowered, return_dtype=pl.Binary(), returns_scalar=True).alias(self.state)]

    def _lowered(self, values: pl.Series) -> bytes:
        lane = values.to_numpy().astype(NUMPY_KIND[self.kind], copy=False)
        return bytes(self.gather(lane, np.zeros(1, dtype=np.int64))[0]) if len(lane) else b""

    def lift(self, events: Events) -> dict[str, Array]:
        """A state of one value, where there is one."""
        values, valid = events.lanes[self.column]
        states = np.full(len(values), b"", dtype=object)
        rows = np.flatnonzero(valid)
        states[rows] = self.gather(values[rows], np.arange(len(rows)))
        return {self.state: states}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Join."""
        return {self.state: self.join(states[self.state], starts)}


def mixed(values: Array, kind: Kind) -> Array:
    """Return 64-bit hashes (uint64): of numbers a mixing of their bits, no two alike; strings are hashes already.

    The mixing is the end of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    """
    if kind == "str":
        return values.astype(np.uint64, copy=False)
    bits = (values.astype(np.float64) + 0.0 if kind == "f64" else values.astype(np.int64)).view(
        np.uint64
    )  # −0.0 is 0.0
    bits = bits + _MIX[5]
    bits = (bits ^ (bits >> _MIX[0])) * _MIX[1]
    bits = (bits ^ (bits >> _MIX[2])) * _MIX[3]
    return np.asarray(bits ^ (bits >> _MIX[4]))


def sizes(entries: Sequence[bytes] | Array) -> Array:
    """Return how long each entry is."""
    return np.fromiter(map(len, entries), dtype=np.int64, count=len(entries))


def flat(entries: Sequence[bytes], dtype: str) -> Array:
    """Return what all entries hold, one after the other."""
    return np.frombuffer(b"".join(entries), dtype=dtype)


def cut(numbers: Array, counts: Array, head: bytes = b"") -> Array:
    """Return the bytes of the first so many numbers, of the next so many, and so on; of none the identity."""
    data, width = numbers.tobytes(), numbers.dtype.itemsize
    ends = np.cumsum(counts) * width
    entries = np.empty(len(counts), dtype=object)
    entries[:] = [
        head + data[start:end] if end > start else b""
        for start, end in zip((ends - counts * width).tolist(), ends.tolist(), strict=True)
    ]
    return entries


def first_of_runs(owners: Array, values: Array) -> Array:
    """Return which of ordered pairs are not as the one before."""
    first = np.ones(len(owners), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    first[1:] |= owners[1:] != owners[:-1]
    return first


def in_groups(owners: Array, values: Array) -> Array:
    """Return values ascending within each owner's; owners ascend already."""
    if runs := _long_runs(owners):
        values = values.copy()
        for run in runs:
            values[run].sort()
        return values
    return values[np.lexsort((values, owners))]


def order_in_groups(owners: Array, values: Array) -> Array:
    """Return the order that puts values so."""
    if runs := _long_runs(owners):
        return np.concatenate([np.argsort(values[run]) + run.start for run in runs])
    return np.lexsort((values, owners))


def _long_runs(owners: Array) -> list[slice]:
    """Return where each owner's pairs are, where these are so many that sorting them one by one is faster."""
    if not len(owners):
        return []
    edges = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    if len(owners) < _LONG * (len(edges) + 1):
        return []
    return [slice(start, end) for start, end in pairwise([0, *edges.tolist(), len(owners)])]


def counted(owners: Array, groups: int) -> Array:
    """Return how many pairs each owner has."""
    return np.asarray(np.bincount(owners, minlength=groups))


def places(counts: Array) -> Array:
    """Return each pair's place among those of its owner, for pairs by owner."""
    starts = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) - np.repeat(starts, counts))
