"""What the stream wrote of a version, as tiles of every level: adaptive tiles read back from Redis, and late events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, Array, States
from rtml.algebra.states import concatenate, group_runs
from rtml.lake import TILE_START
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, PREFIX, RAW, Records, unfield
from rtml.plan import Plan
from rtml.projection import to_events
from rtml.tiles import Tile
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

ENTITIES_AT_ONCE = 1_000


class _Singles(NamedTuple):
    """Events one by one: whose, when, the level of the tile that keeps them, and their states."""

    owner: Array
    time: Array
    leaf: Array
    states: States


class _Whole(NamedTuple):
    """Tiles that hold a state, of one level."""

    owner: Array
    start: Array
    states: States


def read_back(client: Redis, version: Version, late: pl.DataFrame, entities: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Return, level by level, all tiles of some entities: keys, `tile_start` (µs) and states.

    Where an interval holds its raw records, the tiles below it are made of those, so that every level is whole. `late`
    events (as `project` gives them) are added to each.
    """
    plan = version.plan
    wholes, singles = _read(client, version, entities)
    singles = _joined(plan, [singles, _late(plan, late, entities)])
    for level, whole in enumerate(wholes):
        yield _level(plan, level, whole, singles, entities)


def _read(client: Redis, version: Version, entities: pl.DataFrame) -> tuple[list[_Whole], _Singles]:
    plan = version.plan
    suffix = keys.versioned(version.view, version.version)
    names = [keys.entity_tag(plan.entity, values) + suffix for values in entities.select(plan.key_names).iter_rows()]
    found = _Found(plan)
    for start in range(0, len(names), ENTITIES_AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for name in names[start : start + ENTITIES_AT_ONCE]:
            pipeline.hgetall(name)
        for owner, stored in enumerate(pipeline.execute(), start):
            found.add(owner, stored)
    return found.wholes(), found.singles()


class _Found:
    """Collects tiles, to be decoded in one go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        levels = range(len(plan.ladder))
        self._states: list[list[tuple[int, int, bytes]]] = [[] for _ in levels]
        self._records: list[list[tuple[int, int, bytes]]] = [[] for _ in levels]

    def add(self, owner: int, stored: dict[Any, bytes]) -> None:
        """Take an entity's hash."""
        for name, value in stored.items():
            if len(name) != FIELD_DTYPE.itemsize:
                continue
            tile = unfield(name)
            kept, begin = (self._records, 1) if value[0] == RAW else (self._states, PREFIX)
            kept[tile.level].append((owner, self._plan.tiles.start(Tile(*tile)), value[begin:]))

    def wholes(self) -> list[_Whole]:
        """Return the tiles that hold a state, by level."""
        states = self._plan.states
        return [
            _Whole(*_columns(some), states.unpack(np.frombuffer(b"".join(data for *_, data in some), states.dtype)))
            for some in self._states
        ]

    def singles(self) -> _Singles:
        """Return the records of all others."""
        return _joined(self._plan, [self._of_level(level, some) for level, some in enumerate(self._records)])

    def _of_level(self, level: int, some: Sequence[tuple[int, int, bytes]]) -> _Singles:
        layout = Records(self._plan)
        dtype = layout.of_level(level)
        owner, start = _columns(some)
        sizes = np.array([len(data) // dtype.itemsize for *_, data in some], dtype=np.int64)
        records = np.frombuffer(b"".join(data for *_, data in some), dtype=dtype)
        events = layout.decode(records, np.repeat(start, sizes))
        leaf = np.full(len(records), level, dtype=np.int64)
        return _Singles(np.repeat(owner, sizes), events.time, leaf, self._plan.states.lift(events))


def _columns(some: Sequence[tuple[int, int, bytes]]) -> tuple[Array, Array]:
    pairs = np.array([(owner, start) for owner, start, _ in some], dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _joined(plan: Plan, parts: Sequence[_Singles]) -> _Singles:
    states = concatenate([plan.states.empties(0), *(part.states for part in parts)])
    owner, time, leaf = (np.concatenate([part[column] for part in parts]) for column in range(3))
    return _Singles(owner, time, leaf, states)


def _late(plan: Plan, late: pl.DataFrame, entities: pl.DataFrame) -> _Singles:
    """Late events belong to no tile of the stream: they count at every level, as if the coarsest kept them."""
    owners = late.select(plan.key_names).join(
        entities.select(*plan.key_names, pl.int_range(pl.len()).alias("owner")),
        on=list(plan.key_names),
        how="left",
        maintain_order="left",
    )
    leaf = np.full(late.height, plan.tiles.top, dtype=np.int64)
    return _Singles(
        owners["owner"].to_numpy(), late[EVENT_TIME].to_numpy(), leaf, plan.states.lift(to_events(plan, late))
    )


def _level(plan: Plan, level: int, whole: _Whole, singles: _Singles, entities: pl.DataFrame) -> pl.DataFrame:
    """Return a level's tiles: those that hold a state, and what the events that are kept at it or above make."""
    size = plan.ladder[level]
    mine = np.flatnonzero(singles.leaf >= level)
    owner = np.concatenate([whole.owner, singles.owner[mine]])
    start = np.concatenate([whole.start, singles.time[mine] // size * size])
    states = concatenate([whole.states, {name: column[mine] for name, column in singles.states.items()}])
    first = start.min(initial=0)
    spread = int(start.max(initial=0) - first) // size + 1
    order, starts = group_runs(owner * spread + (start - first) // size)
    merged = states
    if len(order):
        merged = plan.states.combine({name: column[order] for name, column in states.items()}, starts)
    chosen = order[starts]
    rows = entities.select(plan.key_names)[owner[chosen]].with_columns(pl.Series(TILE_START, start[chosen]))
    return rows.with_columns(pl.Series(name, merged[name]) for name in plan.states.names)
