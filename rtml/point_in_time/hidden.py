"""Events that lie in a window but were not yet known, and what is left of the window without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra.family import Array, States
from rtml.instants import BEGINNING
from rtml.point_in_time.blocks import Blocks, Fold
from rtml.point_in_time.ranges import bites, expand, reduce
from rtml.point_in_time.timeline import KNOWN_AT, LATE, SEEN, SEEN_LATE, Timeline

_BLOCK = 16
_ROWS = 1 << 18
"""How many spine rows are looked through at a time."""
_KNOWN = "known"


@dataclass(frozen=True)
class Hidden:
    """Pairs of a spine row's place and the place of an event that it must not count, in order."""

    rows: Array
    places: Array

    def within(self, start: int, end: int) -> Hidden:
        """Return the pairs of the spine rows in `[start, end)`, counted from `start`."""
        a, b = np.searchsorted(self.rows, [start, end])
        return Hidden(self.rows[a:b] - start, self.places[a:b])

    def split(self, lo: Array, hi: Array) -> tuple[Array, Array, Array, Array]:
        """Take hidden events out of ranges.

        Returns:
            The right edges of what is left of each range before the first hidden event; then what is left after that:
            the rows, left and right edges of ranges, none of them empty.
        """
        inside = np.flatnonzero((self.places >= lo[self.rows]) & (self.places < hi[self.rows]))
        if not len(inside):
            nothing = np.empty(0, dtype=np.int64)
            return hi, nothing, nothing, nothing
        rows, places = self.rows[inside], self.places[inside]
        leads = np.ones(len(rows), dtype=bool)
        np.not_equal(rows[1:], rows[:-1], out=leads[1:])
        before = hi.copy()
        before[rows[leads]] = places[leads]
        ends = hi[rows]
        ends[:-1] = np.where(leads[1:], ends[:-1], places[1:])
        some = np.flatnonzero(places + 1 < ends)
        return before, rows[some], places[some] + 1, ends[some]


def find_hidden(timeline: Timeline, events: pl.DataFrame, spine: pl.DataFrame) -> Hidden:
    """Return what no window of a spine row may count: `known_at > seen`, or `> seen_late` for a late event."""
    known = events[KNOWN_AT].to_numpy()[timeline.events]
    seen = spine[SEEN].to_numpy()[timeline.rows]
    if spine[SEEN].equals(spine[SEEN_LATE]):
        return _merged([_unknown(known, seen, timeline)])
    late = events[LATE].to_numpy()[timeline.events]
    on_time = _unknown(np.where(late, BEGINNING, known), seen, timeline)
    seen = spine[SEEN_LATE].to_numpy()[timeline.rows]
    return _merged([on_time, _unknown(np.where(late, known, BEGINNING), seen, timeline)])


def _merged(parts: list[Hidden]) -> Hidden:
    if len(parts) == 1:
        return parts[0]
    rows, places = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "places"))
    order = np.lexsort((places, rows))
    return Hidden(rows[order], places[order])


def _unknown(known: Array, seen: Array, timeline: Timeline) -> Hidden:
    """Return the pairs of a row and a place between its windows' outmost edges with `known > seen`."""
    pairs = [(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))]
    if len(known) and len(seen) and known.max() > seen.min():
        fold = _LastKnown(known)
        blocks, lo, hi = Blocks(fold, len(known)), timeline.longest, timeline.latest
        for start in range(0, len(seen), _ROWS):
            part = slice(start, start + _ROWS)
            suspects = np.flatnonzero(blocks.over(lo[part], hi[part])[_KNOWN] > seen[part]) + start
            found = _descend(blocks, known, seen[suspects], lo[suspects], hi[suspects])
            pairs += [(suspects[rows].astype(np.int32), places.astype(lo.dtype)) for rows, places in found]
    rows, places = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.lexsort((places, rows))
    return Hidden(rows[order], places[order])


class _LastKnown(Fold):
    """When the last of some events became known."""

    block = _BLOCK

    def __init__(self, known: Array) -> None:
        self.padded = np.append(known, BEGINNING)

    def empties(self, count: int) -> dict[str, Array]:
        return {_KNOWN: np.full(count, BEGINNING)}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        return {_KNOWN: reduce(np.maximum, self.padded, lo, hi)}

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        return {_KNOWN: np.maximum(earlier[_KNOWN], later[_KNOWN])}


def _descend(blocks: Blocks, known: Array, seen: Array, lo: Array, hi: Array) -> list[tuple[Array, Array]]:
    """Find the places in each range with `known > seen`, by way of the tree's nodes that hold one."""
    levels = [nodes[_KNOWN] for nodes in blocks.levels()]
    top = max(len(levels) - 1, 0)
    rows, nodes = _roots(lo, hi, _BLOCK << top)
    for level in range(top, -1, -1):
        size = _BLOCK << level
        possible = (nodes + 1) * size > lo[rows]
        possible &= nodes * size < hi[rows]
        if level < len(levels):  # beyond the last whole node lies one that is not kept
            kept = levels[level]
            whole = nodes < len(kept)
            possible &= ~whole | (kept[np.where(whole, nodes, 0)] > seen[rows])
        rows, nodes = rows[possible], nodes[possible]
        if level:
            rows, nodes = np.repeat(rows, 2), np.repeat(2 * nodes, 2)
            nodes[1::2] += 1
    found = []
    start, end = np.maximum(nodes * _BLOCK, lo[rows]), np.minimum((nodes + 1) * _BLOCK, hi[rows])
    for some in bites(start, end):
        places, _ = expand(start[some], end[some])
        owners = np.repeat(rows[some], end[some] - start[some])
        hidden = known[places] > seen[owners]
        found.append((owners[hidden], places[hidden]))
    return found


def _roots(lo: Array, hi: Array, size: int) -> tuple[Array, Array]:
    """Return the nodes of a size that ranges, none of them empty, reach into: rows and nodes."""
    first, last = lo.astype(np.int64) // size, (hi.astype(np.int64) - 1) // size
    nodes, starts = expand(first, last + 1)
    return np.repeat(np.arange(len(lo)), np.diff(np.append(starts, len(nodes)))), nodes
