"""Folds of any range of ordered events in `O(block + log n)`, for any monoid and without subtraction.

Nothing is subtracted, so a value spoils only windows that hold it, no matter what lies elsewhere in a history. Events
are folded in aligned blocks, blocks in pairs, pairs in pairs of pairs. A range is its left edge, whole nodes of that
tree, and its right edge, combined in this order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from rtml.algebra.family import Array, States


class Fold(ABC):
    """How the states of one family come from ordered events."""

    block: int
    """How many events a block holds."""

    @abstractmethod
    def empties(self, count: int) -> dict[str, Array]:
        """Return identities."""

    @abstractmethod
    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Return the states of ranges, none of them empty, event by event."""

    @abstractmethod
    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Combine states row by row; identities are welcome."""


class Blocks:
    """The tree over a fold's events, made when first a range holds a whole block."""

    def __init__(self, fold: Fold, length: int) -> None:
        self.fold = fold
        self.length = length
        self._levels: list[dict[str, Array]] = []

    def levels(self) -> list[dict[str, Array]]:
        """Return the tree: the states of all whole blocks, then of all whole pairs of them, and so on."""
        size = self.fold.block
        if not self._levels and self.length >= size:
            starts = np.arange(0, self.length - size + 1, size)
            self._levels.append(self.fold.direct(starts, starts + size))
            while (pairs := _length(self._levels[-1]) // 2) > 0:
                nodes = self._levels[-1]
                even = {name: column[0 : 2 * pairs : 2] for name, column in nodes.items()}
                odd = {name: column[1 : 2 * pairs : 2] for name, column in nodes.items()}
                self._levels.append(self.fold.merge(even, odd))
        return self._levels

    def over(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Return the state of each range; of an empty one the identity."""
        size = self.fold.block
        first, last = -(-lo // size), hi // size
        rows = np.flatnonzero(first < last)
        if not len(rows) or np.sum(hi - lo, dtype=np.int64) <= self.length:  # as soon folded as the tree is made
            return self._edges(lo, hi)
        first, last = first[rows], last[rows]
        left_end = hi.copy()
        left_end[rows] = first * size
        states = self._edges(lo, left_end)
        left = take(states, rows)
        right = self._edges(last * size, hi[rows])
        self._climb(left, right, first, last)
        put(states, rows, self.fold.merge(left, right))
        return states

    def _edges(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Fold ranges that together hold few enough events."""
        rows = np.flatnonzero(lo < hi)
        if len(rows) == len(lo) > 0:
            return self.fold.direct(lo, hi)
        states = self.fold.empties(len(lo))
        if len(rows):
            put(states, rows, self.fold.direct(lo[rows], hi[rows]))
        return states

    def _climb(self, left: dict[str, Array], right: dict[str, Array], first: Array, last: Array) -> None:
        """Add the nodes of blocks `[first, last)` to the right end of `left` and the left end of `right`."""
        rows = np.arange(len(first))
        for nodes in self.levels():
            odd = np.flatnonzero(first & 1)
            chosen = rows[odd]
            put(left, chosen, self.fold.merge(take(left, chosen), take(nodes, first[odd])))
            odd = np.flatnonzero(last & 1)
            chosen = rows[odd]
            put(right, chosen, self.fold.merge(take(nodes, last[odd] - 1), take(right, chosen)))
            first, last = (first + 1) >> 1, last >> 1
            more = np.flatnonzero(first < last)
            if not len(more):
                return
            rows, first, last = rows[more], first[more], last[more]


def take(states: States, rows: Array) -> dict[str, Array]:
    """Return some rows of states."""
    return {name: column[rows] for name, column in states.items()}


def put(states: dict[str, Array], rows: Array, values: States) -> None:
    """Write some rows of states."""
    for name, column in values.items():
        states[name][rows] = column


def _length(states: States) -> int:
    return len(next(iter(states.values())))
