"""What a view's windows are worth at an instant: (plan, tiles, raw edges, at) → values. Pure.

`Turn` knows which fields answer; it changes only when a window's edge enters another finest tile. `answer` merges what
was read, for many entities at once: a tile that a window holds whole gives its state, every other one its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rtml.algebra.family import Array, Span, States, Values
from rtml.algebra.states import concatenate
from rtml.instants import BEGINNING, Duration, Instant
from rtml.online.base import Bases, Kept
from rtml.online.codec import PREFIX, RAW, Header, Records, raw_count
from rtml.online.codec import field as field_name
from rtml.online.commands import packed_fields
from rtml.online.tail import joined, tail_rows
from rtml.plan import Plan
from rtml.tiles import Cover, Tile, Window, head_cover, tail_cover


@dataclass(frozen=True)
class Turn:
    """The cover of all of a plan's windows at an instant, and at every instant up to the next turn."""

    plan: Plan
    at: Instant
    based_to: Instant = BEGINNING
    """Of a plan with a lifetime window: up to where bases stand for all tiles; the beginning of time while none do."""

    @staticmethod
    def key(plan: Plan, at: Instant) -> tuple[int, ...]:
        """Return what is the same for all instants that share a turn."""
        finest = plan.tiles.finest
        return (at // finest, *((at - window.length) // finest for window in plan.windows if not window.lifetime))

    @property
    def whole(self) -> bool:
        """Whether all of an entity's hash is read, because a window has no left edge and there are no bases yet."""
        return self.plan.lifetime and self.based_to == BEGINNING

    @cached_property
    def tail(self) -> Cover:
        """What every request reads. Edges are moved inside their tiles, so that one turn serves all of its instants."""
        ladder, finest = self.plan.tiles, self.plan.tiles.finest
        spans, ends = [], []
        for window in self.plan.windows:
            a, b = window.edges(self.at, finest)
            if window.lifetime:
                a = max(self.based_to, 0) if not self.whole else b
            elif window.exact:
                a = a // finest * finest + 1
            if window.offset:
                ends.append(b)
            spans.append((a, b if window.offset else b // finest * finest + 1))
        cover = tail_cover(ladder, spans)
        # What lies behind an offset window's end is there for nearly all entities: it is not worth a second look.
        tiles = {*cover.tiles, *(tile for end in ends for tile in head_cover(ladder, end).tiles)}
        return Cover(tuple(sorted(tiles)), cover.raw)

    @cached_property
    def head(self) -> Cover:
        """What a request reads besides when an entity has events at or after the instant."""
        finest = self.plan.tiles.finest
        return head_cover(self.plan.tiles, self.at // finest * finest + 1)

    @cached_property
    def narrow(self) -> Reading:
        """The tail alone."""
        return Reading(self.plan, self.tail.tiles, self.tail.raw)

    @cached_property
    def wide(self) -> Reading:
        """The tail and the head."""
        tiles = dict.fromkeys((*self.tail.tiles, *self.head.tiles))
        return Reading(self.plan, tuple(tiles), tuple(dict.fromkeys((*self.tail.raw, *self.head.raw))))


@dataclass(frozen=True, eq=False)
class Reading:
    """What is read of an entity in one go: tiles, and the raw records of finest tiles that an edge cuts."""

    plan: Plan
    tiles: tuple[Tile, ...]
    raw: tuple[int, ...]

    @cached_property
    def fields(self) -> list[bytes]:
        """The tiles' names."""
        return [field_name(tile) for tile in self.tiles]

    @cached_property
    def packed(self) -> bytes:
        """The tiles' names as Redis' protocol has them: packed once, and not with every request."""
        return packed_fields(self.fields)

    @cached_property
    def places(self) -> dict[Tile, int]:
        """Where each tile stands."""
        return {tile: place for place, tile in enumerate(self.tiles)}

    @cached_property
    def bounds(self) -> Array:
        """By tile: its start and end, and those of the next coarser one, which counts instead where a window can."""
        return np.array([_bounds(self.plan, tile) for tile in self.tiles], dtype=np.int64).reshape(-1, 4)

    @cached_property
    def covering(self) -> Array:
        """By tile, and once more: its start, and the bounds of the tile that counts instead of its records.

        That is the next coarser one where it holds records; and it is the tile itself where an edge's were read.
        """
        return np.concatenate([self.bounds[:, [0, 2, 3]], self.bounds[:, [0, 0, 1]]])

    @cached_property
    def edges(self) -> list[tuple[int, int]]:
        """The raw edges, each with the place of its finest tile."""
        return [(index, self.places[Tile(0, index)]) for index in self.raw if Tile(0, index) in self.places]

    @cached_property
    def of_finest(self) -> list[bool]:
        """Which tiles are of the finest level."""
        return [tile.level == 0 for tile in self.tiles]


@dataclass
class Fetched:
    """What was read of one entity: its header, tiles (`None` where there is none), late records and raw edges."""

    header: Header = field(default_factory=Header)
    late: bytes | None = None
    reading: Reading | None = None
    values: Sequence[bytes | None] = field(default_factory=list)
    """The tiles of the reading, in its order."""
    raw: dict[int, bytes] = field(default_factory=dict)
    base: bytes | None = None
    late_at: bytes | None = None
    tail: bytes | None = None

    def records_of(self, plan: Plan, index: int, value: bytes) -> int:
        """Return how many raw records a hot finest tile has that holds this state."""
        return raw_count(value) + joined(plan, self.tail, index)

    def tile(self, tile: Tile) -> bytes | None:
        """Return a tile's value, if it was read and there is one."""
        place = None if self.reading is None else self.reading.places.get(tile)
        return None if place is None else self.values[place]

    @property
    def known(self) -> bool:
        """Whether anything was ever written of this entity."""
        return (
            self.header.last_ingested != BEGINNING
            or self.late is not None
            or self.base is not None
            or any(value is not None for value in self.values)
        )

    def needs_head(self, plan: Plan, at: Instant) -> bool:
        """Whether the tile that `at` cuts holds later events, below what was read."""
        if self.header.max_event_time < at:
            return False
        value = self.tile(plan.tiles.tile(plan.tiles.top, at))
        return value is not None and value[0] != RAW

    def damaged(self, plan: Plan) -> list[int]:
        """Return the raw edges that are shorter than their tiles' counts."""
        if self.reading is None:
            return []
        short = []
        for index, place in self.reading.edges:
            value = self.values[place]
            if value is not None and value[0] != RAW:
                width = Records.of(plan).narrow.itemsize
                if len(self.raw.get(index, b"")) < self.records_of(plan, index, value) * width:
                    short.append(index)
        return short


@dataclass(frozen=True)
class Answer:
    """Values of every feature of a plan, one row an entity."""

    features: dict[str, Values]


def answer(plan: Plan, at: Instant, entities: Sequence[Fetched], based_to: Instant = BEGINNING) -> Answer:
    """Return the values of all features for entities as they were read, at an instant; `based_to` is their turn's.

    Where the plan has salts, what is given are partial states: each entity's follow one another, and are merged.

    Raises:
        OverflowedError: an integer sum needs more than 64 bits.
    """
    windows, count = plan.windows, len(entities) // plan.salts
    records = _Gathered.of(plan, entities)
    gathered, bases = records.states, None
    if plan.lifetime:
        bases = Bases.of(plan, [Kept(one.base, one.late, one.late_at) for one in entities], based_to)
        gathered = concatenate([gathered, bases.states])
    present = records.up_to(at)
    chosen, cells = [], []
    for number, window in enumerate(windows):
        rows, owners = _rows(window, records, present, bases, at)
        chosen.append(rows)
        cells.append((owners if plan.salts == 1 else owners // plan.salts) + number * count)
    states = _combine(plan, gathered, np.concatenate(chosen), np.concatenate(cells), count * len(windows))
    spans = [Span(*window.edges(at, plan.tiles.finest)) for window in windows]
    parts = [
        {name: column[start : start + count] for name, column in states.items()}
        for start in range(0, count * len(windows), count or 1)
    ]
    return Answer({feature.name: feature.finalize(parts[number], spans[number]) for feature, number in plan.numbered})


def _rows(window: Window, records: _Gathered, present: _Right, bases: Bases | None, at: Instant) -> tuple[Array, Array]:
    """Return the rows that make up a window, and their owners; those of bases follow all others."""
    a, b = window.edges(at, records.finest)
    right = records.up_to(b, settled=True) if window.offset else present
    if bases is None or not window.lifetime:
        return records.within(a, right)
    rows, owners = records.within(bases.up_to[records.owner], right)
    more = len(records.owner) + np.arange(len(bases.owner))
    return np.concatenate([rows, more]), np.concatenate([owners, bases.owner])


def _combine(plan: Plan, states: States, rows: Array, cells: Array, count: int) -> dict[str, Array]:
    """Return one state for each of `count` cells, from rows of states and the cell that each falls in."""
    if not len(rows):
        return plan.states.empties(count)
    if np.any(cells[1:] < cells[:-1]):  # else they are in order already
        order = np.argsort(cells, kind="stable")
        rows, cells = rows[order], cells[order]
    first = np.empty(len(cells), dtype=bool)
    first[0] = True
    np.not_equal(cells[1:], cells[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    combined = plan.states.combine({name: column[rows] for name, column in states.items()}, starts)
    if len(starts) == count:
        return combined
    merged, present = plan.states.empties(count), cells[starts]
    for name, column in combined.items():
        merged[name][present] = column
    return merged


class _Right(NamedTuple):
    """What a window's right edge makes of every row: whether it may count, and whether what covers it does."""

    counts: Array
    covered: Array


@dataclass(frozen=True)
class _Gathered:
    """All that was read, as rows of states: tiles first, then single events (`start` is their time).

    `parent_start` and `parent_end` bound the state that counts instead where a window holds it whole: the next coarser
    tile, or for the raw records of a hot finest tile that tile.
    """

    states: States
    owner: Array
    start: Array
    end: Array
    parent_start: Array
    parent_end: Array
    latest: Array
    """Each row's entity's `max_event_time`."""
    tiles: int
    finest: Duration

    @classmethod
    def of(cls, plan: Plan, entities: Sequence[Fetched]) -> _Gathered:
        """Take apart what was read."""
        packed: list[bytes] = []
        owners: list[int] = []
        places: list[int] = []
        loose = _Loose(plan)
        for owner, entity in enumerate(entities):
            if entity.reading is not None:
                begin, first = loose.begin(entity.reading)
                for place in _take_apart(plan, owner, entity, packed, loose, first):
                    owners.append(owner)
                    places.append(begin + place)
            if entity.late is not None:
                loose.add(owner, entity.late, 0, narrow=False)
        states, times = plan.states.unpack_bytes(packed), _NONE
        bounds, owned, parents = loose.bounds()[places], np.array(owners, dtype=np.int64), _NO_PARENTS
        if tails := {owner: entity.tail for owner, entity in enumerate(entities) if entity.tail}:
            rows = tail_rows(plan, list(tails), list(tails.values()))
            states = concatenate([states, rows.states])
            bounds, owned = np.concatenate([bounds, rows.bounds]), np.concatenate([owned, rows.owner])
        if loose.any:
            owner_of, times, parents, lifted = loose.lifted()
            states = concatenate([states, lifted]) if len(owned) else lifted
            owned = np.concatenate([owned, owner_of])
        latest = np.array([entity.header.max_event_time for entity in entities], dtype=np.int64)
        return cls(
            states=states,
            owner=owned,
            start=np.concatenate([bounds[:, 0], times]),
            end=np.concatenate([bounds[:, 1], times]),
            parent_start=np.concatenate([bounds[:, 2], parents[:, 0]]),
            parent_end=np.concatenate([bounds[:, 3], parents[:, 1]]),
            latest=latest[owned],
            tiles=len(bounds),
            finest=plan.tiles.finest,
        )

    def up_to(self, b: Instant, *, settled: bool = False) -> _Right:
        """Return what the right edge makes of the rows.

        A tile counts when the window holds it whole, an event when it is inside. A tile that `b` cuts is held whole
        when the entity has nothing as late as `b`; never when `b` is `settled`, that is in the past: then all below the
        tile was read, and published tiles may lie behind `b`.
        """
        whole, parent_whole = self.end <= b, self.parent_end <= b
        if not settled:
            nothing_after = self.latest < b
            whole |= nothing_after
            parent_whole |= nothing_after
        whole[self.tiles :] = True
        return _Right((self.start < b) & whole, parent_whole & (self.parent_start < b))

    def within(self, a: Instant | Array, right: _Right) -> tuple[Array, Array]:
        """Return the rows that make up `[a, b)`, and their owners; `a` may be another one for each row.

        Neither a tile nor an event counts where what covers it counts instead.
        """
        inside = (self.start >= a) & right.counts
        rows = np.flatnonzero(inside & ~((self.parent_start >= a) & right.covered))
        return rows, self.owner[rows]


def _take_apart(
    plan: Plan, owner: int, entity: Fetched, packed: list[bytes], loose: _Loose, first: int
) -> Iterator[int]:
    """Add an entity's states to `packed` and its records to `loose`; yield the places of the states."""
    reading = entity.reading
    if reading is None:
        return
    finest, raw, count = reading.of_finest, entity.raw, len(reading.tiles)
    for place, value in enumerate(entity.values):
        if value is None:
            continue
        if value[0] == RAW:
            loose.add(owner, value, first + place, narrow=finest[place])
            continue
        packed.append(value[PREFIX:])
        if finest[place] and (index := reading.tiles[place].index) in raw:
            loose.add_edge(owner, raw[index], entity.records_of(plan, index, value), first + count + place)
        yield place


_OUTSIDE = BEGINNING
"""The start of a coarser tile that no window holds: there is none."""
_NONE = np.zeros(0, dtype=np.int64)
_NO_PARENTS = np.zeros((0, 2), dtype=np.int64)
_UNCOVERED = np.array([[0, _OUTSIDE, _OUTSIDE]], dtype=np.int64)
"""What covers records with absolute times, which belong to no tile."""


def _bounds(plan: Plan, tile: Tile) -> tuple[int, int, int, int]:
    ladder = plan.tiles
    start, end = ladder.start(tile), ladder.end(tile)
    if tile.level == ladder.top:
        return start, end, _OUTSIDE, _OUTSIDE
    parent = ladder.tile(tile.level + 1, start)
    return start, end, ladder.start(parent), ladder.end(parent)


class _Parts:
    """Records of one width: their bytes, and of each part its owner, its length and what covers it."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype, self.width = dtype, dtype.itemsize
        self.data: list[bytes] = []
        self.owners: list[int] = []
        self.counts: list[int] = []
        self.places: list[int] = []


class _Loose:
    """Single events of many entities and tiles, to be lifted in one go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._records = Records.of(plan)
        self._narrow, self._wide = _Parts(self._records.narrow), _Parts(self._records.wide)
        self._readings: dict[int, tuple[Reading, int, int]] = {}
        self._begins, self._firsts = 0, 1

    def begin(self, reading: Reading) -> tuple[int, int]:
        """Return where a reading's tiles begin among the bounds of all readings, and among what covers events."""
        known = self._readings.get(id(reading))
        if known is None:
            known = self._readings[id(reading)] = (reading, self._begins, self._firsts)
            self._begins += len(reading.tiles)
            self._firsts += 2 * len(reading.tiles)
        return known[1:]

    def bounds(self) -> Array:
        """Return the bounds of all readings' tiles."""
        found = [reading.bounds for reading, *_ in self._readings.values()]
        return found[0] if len(found) == 1 else np.concatenate([np.zeros((0, 4), dtype=np.int64), *found])

    def add(self, owner: int, value: bytes, place: int, *, narrow: bool) -> None:
        """Add the records of an `R` value, and the place of what covers them; 0 for what nothing does."""
        parts = self._narrow if narrow else self._wide
        parts.data.append(value[1:])
        parts.owners.append(owner)
        parts.counts.append((len(value) - 1) // parts.width)
        parts.places.append(place)

    def add_edge(self, owner: int, data: bytes, count: int, place: int) -> None:
        """Add the first raw records of a hot finest tile."""
        parts, data = self._narrow, data[: count * self._narrow.width]
        parts.data.append(data)
        parts.owners.append(owner)
        parts.counts.append(len(data) // parts.width)
        parts.places.append(place)

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._narrow.data or self._wide.data)

    def lifted(self) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Return owners, times, the bounds of the tiles that count instead where they can, and states."""
        covering = np.concatenate([_UNCOVERED, *(reading.covering for reading, *_ in self._readings.values())])
        found = [self._lifted(parts, covering) for parts in (self._narrow, self._wide) if parts.data]
        if len(found) == 1:
            return found[0]
        owner, times, parents, states = zip(*found, strict=True)
        return np.concatenate(owner), np.concatenate(times), np.concatenate(parents), concatenate(states)

    def _lifted(self, parts: _Parts, covering: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        covers = covering[np.repeat(parts.places, parts.counts)]
        records = np.frombuffer(b"".join(parts.data), dtype=parts.dtype)
        events = self._records.decode(records, covers[:, 0])
        return np.repeat(parts.owners, parts.counts), events.time, covers[:, 1:], self._plan.states.lift(events)
