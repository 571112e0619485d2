"""Late events that many rows do not know yet: they are held apart, and added to the rows that know them.

Taken out of a row's range instead, each of them would cost every row that it is hidden from. They stand in a second
order, by when they became known. A row knows the first so many of that order: whole nodes of a binary tree over it, and
some single events. Within a node events are in the order of a timeline, where a window is a range again. So a row costs
no more than the logarithm of how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, Array, Family
from rtml.algebra.states import StateSchema
from rtml.point_in_time.blocks import put, take
from rtml.point_in_time.folds import merge_pairs
from rtml.point_in_time.index import Indexes, Make
from rtml.point_in_time.ranges import bites, expand
from rtml.point_in_time.timeline import KNOWN_AT, LATE, SEEN_LATE, Timeline
from rtml.tiles import Window

FEW_ROWS = 64
"""An event that is hidden from no more rows is as soon taken out of their ranges."""
LEAF = 16
"""How many events the least nodes hold; a power of two."""


class Level(NamedTuple):
    """The nodes of one size, side by side."""

    places: Array
    """Places of events, node by node, in a node in order."""
    packed: Array
    """Node and place as one number, ascending."""


@dataclass(frozen=True)
class Apart:
    """Late events that stand apart, and how many of them, by when they became known, each spine row knows."""

    timeline: Timeline
    """These events alone."""
    position: Array
    """Each event's position in the order of when they became known."""
    counts: Array
    """Of the spine rows, in their order, how many positions each knows."""

    @classmethod
    def of(cls, timeline: Timeline, events: pl.DataFrame, spine: pl.DataFrame) -> Apart:
        """Put events in the order in which they became known."""
        known = events[KNOWN_AT].to_numpy()[timeline.events]
        order = np.argsort(known, kind="stable")
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        seen = spine[SEEN_LATE].to_numpy()[timeline.rows]
        return cls(timeline, position, np.searchsorted(known[order], seen, side="right"))

    @cached_property
    def by_position(self) -> Array:
        """The places of events in the order in which they became known."""
        return np.argsort(self.position)

    @cached_property
    def levels(self) -> list[Level]:
        """The tree, from its least nodes up; at the end of a level may be a node that is not whole."""
        found = []
        size, length = LEAF, len(self.position)
        while size <= length:
            packed = np.sort(self.position // size * length + np.arange(length))
            found.append(Level(packed % length, packed))
            size *= 2
        return found


def split_off(timeline: Timeline, events: pl.DataFrame, spine: pl.DataFrame) -> tuple[Timeline, Timeline]:
    """Return the timeline without the late events that many rows do not know yet, and that of these alone."""
    late = events[LATE].to_numpy() & (events[KNOWN_AT].to_numpy() > events[EVENT_TIME].to_numpy())
    places = np.flatnonzero(late[timeline.events])
    apart = np.zeros(len(timeline.events), dtype=bool)
    if len(places):
        known = events[KNOWN_AT].to_numpy()[timeline.events[places]]
        first = np.searchsorted(timeline.latest, places, side="right")
        last = np.searchsorted(timeline.longest, places, side="right")
        # What a row has seen grows with its instant, nearly always; where not, this costs time and changes no value.
        hidden = _bisect(spine[SEEN_LATE].to_numpy()[timeline.rows], first, last, known) - first
        apart[places[hidden > FEW_ROWS]] = True
    return timeline.only(~apart), timeline.only(apart)


def _bisect(ascending: Array, first: Array, last: Array, wanted: Array) -> Array:
    """Return for each wanted number its place in its own range `[first, last)` of ascending ones."""
    first, last = first.copy(), np.maximum(first, last)
    while len(open_ := np.flatnonzero(first < last)):
        middle = (first[open_] + last[open_]) // 2
        less = ascending[middle] < wanted[open_]
        first[open_[less]] = middle[less] + 1
        last[open_[~less]] = middle[~less]
    return first


class ApartIndexes:
    """The states of the events that stand apart, for the families of a schema."""

    def __init__(
        self, apart: Apart, schema: StateSchema, events: pl.DataFrame, fast: Mapping[type[Family], Make]
    ) -> None:
        self.apart, self.schema = apart, schema
        self._events, self._fast = events, fast
        self._indexes: dict[int, Indexes] = {}
        self._making = Lock()

    def add(self, states: dict[str, Array], window: Window, part: slice) -> None:
        """Add to the states of some spine rows what they know of these events."""
        lo, hi = self.apart.timeline.lo[window][part], self.apart.timeline.hi[window][part]
        counts = self.apart.counts[part]
        some = np.flatnonzero((lo < hi) & (counts > 0))
        lo, hi, counts = lo[some], hi[some], counts[some]
        short = hi - lo <= 2 * LEAF
        for rows, found in (*self._short(lo, hi, counts, short), *self._long(lo, hi, counts, ~short)):
            owners = some[rows]
            put(states, owners, merge_pairs(self.schema, take(states, owners), found))

    def _short(self, lo: Array, hi: Array, counts: Array, short: Array) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Look at all events of short ranges."""
        rows = np.flatnonzero(short)
        for some in bites(lo[rows], hi[rows]):
            places, _ = expand(lo[rows[some]], hi[rows[some]])
            owners = np.repeat(rows[some], hi[rows[some]] - lo[rows[some]])
            yield from self._singles(owners, places, self.apart.position[places] < counts[owners])

    def _long(self, lo: Array, hi: Array, counts: Array, long: Array) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Look at the nodes that each row knows, and at the events beyond them that are less than a node."""
        rows = np.flatnonzero(long)
        if not len(rows):
            return
        whole = counts // LEAF * LEAF
        for some in bites(whole[rows], counts[rows]):
            chosen = rows[some]
            positions, _ = expand(whole[chosen], counts[chosen])
            places, owners = self.apart.by_position[positions], np.repeat(chosen, counts[chosen] - whole[chosen])
            yield from self._singles(owners, places, (places >= lo[owners]) & (places < hi[owners]))
        length = len(self.apart.position)
        for level, (_, packed) in enumerate(self.apart.levels):
            nodes = counts[rows] // (LEAF << level)
            having = rows[nodes & 1 == 1]
            node = (counts[having] // (LEAF << level) - 1) * length
            left, right = (np.searchsorted(packed, node + edge[having]) for edge in (lo, hi))
            inside = np.flatnonzero(left < right)
            if len(inside):
                yield having[inside], self._level(level).over(left[inside], right[inside])

    def _singles(self, owners: Array, places: Array, counted: Array) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Combine the events that count, of each row; the pairs are in order."""
        owners, places = owners[counted], places[counted]
        if len(owners):
            rows, starts = np.unique(owners, return_index=True)
            yield rows, self.schema.combine(self._level(-1).over(places, places + 1), starts)

    def _level(self, level: int) -> Indexes:
        """Return the indexes over a level, made when first asked for; over the timeline itself is −1."""
        with self._making:
            if level not in self._indexes:
                order = self.apart.timeline.events
                order = order if level < 0 else order[self.apart.levels[level].places]
                self._indexes[level] = Indexes(self.schema, self._events, order, self._fast)
            return self._indexes[level]
