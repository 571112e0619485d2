"""Accepted events → what each shard's writer needs of them: per view, entity by entity. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
import xxhash

from rtml.algebra.family import EVENT_TIME, Array
from rtml.define.source import EventSource
from rtml.instants import Instant
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, Records
from rtml.online.codec import field as field_name
from rtml.online.salts import partial_columns, partial_tag, with_salt
from rtml.plan import Plan
from rtml.projection import INGESTED_AT, RowWise, project, to_events
from rtml.tiles import Tile
from streaming.decode import Reason
from streaming.gate import ARRIVED, Gated
from streaming.texts import BatchTexts
from streaming.versions import Version

FEW = 16
"""From so many rows on, an array of them is made sooner than one after the other is looked at."""


@dataclass(frozen=True)
class ViewBatch:
    """One view's on-time events of a micro-batch, as columns."""

    version: Version
    tags: list[str]
    """Whose each is: an entity's tag, or where the plan has salts that of a partial state, which is kept as one."""
    times: list[Instant]
    ingested: list[Instant]
    arrived: list[Instant]
    records: Array
    """Wide records with absolute times."""
    strings: BatchTexts = field(default_factory=BatchTexts)

    @property
    def plan(self) -> Plan:
        """The view's plan."""
        return self.version.plan

    @cached_property
    def _in_order(self) -> bool:
        """Whether events were ingested in the order in which they are here, as nearly always."""
        return bool((np.diff(np.array(self.ingested, dtype=np.int64)) >= 0).all())

    @cached_property
    def _instants(self) -> Array:
        return np.array(self.times, dtype=np.int64)

    def latest(self, rows: list[int]) -> Instant:
        """Return the latest time of some events."""
        if len(rows) > FEW:
            return int(self._instants[rows].max())
        return max(map(self.times.__getitem__, rows))

    def last_ingested(self, rows: list[int]) -> Instant:
        """Return when the last of some events, which are in order of arrival, was ingested."""
        return self.ingested[rows[-1]] if self._in_order else max(map(self.ingested.__getitem__, rows))

    @cached_property
    def indices(self) -> list[Array]:
        """By level: each event's tile index."""
        return [self._instants // size for size in self.plan.ladder]

    @cached_property
    def fields_from_top(self) -> list[tuple[int, list[bytes]]]:
        """Levels, coarsest first, with the name of the field that holds each event's tile there."""
        return [(level, _field_names(level, index)) for level, index in reversed(list(enumerate(self.indices)))]

    @cached_property
    def finest(self) -> list[int]:
        """The index of each event's finest tile."""
        indices: list[int] = self.indices[0].tolist()
        return indices

    @cached_property
    def is_of_one_tile(self) -> bool:
        """Whether all events are of the same finest tile."""
        return _is_one(self.indices[0])

    @cached_property
    def wide(self) -> bytes:
        """All records with absolute times, one after the other."""
        return self.records.tobytes()

    @cached_property
    def encoded(self) -> list[bytes]:
        """By level: all records as the bytes that a tile of the level keeps, one after the other."""
        layout = Records(self.plan)
        encoded = []
        for level, size in enumerate(self.plan.ladder):
            moved = self.records.astype(layout.of_level(level))
            moved["time"] = self.records["time"] % np.uint64(size)
            encoded.append(moved.tobytes())
        return encoded


def _is_one(index: Array) -> bool:
    """Whether all events have the same index: live ones have in coarse tiles, and nearly all of them in fine ones."""
    return len(index) > 0 and bool((index == index[0]).all())


def _field_names(level: int, index: Array) -> list[bytes]:
    if _is_one(index):
        return [field_name(Tile(level, int(index[0])))] * len(index)
    names = np.zeros(len(index), dtype=FIELD_DTYPE)
    names["level"], names["index"] = level, index
    data, width = names.tobytes(), FIELD_DTYPE.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


Rows = dict[str, list[int]]
"""Rows of a `ViewBatch` by entity, in order of arrival."""


@dataclass(frozen=True)
class MicroBatch:
    """What one read of a partition brought, by shard and view.

    A process writes all of its shards of it together: one round trip to Redis, and not one for each shard.
    """

    views: list[ViewBatch]
    shards: dict[int, list[Rows]]
    """For each shard, and each of the views, the rows that are its own."""
    heartbeat: tuple[int, str] | None = None
    """A partition, and the id of a heartbeat in it that came behind these events."""
    covered: tuple[int, Instant] | None = None
    """A partition, and up to when all of it is servable by now."""

    @classmethod
    def of(
        cls,
        views: list[ViewBatch],
        heartbeat: tuple[int, str] | None = None,
        covered: tuple[int, Instant] | None = None,
    ) -> MicroBatch:
        """Return the micro-batch of some views' events."""
        shards: dict[int, list[Rows]] = {}
        for number, batch in enumerate(views):
            for shard, rows in _by_shard(batch.tags).items():
                shards.setdefault(shard, [{} for _ in views])[number] = rows
        return cls(views, shards, heartbeat, covered)

    def of_entities(self, view: int) -> Rows:
        """Return the rows of each entity of a view, whatever its partial states."""
        found = {tag: rows for shard in self.shards.values() for tag, rows in shard[view].items()}
        if self.views[view].plan.salts == 1:
            return found
        whole: Rows = defaultdict(list)
        for tag, rows in found.items():
            whole[keys.parted(tag)[0]] += rows
        return whole

    def take(self, shards: Set[int]) -> list[Rows]:
        """Return, view by view, the rows of these shards."""
        merged: list[Rows] = [{} for _ in self.views]
        for shard, found in self.shards.items():
            if shard in shards:
                for rows, more in zip(merged, found, strict=True):
                    rows.update(more)
        return merged


@dataclass(frozen=True)
class Routed:
    """A micro-batch on its way to the shards, and what was counted at the gate."""

    micro_batch: MicroBatch
    counts: Counter[str]
    nulls: dict[str, int]
    """By column that may be null: how many of the accepted events have none."""


class Router:
    """Splits accepted events by view, entity and shard; sets aside what is late or publish's (I6)."""

    def __init__(self, source: EventSource, views: list[tuple[RowWise, Version]]) -> None:
        """Take a source's views, and the version of each that is written."""
        self._source = source
        self._views = views
        self._nullable = [name for name, column in source.columns.items() if column.nullable]

    def __call__(self, gated: Gated) -> Routed:
        """Return each shard's part, and what was counted."""
        entries = gated.entries
        heartbeat = None if entries.heartbeat is None else (entries.partition, entries.heartbeat)
        covered = None if entries.covered is None else (entries.partition, entries.covered)
        counts = Counter(accepted=gated.good.height, refused=len(gated.refused), late=0)
        counts["future"] = sum(event.failures[0].reason is Reason.FUTURE for event in gated.refused)
        if not gated.good.height:
            return Routed(MicroBatch([], {}, heartbeat, covered), counts, {})
        counts["late"] = self._late(gated.good)
        batches = [self._batch(view, version, gated.good) for view, version in self._views]
        nulls = {name: gated.good[name].null_count() for name in self._nullable}
        return Routed(MicroBatch.of(batches, heartbeat, covered), counts, nulls)

    def _late(self, good: pl.DataFrame) -> int:
        source = self._source
        delay = pl.col(INGESTED_AT).dt.epoch("us") - pl.col(source.timestamp).dt.epoch("us")
        return int(good.select((delay > source.lateness_us).sum()).item())

    @staticmethod
    def _batch(view: RowWise, version: Version, good: pl.DataFrame) -> ViewBatch:
        plan = version.plan
        projected = project(view, plan, good.lazy(), keep=(ARRIVED,), texts=True)
        time, ingested = pl.col(EVENT_TIME), pl.col(INGESTED_AT)
        ours = (ingested - time <= plan.lateness) & (time >= version.boundary)
        frame = with_salt(plan, projected.filter(ours)).collect()
        owners = list(zip(*(frame[name].to_list() for name in partial_columns(plan)), strict=True))
        tag_of = {owner: partial_tag(plan, owner) for owner in set(owners)}
        events = to_events(plan, frame)
        return ViewBatch(
            version=version,
            tags=[tag_of[owner] for owner in owners],
            times=frame[EVENT_TIME].to_list(),
            ingested=frame[INGESTED_AT].to_list(),
            arrived=frame[ARRIVED].to_list(),
            records=Records(plan).encode(events, 0, Records(plan).wide),
            strings=BatchTexts.of(plan, frame),
        )


def shard_of(tag: str) -> int:
    """Return the shard of an entity, or of one of its partial states: the same for ever.

    Partial states have shards one after the other: processes that take turns at shards have about as many of them each.
    """
    entity, salt = keys.parted(tag)
    return (xxhash.xxh32_intdigest(entity.encode()) + salt) % keys.SHARDS


def rows_by_tag(tags: list[str]) -> Rows:
    """Return the rows of each entity."""
    rows: Rows = {}
    for row, tag in enumerate(tags):
        rows.setdefault(tag, []).append(row)
    return rows


def _by_shard(tags: list[str]) -> dict[int, Rows]:
    shards: dict[int, Rows] = defaultdict(dict)
    for tag, found in rows_by_tag(tags).items():
        shards[shard_of(tag)][tag] = found
    return shards
