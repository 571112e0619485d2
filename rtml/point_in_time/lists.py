"""The first and the last values of ranges of ordered events, as lists."""

from __future__ import annotations

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array, Family, States
from rtml.algebra.recent_n import Listed, cut
from rtml.point_in_time.column import Column
from rtml.point_in_time.ranges import expand


class ListedIndex:
    """The records at one end of the range."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        assert isinstance(family, Listed)
        self.family, self.column = family, column
        times, id64s = (events[name].to_numpy()[column.rows] for name in (EVENT_TIME, ID64))
        self.records = family.records(times, id64s, column.values[:-1])

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range."""
        places, lengths = self.places(self.column.places(lo), self.column.places(hi))
        return {self.family.part: cut(self.records[places], lengths)}

    def places(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        """Return the places of all lists, one list after the other, and their lengths."""
        lengths = np.clip(hi - lo, 0, self.family.n).astype(np.int64)
        if not self.family.newest_first:
            return expand(lo, lo + lengths)[0], lengths
        # Counted from the far end, the last places are the first ones.
        length = len(self.records)
        backwards, _ = expand(length - hi, length - hi + lengths)
        return length - 1 - backwards, lengths


class DistinctIndex(ListedIndex):
    """The newest records of different values: those in the range whose value does not come again before its end.

    Where each value comes next is known; a tree of maxima over it finds from the end of a range, one after the other,
    the last place whose next one lies beyond.
    """

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        super().__init__(family, column, events)
        values = self.records["value"]
        order = np.argsort(values, kind="stable")
        comes_next = np.full(len(values), len(values), dtype=np.int64)
        same = values[order[1:]] == values[order[:-1]]
        comes_next[order[:-1][same]] = order[1:][same]
        self.levels = [comes_next]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            padded = np.append(below, -1) if len(below) % 2 else below
            self.levels.append(padded.reshape(-1, 2).max(axis=1))

    def places(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        """Return the places of all lists, one list after the other, and their lengths."""
        rows, until = np.flatnonzero(lo < hi), hi.astype(np.int64)
        owners, places = [rows[:0]], [until[:0]]
        for _ in range(self.family.n):
            found = self._last_before(until[rows], hi[rows].astype(np.int64), lo[rows].astype(np.int64))
            rows, found = rows[found >= 0], found[found >= 0]
            if not len(rows):
                break
            owners.append(rows)
            places.append(found)
            until[rows] = found
        owner, place = np.concatenate(owners), np.concatenate(places)
        return place[np.argsort(owner, kind="stable")], np.bincount(owner, minlength=len(lo))

    def _last_before(self, until: Array, beyond: Array, lo: Array) -> Array:
        """Return the last place in `[lo, until)` whose value comes next at or after `beyond`; −1 without one."""
        found = np.full(len(until), -1, dtype=np.int64)
        rows, edge = np.arange(len(until)), until.copy()
        for number, level in enumerate(self.levels):
            rows = rows[(edge[rows] << number) > lo[rows]]
            odd = rows[edge[rows] & 1 == 1]
            edge[odd] -= 1
            hit = level[edge[odd]] >= beyond[odd]
            found[odd[hit]] = self._descend(number, edge[odd[hit]], beyond[odd[hit]])
            rows = rows[found[rows] < 0]
            if not len(rows):
                break
            edge[rows] >>= 1
        return np.where(found >= lo, found, -1)

    def _descend(self, number: int, node: Array, beyond: Array) -> Array:
        """Return the last place below a node whose value comes next at or after `beyond`; there is one."""
        for level in self.levels[number - 1 :: -1] if number else ():
            right = np.minimum(2 * node + 1, len(level) - 1)
            node = np.where(level[right] >= beyond, right, 2 * node)
        return node
