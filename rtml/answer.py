"""What a view's windows are worth at an instant: (plan, tiles, raw edges, at) → values. Pure.

`Turn` knows which fields answer; it changes only when a window's edge enters another finest tile. `answer` merges what
was read, for many entities at once: a tile that a window holds whole gives its state, every other one its records.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    def fields(self) -> list[bytes]:
        """The names of the tail's tiles."""
        return [field_name(tile) for tile in self.tail.tiles]

    @cached_property
    def head_fields(self) -> list[bytes]:
        """The names of the head's tiles."""
        return [field_name(tile) for tile in self.head.tiles]


@dataclass
class Fetched:
    """What was read of one entity: its header, tiles (`None` where there is none), late records and raw edges."""

    header: Header = field(default_factory=Header)
    late: bytes | None = None
    tiles: dict[Tile, bytes | None] = field(default_factory=dict)
    raw: dict[int, bytes] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether anything was ever written of this entity."""
        return (
            self.header.last_ingested != BEGINNING
            or self.late is not None
            or any(value is not None for value in self.tiles.values())
        )

    def needs_head(self, plan: Plan, at: Instant) -> bool:
        """Whether the tile that `at` cuts holds later events, below what was read."""
        if self.header.max_event_time < at:
            return False
        top = plan.tiles.tile(plan.tiles.top, at)
        value = self.tiles.get(top)
        return value is not None and value[0] != RAW

    def damaged(self, plan: Plan) -> list[int]:
        """Return the raw edges that are shorter than their tiles' counts."""
        width = Records(plan).narrow.itemsize
        short = []
        for index, data in self.raw.items():
            value = self.tiles.get(Tile(0, index))
            if value is not None and value[0] != RAW and len(data) < raw_count(value) * width:
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
        bounds: list[tuple[int, int, int, int, int]] = []
        loose = _Loose(plan)
        for owner, entity in enumerate(entities):
            for tile, value in entity.tiles.items():
                if value is None:
                    continue
                if value[0] == RAW:
                    loose.add(owner, tile, memoryview(value)[1:], _bounds(plan, tile)[2:])
                else:
                    packed.append(value[PREFIX:])
                    bounds.append((owner, *_bounds(plan, tile)))
                    if tile.level == 0 and tile.index in entity.raw:
                        width = loose.records.narrow.itemsize
                        data = memoryview(entity.raw[tile.index])[: raw_count(value) * width]
                        loose.add(owner, tile, data, _bounds(plan, tile)[:2])
            if entity.late is not None:
                loose.add(owner, None, memoryview(entity.late)[1:], (_OUTSIDE, _OUTSIDE))
        return cls._assemble(plan, entities, packed, bounds, loose)

    @classmethod
    def _assemble(
        cls,
        plan: Plan,
        entities: Sequence[Fetched],
        packed: list[bytes],
        bounds: list[tuple[int, int, int, int, int]],
        loose: _Loose,
    ) -> _Gathered:
        columns = np.array(bounds, dtype=np.int64).reshape(-1, 5).T
        tiles = plan.states.unpack_bytes(packed)
        owner, times, edge_start, edge_end, lifted = loose.lifted()
        owners = np.concatenate([columns[0], owner])
        latest = np.array([entity.header.max_event_time for entity in entities], dtype=np.int64)
        return cls(
            states=concatenate([tiles, lifted]),
            owner=owners,
            start=np.concatenate([columns[1], times]),
            end=np.concatenate([columns[2], times]),
            parent_start=np.concatenate([columns[3], edge_start]),
            parent_end=np.concatenate([columns[4], edge_end]),
            latest=latest[owners],
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


_OUTSIDE = BEGINNING
"""The start of a coarser tile that no window holds: there is none."""


def _bounds(plan: Plan, tile: Tile) -> tuple[int, int, int, int]:
    ladder = plan.tiles
    start, end = ladder.start(tile), ladder.end(tile)
    if tile.level == ladder.top:
        return start, end, _OUTSIDE, _OUTSIDE
    parent = ladder.tile(tile.level + 1, start)
    return start, end, ladder.start(parent), ladder.end(parent)


class _Loose:
    """Single events of many entities and tiles, to be lifted in one go."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.records = Records(plan)
        self.parts: dict[bool, list[memoryview]] = {True: [], False: []}
        self.sizes: dict[bool, list[tuple[int, int, int, int, int]]] = {True: [], False: []}

    def add(self, owner: int, tile: Tile | None, data: memoryview, covering: tuple[int, int]) -> None:
        """Add records of a tile, or with absolute times; they count where no window holds `covering` whole."""
        narrow = tile is not None and tile.level == 0
        width = (self.records.narrow if narrow else self.records.wide).itemsize
        start = 0 if tile is None else self.plan.tiles.start(tile)
        self.parts[narrow].append(data)
        self.sizes[narrow].append((owner, start, *covering, len(data) // width))

    def lifted(self) -> tuple[Array, Array, Array, Array, dict[str, Array]]:
        """Return owners, times, the bounds of the tiles that count instead where they can, and states."""
        columns, states = [], []
        for narrow, dtype in ((True, self.records.narrow), (False, self.records.wide)):
            sizes = np.array(self.sizes[narrow], dtype=np.int64).reshape(-1, 5)
            owner, starts, edge_start, edge_end = np.repeat(sizes[:, :4], sizes[:, 4], axis=0).T
            events = self.records.decode(np.frombuffer(b"".join(self.parts[narrow]), dtype=dtype), starts)
            columns.append((owner, events.time, edge_start, edge_end))
            states.append(self.plan.states.lift(events))
        owner, times, edge_start, edge_end = (np.concatenate(pair) for pair in zip(*columns, strict=True))
        return owner, times, edge_start, edge_end, concatenate(states)
