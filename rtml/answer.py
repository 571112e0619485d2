"""What a view's windows are worth at an instant: (plan, tiles, raw edges, at) → values. Pure.

`Turn` knows which fields answer; it changes only when a window's edge enters another finest tile. `answer` merges what
was read, for many entities at once: a tile that a window holds whole gives its state, every other one its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rtml.algebra.family import Array, Span, States, Values
from rtml.algebra.states import concatenate, group_runs
from rtml.instants import BEGINNING, Instant
from rtml.online.codec import PREFIX, RAW, Header, Records, raw_count
from rtml.online.codec import field as field_name
from rtml.plan import Plan
from rtml.tiles import Cover, Tile, head_cover, tail_cover


@dataclass(frozen=True)
class Turn:
    """The cover of all of a plan's windows at an instant, and at every instant up to the next turn."""

    plan: Plan
    at: Instant

    @staticmethod
    def key(plan: Plan, at: Instant) -> tuple[int, ...]:
        """Return what is the same for all instants that share a turn."""
        finest = plan.tiles.finest
        return (at // finest, *((at - window.length) // finest for window in plan.windows))

    @cached_property
    def tail(self) -> Cover:
        """What every request reads. Edges are moved inside their tiles, so that one turn serves all of its instants."""
        finest = self.plan.tiles.finest
        spans = []
        for window in self.plan.windows:
            a, b = window.edges(self.at, finest)
            spans.append((a // finest * finest + (1 if window.exact else 0), b // finest * finest + 1))
        return tail_cover(self.plan.tiles, spans)

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
                if len(self.raw.get(index, b"")) < raw_count(value) * width:
                    short.append(index)
        return short


@dataclass(frozen=True)
class Answer:
    """Values of every feature of a plan, one row an entity."""

    features: dict[str, Values]


def answer(plan: Plan, at: Instant, entities: Sequence[Fetched]) -> Answer:
    """Return the values of all features for entities as they were read, at an instant.

    Raises:
        OverflowedError: an integer sum needs more than 64 bits.
    """
    windows = plan.windows
    records = _Gathered.of(plan, entities)
    chosen, cells = [], []
    for number, window in enumerate(windows):
        a, b = window.edges(at, plan.tiles.finest)
        rows, owners = records.within(a, b)
        chosen.append(rows)
        cells.append(owners * len(windows) + number)
    states = _combine(plan, records.states, np.concatenate(chosen), np.concatenate(cells), len(entities) * len(windows))
    values = {}
    for feature in plan.features:
        number = windows.index(feature.span)
        part = {name: column[number :: len(windows)] for name, column in states.items()}
        values[feature.name] = feature.finalize(part, Span(*feature.span.edges(at, plan.tiles.finest)))
    return Answer(values)


def _combine(plan: Plan, states: States, rows: Array, cells: Array, count: int) -> dict[str, Array]:
    """Return one state for each of `count` cells, from rows of states and the cell that each falls in."""
    merged = plan.states.empties(count)
    if len(rows):
        order, starts = group_runs(cells)
        picked = {name: column[rows[order]] for name, column in states.items()}
        present = cells[order][starts]
        for name, column in plan.states.combine(picked, starts).items():
            merged[name][present] = column
    return merged


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
                for place in _take_apart(owner, entity, entity.reading, packed, loose, first):
                    owners.append(owner)
                    places.append(begin + place)
            if entity.late is not None:
                loose.add(owner, entity.late, 0, narrow=False)
        states, times = plan.states.unpack_bytes(packed), _NONE
        bounds, owned, parents = loose.bounds()[places], np.array(owners, dtype=np.int64), _NO_PARENTS
        if loose.any:
            owner_of, times, parents, lifted = loose.lifted()
            states = concatenate([states, lifted]) if packed else lifted
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
        )

    def within(self, a: Instant, b: Instant) -> tuple[Array, Array]:
        """Return the rows that make up `[a, b)`, and their owners.

        A tile counts when the window holds it whole, an event when it is inside; neither counts where what covers it
        counts instead. A tile that `b` cuts is held whole when the entity has nothing as late as `b`.
        """
        inside = (self.start >= a) & (self.start < b)
        whole = (self.end <= b) | (self.latest < b)
        whole[self.tiles :] = True
        covered = (self.parent_start >= a) & ((self.parent_end <= b) | (self.latest < b)) & (self.parent_start < b)
        rows = np.flatnonzero(inside & whole & ~covered)
        return rows, self.owner[rows]


def _take_apart(
    owner: int, entity: Fetched, reading: Reading, packed: list[bytes], loose: _Loose, first: int
) -> Iterator[int]:
    """Add an entity's states to `packed` and its records to `loose`; yield the places of the states."""
    finest, raw, count = reading.of_finest, entity.raw, len(reading.tiles)
    for place, value in enumerate(entity.values):
        if value is None:
            continue
        if value[0] == RAW:
            loose.add(owner, value, first + place, narrow=finest[place])
            continue
        packed.append(value[PREFIX:])
        if finest[place] and (index := reading.tiles[place].index) in raw:
            loose.add_edge(owner, raw[index], raw_count(value), first + count + place)
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
