"""What is read of an entity: `Turn` knows which fields answer, and changes only when an edge enters another tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rtml.algebra.family import Array
from rtml.instants import BEGINNING, Instant
from rtml.online.base import BASE, LATE_AT
from rtml.online.codec import HEADER, LATE, NO_HEADER, RAW, Header, Records, raw_count
from rtml.online.codec import field as field_name
from rtml.online.commands import FieldsOf
from rtml.online.tail import TAIL, joined
from rtml.plan import Plan
from rtml.tiles import Cover, Tile, head_cover, tail_cover

OUTSIDE = BEGINNING
"""The start of a coarser tile that no window holds: there is none."""


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

    @cached_property
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
    def command(self) -> FieldsOf:
        """What reads them: the entity's own fields first, then the tiles."""
        return FieldsOf([*own_fields(self.plan), *(field_name(tile) for tile in self.tiles)])

    @cached_property
    def places(self) -> dict[Tile, int]:
        """Where each tile stands."""
        return {tile: place for place, tile in enumerate(self.tiles)}

    @cached_property
    def bounds(self) -> Array:
        """By tile: its start and end, and those of the next coarser one, which counts instead where a window can."""
        return np.array([_bounds(self.plan, tile) for tile in self.tiles], dtype=np.int64).reshape(-1, 4)

    @cached_property
    def geometry(self) -> bytes:
        """By tile, for the compiled merge: whether it is of the finest level, and its bounds."""
        return np.column_stack([np.array(self.of_finest, dtype=np.int64), self.bounds]).tobytes()

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


@dataclass(slots=True)
class Fetched:
    """What was read of one entity: its header, tiles (`None` where there is none), late records and raw edges."""

    header: Header = NO_HEADER
    late: bytes | None = None
    reading: Reading | None = None
    values: list[bytes | None] = field(default_factory=list)
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

    def hot_edges(self, plan: Plan) -> Iterator[tuple[int, int]]:
        """Yield the raw edges in tiles that hold a state, each with how many bytes of its records count."""
        if self.reading is None:
            return
        width = Records.of(plan).narrow.itemsize
        for index, place in self.reading.edges:
            value = self.values[place]
            if value is not None and value[0] != RAW:
                yield index, self.records_of(plan, index, value) * width

    def damaged(self, plan: Plan) -> list[int]:
        """Return the raw edges that are shorter than their tiles' counts."""
        return [index for index, size in self.hot_edges(plan) if len(self.raw.get(index, b"")) < size]


def own_fields(plan: Plan) -> tuple[bytes, ...]:
    """Return the fields that are read of every entity, whatever its tiles."""
    based = (BASE, LATE_AT) if plan.lifetime else ()
    return (HEADER, LATE, *based, *((TAIL,) if plan.tailed else ()))


def _bounds(plan: Plan, tile: Tile) -> tuple[int, int, int, int]:
    ladder = plan.tiles
    start, end = ladder.start(tile), ladder.end(tile)
    if tile.level == ladder.top:
        return start, end, OUTSIDE, OUTSIDE
    parent = ladder.tile(tile.level + 1, start)
    return start, end, ladder.start(parent), ladder.end(parent)
