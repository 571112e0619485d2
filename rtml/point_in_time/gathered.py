"""The states of ranges for families whose states are made from many values at once: sketches, sets, counters.

As in `blocks`, a range is its two edges and whole nodes of a tree over aligned blocks. Here all of its parts are joined
at once rather than in pairs: it is taking states apart and packing them that costs. Their order is free.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import polars as pl

from rtml.algebra.family import Array, Family, States
from rtml.algebra.ragged import Gathering
from rtml.algebra.states import group_runs
from rtml.point_in_time.column import Column
from rtml.point_in_time.ranges import bites, gather

BLOCK = 256
"""How many values a block holds. A state of so many takes no more than their own bytes, and coarser ones less."""
_BYTES = 1 << 25
"""About how many bytes of parts are joined at a time."""


class OfGathered:
    """The index of one family."""

    def __init__(self, family: Family, column: Column, events: pl.DataFrame) -> None:
        """Index the values of a column."""
        del events
        assert isinstance(family, Gathering)
        self.family, self.column = family, column
        self._levels: list[Array] = []
        self._making = Lock()

    def levels(self) -> list[Array]:
        """Return the tree: the states of all whole blocks, then of all whole pairs of them, and so on."""
        with self._making:
            if not self._levels and len(self.column) >= BLOCK:
                starts = np.arange(0, len(self.column) - BLOCK + 1, BLOCK)
                self._levels = [self._direct(starts, starts + BLOCK)]
                while (pairs := len(self._levels[-1]) // 2) > 0:
                    pieces = self._levels[-1][: 2 * pairs]
                    self._levels.append(self.family.join(pieces, np.arange(0, 2 * pairs, 2)))
        return self._levels

    def over(self, lo: Array, hi: Array) -> States:
        """Return the state of each range of the order of all events; of an empty one the identity."""
        lo, hi = self.column.places(lo).astype(np.int64), self.column.places(hi).astype(np.int64)
        states = np.full(len(lo), b"", dtype=object)
        first, last = -(-lo // BLOCK), hi // BLOCK
        long = first < last
        if np.sum(hi - lo) <= len(self.column):  # as soon gathered as the tree is made
            long[:] = False
        short = np.flatnonzero(~long & (lo < hi))
        states[short] = self._direct(lo[short], hi[short])
        rows = np.flatnonzero(long)
        step = max(_BYTES // (self.family.bulk * 2 * len(self.levels())), 1) if len(rows) else 1
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            states[some] = self._joined(lo[some], hi[some], first[some], last[some])
        return {self.family.state: states}

    def _direct(self, lo: Array, hi: Array) -> Array:
        """Return the states of ranges, none of them empty, straight from their values."""
        states = np.empty(len(lo), dtype=object)
        for some in bites(lo, hi):
            states[some] = self.family.gather(*gather(self.column.values, lo[some], hi[some]))
        return states

    def _joined(self, lo: Array, hi: Array, first: Array, last: Array) -> Array:
        """Join the edges and nodes of ranges that hold whole blocks `[first, last)`."""
        owners, parts = self._nodes(first, last)
        ranges = np.stack([lo, first * BLOCK, last * BLOCK, hi], axis=1).reshape(-1, 2)
        some = np.flatnonzero(ranges[:, 0] < ranges[:, 1])
        owners.append(some // 2)
        parts.append(self._direct(ranges[some, 0], ranges[some, 1]))
        order, starts = group_runs(np.concatenate(owners))
        return self.family.join(np.concatenate(parts)[order], starts)

    def _nodes(self, first: Array, last: Array) -> tuple[list[Array], list[Array]]:
        """Return the nodes that make up blocks `[first, last)`, and which range each is of."""
        owners, parts = [], []
        rows = np.arange(len(first))
        for nodes in self.levels():
            odd = np.flatnonzero(first & 1)
            owners.append(rows[odd])
            parts.append(nodes[first[odd]])
            odd = np.flatnonzero(last & 1)
            owners.append(rows[odd])
            parts.append(nodes[last[odd] - 1])
            first, last = (first + 1) >> 1, last >> 1
            more = np.flatnonzero(first < last)
            if not len(more):
                break
            rows, first, last = rows[more], first[more], last[more]
        return owners, parts
