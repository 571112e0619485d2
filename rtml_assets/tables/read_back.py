"""What the stream wrote of a version, as tiles of every level: adaptive tiles read back from Redis, and late events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array, States
from rtml.algebra.states import concatenate, group_runs
from rtml.lake import TILE_START
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, PREFIX, RAW, Records, raw_count, unfield
from rtml.online.salts import partial_tags
from rtml.online.tail import TAIL, joined, tail_rows
from rtml.plan import Plan
from rtml.projection import to_events
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


class _Hot(NamedTuple):
    """A finest tile that holds its state beside a key with its raw records."""

    owner: int
    start: int
    records: int
    key: str


class ReadBack(NamedTuple):
    """What the stream wrote, as frames: keys, `tile_start` (µs) and states."""

    levels: list[pl.DataFrame]
    """All tiles, level by level."""
    hot: pl.DataFrame
    """The finest tiles that hold their state beside a key with their raw records: what the states say."""
    raw: pl.DataFrame
    """The same tiles, folded from those records; one whose records are too few, or not its own, is left out."""
    records: pl.DataFrame
    """Which events those records are: keys, event time (µs) and id64."""


def read_back(client: Redis, version: Version, late: pl.DataFrame, entities: pl.DataFrame) -> ReadBack:
    """Return all that the stream wrote of some entities.

    Where an interval holds its raw records, the tiles below it are made of those, so that every level is whole. `late`
    events (as `project` gives them) are added to each level.
    """
    plan = version.plan
    found = _read(client, version, entities)
    singles = _joined(plan, [found.singles(), _late(plan, late, entities)])
    levels = [_level(plan, level, whole, singles, entities) for level, whole in enumerate(found.wholes())]
    states, (records, ids) = found.hot_states(), _raw_records(client, plan, found.hot)
    nothing, no_tiles = _joined(plan, []), _Whole(*_columns([]), plan.states.empties(0))
    identity = {EVENT_TIME: pl.Series(records.time, dtype=pl.Int64), ID64: pl.Series(ids, dtype=pl.UInt64)}
    return ReadBack(
        levels,
        hot=_level(plan, 0, states, nothing, entities),
        raw=_level(plan, 0, no_tiles, records, entities),
        records=entities.select(plan.key_names)[records.owner].with_columns(**identity),
    )


def _read(client: Redis, version: Version, entities: pl.DataFrame) -> _Found:
    plan = version.plan
    suffix = keys.versioned(version.view, version.version)
    owners = entities.select(plan.key_names).iter_rows()
    names = [tag + suffix for values in owners for tag in partial_tags(plan, values)]
    found = _Found(plan)
    for start in range(0, len(names), ENTITIES_AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for name in names[start : start + ENTITIES_AT_ONCE]:
            pipeline.hgetall(name)
        for place, stored in enumerate(pipeline.execute(), start):
            found.add(place // plan.salts, names[place], stored)
    return found


def _raw_records(client: Redis, plan: Plan, hot: Sequence[_Hot]) -> tuple[_Singles, Array]:
    """Return the raw records of hot tiles, and their ids: of each as many as its state counts, or none where they are
    damaged."""
    layout, finest, width = Records(plan), plan.tiles.finest, Records(plan).narrow.itemsize
    parts, ids = [], [np.zeros(0, dtype=np.uint64)]
    for begin in range(0, len(hot), ENTITIES_AT_ONCE):
        some = hot[begin : begin + ENTITIES_AT_ONCE]
        pipeline = client.pipeline(transaction=False)
        for tile in some:
            pipeline.getrange(tile.key, 0, tile.records * width - 1)
        for tile, data in zip(some, pipeline.execute(), strict=True):
            if len(data) < tile.records * width:
                continue
            records = np.frombuffer(data, dtype=layout.narrow)
            if (records["time"] >= finest).any():
                continue
            events = layout.decode(records, tile.start)
            leaf = np.zeros(tile.records, dtype=np.int64)
            parts.append(_Singles(np.full(tile.records, tile.owner), events.time, leaf, plan.states.lift(events)))
            ids.append(events.id64)
    return _joined(plan, parts), np.concatenate(ids)


class _Found:
    """Collects tiles, to be decoded in one go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        levels = range(len(plan.ladder))
        self._states: list[list[tuple[int, int, bytes]]] = [[] for _ in levels]
        self._records: list[list[tuple[int, int, bytes]]] = [[] for _ in levels]
        self._tails: list[tuple[int, bytes]] = []
        self.hot: list[_Hot] = []

    def add(self, owner: int, key: str, stored: dict[Any, bytes]) -> None:
        """Take an entity's hash, or that of one of its partial states."""
        tail = stored.get(TAIL)
        if tail:
            self._tails.append((owner, tail))
        for name, value in stored.items():
            if len(name) != FIELD_DTYPE.itemsize:
                continue
            tile = unfield(name)
            start = self._plan.tiles.start(tile)
            kept, begin = (self._records, 1) if value[0] == RAW else (self._states, PREFIX)
            kept[tile.level].append((owner, start, value[begin:]))
            if value[0] != RAW and not tile.level:
                lacking = joined(self._plan, tail, tile.index)
                self.hot.append(_Hot(owner, start, raw_count(value) + lacking, keys.raw(key, tile.index)))

    def wholes(self) -> list[_Whole]:
        """Return the tiles that hold a state, by level."""
        return [self._whole(level) for level in range(len(self._states))]

    def hot_states(self) -> _Whole:
        """Return the finest tiles that hold a state."""
        return self._whole(0)

    def _whole(self, level: int) -> _Whole:
        """Return a level's states, and beside them the records of tails that these lack."""
        some, size = self._states[level], self._plan.ladder[level]
        owner, start = _columns(some)
        states = self._plan.states.unpack_bytes([data for *_, data in some])
        lacking = tail_rows(self._plan, [owner for owner, _ in self._tails], [tail for _, tail in self._tails])
        mine = np.flatnonzero(lacking.bounds[:, 1] - lacking.bounds[:, 0] <= size)
        return _Whole(
            np.concatenate([owner, lacking.owner[mine]]),
            np.concatenate([start, lacking.bounds[mine, 0] // size * size]),
            concatenate([states, {name: column[mine] for name, column in lacking.states.items()}]),
        )

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
    none = np.zeros(0, dtype=np.int64)
    owner, time, leaf = (np.concatenate([none, *(part[column] for part in parts)]) for column in range(3))
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
