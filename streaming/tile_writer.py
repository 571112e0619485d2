"""The tile writer: one shard's entities, written exactly once each event (design §6).

Its memory is a bounded cache of Redis, held only under a claim: a tile's value in `Entity.tiles` is the very bytes that
Redis holds, `None` where it holds nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from rtml.algebra.family import Array
from rtml.instants import SECOND, Instant
from rtml.online import keys
from rtml.online.adaptive import absolute, fold, grow
from rtml.online.codec import HEADER, PREFIX, RAW, RAW_MARK, Header, Records, raw_count, state_value, unfield
from rtml.online.codec import field as field_name
from rtml.plan import Plan
from rtml.tiles import Tile
from streaming.link import Command, Link
from streaming.pruning import expired
from streaming.route import ShardBatch, ViewBatch
from streaming.scripts import generation_bytes
from streaming.versions import Version

CACHED_ENTITIES = 2_000
"""How many entities of a view one shard remembers."""


class Hot:
    """The raw records of a hot finest tile, by time and id64, and how many places they take in Redis."""

    __slots__ = ("count", "damaged", "records")

    def __init__(self, data: bytes, width: int, payload: int, count: int) -> None:
        """Take what the raw key holds; if that is less than `count` records, the tile is damaged for good."""
        records = [data[at : at + width] for at in range(0, len(data) // width * width, width)]
        self.records = {record[: width - payload]: record for record in records}
        self.count = count
        self.damaged = len(data) < count * width


class Entity:
    """One entity of one version, as Redis has it, under this writer's claim."""

    __slots__ = ("header", "raw", "tiles")

    def __init__(self, header: Header) -> None:
        """Know its header only."""
        self.header = header
        self.tiles: dict[Tile, bytes | None] = {}
        self.raw: dict[int, Hot] = {}

    def leaf(self, plan: Plan, batch: ViewBatch, row: int) -> Tile | None:
        """Return the tile whose records an event joins; `None` when a tile on its path is not known yet."""
        for level in range(plan.tiles.top, -1, -1):
            tile = Tile(level, batch.indices[level][row])
            if tile not in self.tiles:
                return None
            value = self.tiles[tile]
            if value is None or value[0] == RAW or level == 0:
                return tile
        raise AssertionError("a ladder has a finest level")

    def path(self, plan: Plan, batch: ViewBatch, row: int) -> Iterator[Tile]:
        """The tiles that must be known to find an event's leaf, and are not."""
        for level in range(plan.tiles.top, -1, -1):
            tile = Tile(level, batch.indices[level][row])
            if tile not in self.tiles:
                yield tile
            elif (value := self.tiles[tile]) is None or value[0] == RAW:
                return


@dataclass
class Change:
    """What one micro-batch does to one entity."""

    tag: str
    entity: Entity
    dirty: set[Tile] = field(default_factory=set)
    appends: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Raw records: finest index, byte offset, bytes."""
    pending: dict[Tile, tuple[bytes | None, list[Array]]] = field(default_factory=dict)
    """States to renew: the old one, and the records to add."""
    counts: dict[Tile, int] = field(default_factory=dict)
    """How many raw records a renewed finest state stands for."""
    latest: Instant = 0
    ingested: Instant = 0


class ViewShard:
    """The writer of one version's entities in one shard."""

    def __init__(self, link: Link, version: Version, generation: int) -> None:
        """Write under a generation of its own."""
        self._link = link
        self._plan = version.plan
        self._layout = Records(version.plan)
        self._payload = self._layout.wide.itemsize - 16
        """Bytes of a record behind its time and id64."""
        self._suffix = keys.versioned(version.view, version.version)
        self._generation = generation
        self._mark = generation_bytes(generation)
        self._expire = version.plan.expire_after // SECOND
        self._cache: OrderedDict[str, Entity] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def apply(self, part: ShardBatch, watermark: Instant) -> None:
        """Write a micro-batch; the fence of every entity that is written rises to the watermark."""
        self._load(part)
        self._load_raw(part)
        changes = [self._change(tag, part.batch, rows) for tag, rows in part.rows.items()]
        changes = [change for change in changes if change.dirty]
        self._renew_states(changes)
        self._write(changes, watermark)
        while len(self._cache) > CACHED_ENTITIES:
            self._cache.popitem(last=False)

    def _load(self, part: ShardBatch) -> None:
        """Claim the entities that are not in the cache, and fetch the tiles that events need."""
        asked: list[tuple[str, list[Tile]]] = []
        commands: list[Command] = []
        fresh = Header(self._generation).encode()
        for tag, rows in part.rows.items():
            entity = self._cache.get(tag)
            known = entity or Entity(Header())
            tiles = list(dict.fromkeys(tile for row in rows for tile in known.path(self._plan, part.batch, row)))
            fields = [field_name(tile) for tile in tiles]
            if entity is None:
                commands.append(self._link.claim(tag + self._suffix, self._mark, fresh, self._expire, *fields))
            elif fields:
                commands.append(("HMGET", tag + self._suffix, *fields))
            else:
                continue
            asked.append((tag, tiles))
        for (tag, tiles), values in zip(asked, self._link.run(commands), strict=True):
            if tag not in self._cache:
                self._cache[tag] = Entity(Header.decode(values[0]))
                values = values[1:]
            self._cache[tag].tiles.update(zip(tiles, values, strict=True))
        for tag in part.rows:
            self._cache.move_to_end(tag)

    def _load_raw(self, part: ShardBatch) -> None:
        """Fetch the raw records of hot finest tiles that events join."""
        asked: list[tuple[Entity, int, int]] = []
        commands: list[Command] = []
        for tag, rows in part.rows.items():
            entity = self._cache[tag]
            leaves = {entity.leaf(self._plan, part.batch, row) for row in self._open(entity, part.batch, rows)}
            for leaf in leaves:
                value = entity.tiles.get(leaf) if leaf else None
                if leaf is None or value is None or value[0] == RAW or leaf.index in entity.raw:
                    continue
                size = raw_count(value) * self._layout.narrow.itemsize
                commands.append(("GETRANGE", keys.raw(tag + self._suffix, leaf.index), 0, size - 1))
                asked.append((entity, leaf.index, size))
        for (entity, index, size), data in zip(asked, self._link.run(commands), strict=True):
            entity.raw[index] = self._hot(data, size // self._layout.narrow.itemsize)
            self.counts["damaged"] += entity.raw[index].damaged

    def _hot(self, data: bytes, count: int) -> Hot:
        return Hot(data, self._layout.narrow.itemsize, self._payload, count)

    def _open(self, entity: Entity, batch: ViewBatch, rows: list[int]) -> list[int]:
        """Leave out what is behind the fence: it was applied before."""
        finest, sealed_to = self._plan.tiles.finest, entity.header.fence - self._plan.lateness
        return [row for row in rows if (batch.indices[0][row] + 1) * finest > sealed_to]

    def _change(self, tag: str, batch: ViewBatch, rows: list[int]) -> Change:
        """Work one entity's events into its tiles, in memory."""
        entity = self._cache[tag]
        change = Change(tag, entity, latest=entity.header.max_event_time, ingested=entity.header.last_ingested)
        unsealed = self._open(entity, batch, rows)
        self.counts["fenced"] += len(rows) - len(unsealed)
        for row in unsealed:
            leaf = entity.leaf(self._plan, batch, row)
            if leaf is None:
                raise AssertionError(f"a tile of {tag} was not loaded")
            if self._add(change, batch, row, leaf):
                change.latest = max(change.latest, batch.times[row])
                change.ingested = max(change.ingested, batch.ingested[row])
        return change

    def _add(self, change: Change, batch: ViewBatch, row: int, leaf: Tile) -> bool:
        """Add an event to its leaf and to the states above; refuse it when it is there already."""
        entity = change.entity
        width = self._layout.of_level(leaf.level).itemsize
        record = batch.encoded[leaf.level][row * width : (row + 1) * width]
        key = record[: width - self._payload]
        value = entity.tiles[leaf]
        hot = value is not None and value[0] != RAW
        found = entity.raw[leaf.index].records.get(key) if hot else _find(value, key, width)
        if found is not None:
            self.counts["duplicates"] += 1
            self.counts["conflicting"] += found != record
            return False
        for level in range(self._plan.tiles.top, leaf.level, -1):
            self._pend(change, Tile(level, batch.indices[level][row]), batch.records[row : row + 1])
        if hot:
            self._append(change, leaf, key, record)
            self._pend(change, leaf, batch.records[row : row + 1])
        elif value is None or len(value) <= self._plan.raw_limit * width:
            entity.tiles[leaf] = (value or RAW_MARK) + record
            change.dirty.add(leaf)
        else:
            self._split(change, leaf, value[1:] + record)
        return True

    def _append(self, change: Change, leaf: Tile, key: bytes, record: bytes) -> None:
        """Add to a hot finest tile's raw records, unless some were lost: readers must go on seeing that."""
        raw = change.entity.raw[leaf.index]
        if not raw.damaged:
            change.appends.append((leaf.index, raw.count * len(record), record))
        raw.records[key] = record
        raw.count += 1
        change.counts[leaf] = raw.count

    @staticmethod
    def _pend(change: Change, tile: Tile, records: Array) -> None:
        if tile not in change.pending:
            value = change.entity.tiles[tile]
            change.pending[tile] = (value[PREFIX:] if value else None, [])
        change.pending[tile][1].append(records)
        change.dirty.add(tile)

    def _split(self, change: Change, tile: Tile, data: bytes) -> None:
        """A tile past K: its state stays, its records move down."""
        entity = change.entity
        grown = grow(self._plan, tile, absolute(self._layout, tile, data))
        for leaf, value in grown.leaves.items():
            entity.tiles[leaf] = value
        for inner, records in grown.states.items():
            entity.tiles[inner] = state_value(0, b"")
            change.pending[inner] = (None, [records])
            self._know_children(entity, inner)
        for index, raw in grown.raw.items():
            entity.raw[index] = self._hot(raw, len(raw) // self._layout.narrow.itemsize)
            change.appends.append((index, 0, raw))
            change.counts[Tile(0, index)] = entity.raw[index].count
        change.dirty.update(grown.leaves, grown.states)

    def _know_children(self, entity: Entity, tile: Tile) -> None:
        """A tile that has just split has no children but those of the split: they need not be asked for."""
        if tile.level == 0:
            return
        ratio = self._plan.ladder[tile.level] // self._plan.ladder[tile.level - 1]
        for index in range(tile.index * ratio, (tile.index + 1) * ratio):
            entity.tiles.setdefault(Tile(tile.level - 1, index), None)

    def _renew_states(self, changes: list[Change]) -> None:
        """Combine all pending states of the micro-batch in one go."""
        places = [(change, tile) for change in changes for tile in change.pending]
        pending = [(old, np.concatenate(added)) for change in changes for old, added in change.pending.values()]
        for (change, tile), packed in zip(places, fold(self._plan, pending), strict=True):
            change.entity.tiles[tile] = state_value(change.counts.get(tile, 0), packed)

    def _write(self, changes: list[Change], watermark: Instant) -> None:
        """Send every changed entity as one script of absolute values."""
        fences = [max(change.entity.header.fence, watermark) for change in changes]
        drops = self._expired(changes, fences)
        commands = []
        for change, fence in zip(changes, fences, strict=True):
            key, entity = change.tag + self._suffix, change.entity
            entity.header = Header(self._generation, fence, change.latest, change.ingested)
            written = {field_name(tile): entity.tiles[tile] or RAW_MARK for tile in change.dirty}
            written[HEADER] = entity.header.encode()
            dropped, dropped_raw = drops.get(change.tag, ([], []))
            raw = [(keys.raw(key, index), offset, data) for index, offset, data in change.appends]
            names = [key, *(name for name, _, _ in raw), *(keys.raw(key, index) for index in dropped_raw)]
            counts = (self._mark, self._expire, len(raw), len(written), len(dropped))
            appends = [part for _, offset, data in raw for part in (offset, data)]
            pairs = [part for pair in written.items() for part in pair]
            commands.append(self._link.write(names, *counts, *appends, *pairs, *dropped))
        self._link.run(commands)

    def _expired(self, changes: list[Change], fences: list[Instant]) -> dict[str, tuple[list[bytes], list[int]]]:
        """For entities whose fence enters another hour or so: forget sealed tiles here, and unreachable ones in Redis."""
        step = self._plan.ladder[min(1, self._plan.tiles.top)]
        turned = [
            (change, fence)
            for change, fence in zip(changes, fences, strict=True)
            if change.entity.header.fence // step != fence // step and change.entity.header.max_event_time >= 0
        ]
        found = {}
        listed = self._link.run([("HKEYS", change.tag + self._suffix) for change, _ in turned])
        for (change, fence), names in zip(turned, listed, strict=True):
            tiles = [unfield(name) for name in names if len(name) == 5]
            old, old_raw = expired(self._plan, tiles, fence)
            self._forget_sealed(change, fence)
            found[change.tag] = ([field_name(tile) for tile in old], old_raw)
        return found

    def _forget_sealed(self, change: Change, fence: Instant) -> None:
        entity, ladder, lateness = change.entity, self._plan.tiles, self._plan.lateness
        sealed = [tile for tile in entity.tiles if ladder.end(tile) + lateness <= fence and tile not in change.dirty]
        for tile in sealed:
            del entity.tiles[tile]
            if tile.level == 0:
                entity.raw.pop(tile.index, None)


def _find(value: bytes | None, key: bytes, width: int) -> bytes | None:
    """Return the record of an `R` value that begins with a time and id64, if it is there."""
    if value is None:
        return None
    at = value.find(key, 1)
    while at >= 0 and (at - 1) % width:
        at = value.find(key, at + 1)
    return value[at : at + width] if at >= 0 else None


class ShardWriter:
    """One shard of a source: a writer for each of its views."""

    def __init__(self, link: Link, generation: int) -> None:
        """Write under a generation that no earlier writer of the shard has."""
        self._link = link
        self._generation = generation
        self._views: dict[str, ViewShard] = {}

    def apply(self, parts: list[ShardBatch], watermark: Instant) -> Counter[str]:
        """Write a micro-batch, and return what was counted."""
        counts: Counter[str] = Counter()
        for part in parts:
            version = part.batch.version
            name = f"{version.view}@{version.version}"
            if name not in self._views:
                self._views[name] = ViewShard(self._link, version, self._generation)
            view = self._views[name]
            view.apply(part, watermark)
            counts.update(view.counts)
            view.counts.clear()
        return counts
