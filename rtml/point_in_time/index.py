"""The states of ranges of events, family by family: one index a family, over events in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import polars as pl

from rtml.algebra.binned import Bins
from rtml.algebra.counting import Rows, Tally
from rtml.algebra.decayed import DecayedTotal, DecayedWeight, Newest
from rtml.algebra.distinct import Distinct
from rtml.algebra.extremes import Extreme, Greatest, Least
from rtml.algebra.family import EVENT_TIME, ID64, Array, Family, States
from rtml.algebra.frequent import Counters
from rtml.algebra.moments import Spread, Total
from rtml.algebra.quantiles import Ranks
from rtml.algebra.recent import Earliest, Latest
from rtml.algebra.recent_n import NewestDistinctN, NewestN, OldestN
from rtml.algebra.shape import Fourth, Third
from rtml.algebra.states import StateSchema
from rtml.algebra.uniques import Uniques
from rtml.point_in_time.blocks import Blocks, Fold
from rtml.point_in_time.column import Column
from rtml.point_in_time.decayed import DecayedIndex, NewestIndex
from rtml.point_in_time.folds import AnyFold, BinsFold, ExtremeFold, SpreadFold, SumFold
from rtml.point_in_time.gathered import OfGathered
from rtml.point_in_time.lists import DistinctIndex, ListedIndex

_WORD = 32


class Index(Protocol):
    """Answers for one family."""

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range of the order of all events."""


Make = Callable[[Family, Column, pl.DataFrame], Index]


class _OfRows:
    """Rows: the length of the range."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        del column, events
        self.name = next(iter(family.columns))

    def over(self, lo: Array, hi: Array) -> States:
        return {self.name: (hi - lo).astype(np.int64)}


class _OfTally:
    """How many values the range holds."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        del events
        self.column = column
        self.name = next(iter(family.columns))

    def over(self, lo: Array, hi: Array) -> States:
        return {self.name: (self.column.places(hi) - self.column.places(lo)).astype(np.int64)}


class _OfIntegers:
    """Sums of integers: differences of running sums of both words, which are exact."""

    def __init__(self, family: Family, column: Column) -> None:
        self.column = column
        self.high, self.low = family.columns
        self.highs, self.lows = np.zeros((2, len(column) + 1), dtype=np.int64)
        np.cumsum(column.values[:-1] >> _WORD, out=self.highs[1:])
        np.cumsum(column.values[:-1] & ((1 << _WORD) - 1), out=self.lows[1:])

    def over(self, lo: Array, hi: Array) -> States:
        lo, hi = self.column.places(lo), self.column.places(hi)
        lows = self.lows[hi] - self.lows[lo]
        highs = self.highs[hi] - self.highs[lo] + (lows >> _WORD)
        return {self.high: highs, self.low: lows & ((1 << _WORD) - 1)}


class _OfEnd:
    """The first or last value of the range, and its place."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        self.column = column
        self.first = family.code == Earliest.code
        self.empty, self.types = family.empty, family.columns
        self.sources = events[EVENT_TIME].to_numpy(), events[ID64].to_numpy()

    def over(self, lo: Array, hi: Array) -> States:
        lo, hi = self.column.places(lo), self.column.places(hi)
        found = np.flatnonzero(lo < hi)
        ends = lo[found] if self.first else hi[found] - 1
        rows = self.column.rows[ends]
        states = {name: np.full(len(lo), self.empty[name], dtype=kind) for name, kind in self.types.items()}
        parts = (*(source[rows] for source in self.sources), self.column.values[ends])
        for state, part in zip(states.values(), parts, strict=True):
            state[found] = part
        return states


class _OfBlocks:
    """Folds of values in blocks; `names` says which of their columns are the family's, and how it calls them."""

    def __init__(self, fold: Fold, column: Column, names: Mapping[str, str]) -> None:
        self.column = column
        self.blocks = Blocks(fold, len(column))
        self.names = names

    def over(self, lo: Array, hi: Array) -> States:
        states = self.blocks.over(self.column.places(lo), self.column.places(hi))
        return {name: states[part] for name, part in self.names.items()}


class AnyIndex:
    """Answers for any families at once, without knowing them."""

    def __init__(self, families: tuple[Family, ...], events: pl.DataFrame, order: Array) -> None:
        self.blocks = Blocks(AnyFold(StateSchema.of(families), events, order), len(order))

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range."""
        return self.blocks.over(lo, hi)


def _of_total(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    if family.kind == "i64":
        return _OfIntegers(family, column)
    return _OfBlocks(SumFold(column.values), column, {next(iter(family.columns)): "sum"})


def _of_spread(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    return _OfBlocks(SpreadFold(column.values), column, dict(zip(family.columns, ("mean", "m2"), strict=True)))


def _of_third(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    return _OfBlocks(SpreadFold(column.values, 3), column, {next(iter(family.columns)): "m3"})


def _of_fourth(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    return _OfBlocks(SpreadFold(column.values, 4), column, {next(iter(family.columns)): "m4"})


def _of_extreme(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    assert isinstance(family, Extreme)
    name = next(iter(family.columns))
    return _OfBlocks(ExtremeFold(family, column.values), column, {name: name})


def _of_bins(family: Family, column: Column, events: pl.DataFrame) -> Index:
    del events
    assert isinstance(family, Bins)
    return _OfBlocks(BinsFold(family, column.values), column, {name: name for name in family.names})


FAST: Mapping[type[Family], Make] = {
    Rows: _OfRows,
    Tally: _OfTally,
    Total: _of_total,
    Spread: _of_spread,
    Least: _of_extreme,
    Greatest: _of_extreme,
    Earliest: _OfEnd,
    Latest: _OfEnd,
    Bins: _of_bins,
    Distinct: OfGathered,
    Uniques: OfGathered,
    Ranks: OfGathered,
    Counters: OfGathered,
    Third: _of_third,
    Fourth: _of_fourth,
    OldestN: ListedIndex,
    NewestN: ListedIndex,
    NewestDistinctN: DistinctIndex,
    Newest: NewestIndex,
    DecayedTotal: DecayedIndex,
    DecayedWeight: DecayedIndex,
}
"""The families with an index of their own. A subclass is another family, and gets none by inheritance."""


class Indexes:
    """Answers for all families of a schema."""

    def __init__(
        self, schema: StateSchema, events: pl.DataFrame, order: Array, fast: Mapping[type[Family], Make] = FAST
    ) -> None:
        known = [family for family in schema.families if type(family) in fast]
        columns = {
            name: Column.of(events, order, name, kind) if name else Column.none(order)
            for name, kind in {family.column: family.kind for family in known}.items()
        }
        self.parts = [fast[type(family)](family, columns[family.column], events) for family in known]
        if others := tuple(family for family in schema.families if type(family) not in fast):
            self.parts.append(AnyIndex(others, events, order))

    def over(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Return the state of each range of the order of all events; of an empty one the identity."""
        return {name: column for part in self.parts for name, column in part.over(lo, hi).items()}
