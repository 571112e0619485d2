"""Decayed sums over ranges of ordered events."""

from __future__ import annotations

import numpy as np
import polars as pl

from rtml.algebra.decayed import Decayed, DecayedWeight, Newest, newest
from rtml.algebra.family import EVENT_TIME, Array, Family, States
from rtml.instants import BEGINNING
from rtml.point_in_time.blocks import Blocks, Fold
from rtml.point_in_time.column import Column
from rtml.point_in_time.ranges import bites, gather

_BLOCK = 32
_AT, _SUM = "at", "sum"


class NewestIndex:
    """The time of the last value of the range: of the last event, where there is no column."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        assert isinstance(family, Newest)
        self.name = newest(family.column)
        self.column = column
        self.times = events[EVENT_TIME].to_numpy()

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range."""
        lo, hi = self.column.places(lo), self.column.places(hi)
        found = np.full(len(lo), BEGINNING, dtype=np.int64)
        some = np.flatnonzero(lo < hi)
        found[some] = self.times[self.column.rows[hi[some] - 1]]
        return {self.name: found}


class DecayedIndex:
    """The decayed sum of the range, at its last value."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        assert isinstance(family, Decayed)
        self.name = family.part
        self.column = column
        values = np.ones(len(column)) if isinstance(family, DecayedWeight) else column.values[:-1]
        times = events[EVENT_TIME].to_numpy()[column.rows]
        self.blocks = Blocks(DecayFold(values.astype(np.float64), times, family.half_life), len(column))

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range."""
        return {self.name: self.blocks.over(self.column.places(lo), self.column.places(hi))[_SUM]}


class DecayFold(Fold):
    """Sums that are weighed at the last of their instants."""

    block = _BLOCK

    def __init__(self, values: Array, times: Array, half_life: int) -> None:
        self.values, self.times = values, times
        self.half_life = half_life

    def empties(self, count: int) -> dict[str, Array]:
        """Nothing, before all others."""
        return {_AT: np.full(count, BEGINNING, dtype=np.int64), _SUM: np.zeros(count)}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Weigh each value, and add up."""
        at, sums = self.times[hi - 1], np.empty(len(lo))
        for some in bites(lo, hi):
            times, starts = gather(self.times, lo[some], hi[some])
            values, _ = gather(self.values, lo[some], hi[some])
            ages = np.repeat(at[some], hi[some] - lo[some]) - times
            sums[some] = np.add.reduceat(values * np.exp2(-ages / self.half_life), starts)
        return {_AT: at, _SUM: sums}

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Move the earlier sum on, where both are there."""
        both = (earlier[_AT] != BEGINNING) & (later[_AT] != BEGINNING)
        ages = np.where(both, later[_AT] - np.where(both, earlier[_AT], later[_AT]), 0)
        merged = earlier[_SUM] * np.exp2(-ages / self.half_life) + later[_SUM]
        return {_AT: np.maximum(earlier[_AT], later[_AT]), _SUM: merged}
