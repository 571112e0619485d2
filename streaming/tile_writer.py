"""The tile writer: a process's entities, in which every on-time event counts once (design §6)."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from rtml.algebra.family import Array
from rtml.instants import SECOND, Instant
from rtml.online import keys
from rtml.online.adaptive import absolute, fold, grow
from rtml.online.codec import (
    FIELD_DTYPE,
    HEADER,
    PREFIX,
    RAW,
    RAW_MARK,
    Header,
    Records,
    raw_count,
    state_value,
    unfield,
)
from rtml.online.codec import field as field_name
from rtml.tiles import Tile
from streaming.broker import Command
from streaming.entity import REFRESH_SECONDS, Entity, Hot
from streaming.link import Link
from streaming.pruning import expired
from streaming.route import MicroBatch, Rows, ViewBatch
from streaming.scripts import generation_bytes
from streaming.texts import TextWriter
from streaming.versions import Version

CACHED_ENTITIES = 120_000
"""How many entities of a view a process remembers."""
POSTED_AT_ONCE = 256
"""Redis works on so many writes while the next ones are prepared."""


@dataclass(slots=True)
class Change:
    """What one micro-batch does to one entity; tiles go by their field names."""

    tag: str
    entity: Entity
    latest: Instant
    ingested: Instant
    dirty: set[bytes] = field(default_factory=set)
    appends: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Raw records: finest index, byte offset, bytes."""
    pending: dict[bytes, tuple[bytes | None, list[Array]]] = field(default_factory=dict)
    """States to renew: the old one, and the records to add."""
    counts: dict[bytes, int] = field(default_factory=dict)
    """How many raw records a renewed finest state stands for."""
    strings: dict[int, int] = field(default_factory=dict)
    """By hash: the number of the newest coarsest tile that a string is in."""

    def mention(self, hashes: Sequence[int], number: int) -> None:
        """Note the strings of an event, and the coarsest tile that it is in."""
        for one in hashes:
            self.strings[one] = max(number, self.strings.get(one, number))


class ViewWriter:
    """The writer of one version's entities."""

    def __init__(self, link: Link, version: Version, generation: int) -> None:
        """Write under a generation that no earlier writer of these entities has."""
        self._link = link
        self._plan = version.plan
        self._layout = Records(version.plan)
        self._widths = [self._layout.of_level(level).itemsize for level in range(version.plan.tiles.top + 1)]
        self._payload = self._layout.wide.itemsize - 16
        """Bytes of a record behind its time and id64."""
        self._suffix = keys.versioned(version.view, version.version)
        self._generation = generation
        self._mark = generation_bytes(generation)
        self._expire = version.plan.expire_after // SECOND
        self._cache: OrderedDict[str, Entity] = OrderedDict()
        self._texts = TextWriter(link, version.plan)
        self.counts: Counter[str] = Counter()

    @property
    def cached(self) -> int:
        """How many entities are remembered."""
        return len(self._cache)

    def apply(self, batch: ViewBatch, rows: Rows, watermark: Instant) -> None:
        """Send a micro-batch; the fence of every entity that is written rises to the watermark."""
        known = sum(tag in self._cache for tag in rows)
        self.counts.update(cache_hits=known, cache_misses=len(rows) - known)
        self.counts["conflicting"] += self._texts.conflicts(batch.strings)
        self._load(batch, rows)
        opened = self._open(batch, rows)
        self._load_raw(batch, opened)
        changes = [self._change(tag, batch, found) for tag, found in opened.items()]
        changes = [change for change in changes if change.dirty]
        self._renew_states(changes)
        self._write(changes, batch, watermark)
        while len(self._cache) > CACHED_ENTITIES:
            self._cache.popitem(last=False)

    def _load(self, batch: ViewBatch, rows_of: Rows) -> None:
        """Claim the entities that are not in the cache, and fetch the tiles that events need."""
        asked: list[tuple[str, list[bytes]]] = []
        commands: list[Command] = []
        fresh = Header(self._generation).encode()
        for tag, rows in rows_of.items():
            entity = self._cache.get(tag)
            known = entity or Entity(Header())
            names = list(dict.fromkeys([name for row in rows for name in known.unknown(batch, row)]))
            if entity is None:
                commands.append(self._link.claim(tag + self._suffix, self._mark, fresh, self._expire, *names))
            elif names:
                commands.append(("HMGET", tag + self._suffix, *names))
            else:
                continue
            asked.append((tag, names))
        for (tag, names), reply in zip(asked, self._link.run(commands), strict=True):
            claimed = tag not in self._cache
            if claimed:
                self._cache[tag] = Entity(Header.decode(reply[0]))
            self._cache[tag].tiles.update(zip(names, reply[1:] if claimed else reply, strict=True))

    def _open(self, batch: ViewBatch, rows_of: Rows) -> Rows:
        """Leave out, and count, what is behind the fence."""
        opened = {}
        for tag, rows in rows_of.items():
            self._cache.move_to_end(tag)
            found = self._cache[tag].open_rows(self._plan, batch, rows)
            self.counts["fenced"] += len(rows) - len(found)
            if found:
                opened[tag] = found
        return opened

    def _load_raw(self, batch: ViewBatch, opened: Rows) -> None:
        """Fetch the raw records of hot finest tiles that events join."""
        asked: dict[tuple[str, int], int] = {}
        finest = batch.fields_from_top[-1][1]
        for tag, rows in opened.items():
            entity = self._cache[tag]
            for row in rows:
                value = entity.tiles.get(finest[row])
                if value is not None and value[0] != RAW:
                    index = int(batch.indices[0][row])
                    if index not in entity.raw:
                        asked[tag, index] = raw_count(value)
        width = self._layout.narrow.itemsize
        commands: list[Command] = [
            ("GETRANGE", keys.raw(tag + self._suffix, index), 0, count * width - 1)
            for (tag, index), count in asked.items()
        ]
        for ((tag, index), count), data in zip(asked.items(), self._link.run(commands), strict=True):
            hot = self._cache[tag].raw[index] = Hot(data, width, self._payload, count)
            self.counts["damaged"] += hot.damaged

    def _change(self, tag: str, batch: ViewBatch, rows: list[int]) -> Change:
        """Work one entity's events into its tiles, in memory."""
        entity = self._cache[tag]
        change = Change(tag, entity, entity.header.max_event_time, entity.header.last_ingested)
        for row in rows:
            if self._add(change, batch, row, entity.leaf(batch, row)):
                change.latest = max(change.latest, batch.times[row])
                change.ingested = max(change.ingested, batch.ingested[row])
                if batch.strings.texts:
                    change.mention(batch.strings.rows[row], int(batch.indices[-1][row]))
        return change

    def _add(self, change: Change, batch: ViewBatch, row: int, level: int) -> bool:
        """Add an event to its leaf and to the states above; refuse it when it is there already."""
        entity = change.entity
        width = self._widths[level]
        record = batch.encoded[level][row * width : (row + 1) * width]
        key = record[: width - self._payload]
        top = self._plan.tiles.top
        name = batch.fields_from_top[top - level][1][row]
        value = entity.tiles[name]
        hot = entity.raw[int(batch.indices[0][row])] if value is not None and value[0] != RAW else None
        found = hot.records.get(key) if hot else _find(value, key, width)
        if found is not None:
            self.counts["duplicates"] += 1
            self.counts["conflicting"] += found != record
            return False
        for _, names in batch.fields_from_top[: top - level]:
            self._pend(change, names[row], batch.records[row : row + 1])
        if hot:
            self._append(change, name, int(batch.indices[0][row]), key, record)
            self._pend(change, name, batch.records[row : row + 1])
        elif value is None or len(value) <= self._plan.raw_limit * width:
            entity.tiles[name] = (value or RAW_MARK) + record
            change.dirty.add(name)
        else:
            self._split(change, unfield(name), value[1:] + record)
        return True

    @staticmethod
    def _append(change: Change, name: bytes, index: int, key: bytes, record: bytes) -> None:
        """Add to a hot finest tile's raw records, unless some were lost: readers must go on seeing that."""
        hot = change.entity.raw[index]
        if not hot.damaged:
            change.appends.append((index, hot.count * len(record), record))
        hot.records[key] = record
        hot.count += 1
        change.counts[name] = hot.count

    @staticmethod
    def _pend(change: Change, name: bytes, records: Array) -> None:
        if name not in change.pending:
            value = change.entity.tiles[name]
            change.pending[name] = (value[PREFIX:] if value else None, [])
        change.pending[name][1].append(records)
        change.dirty.add(name)

    def _split(self, change: Change, tile: Tile, data: bytes) -> None:
        """A tile past K: its state stays, its records move down."""
        entity = change.entity
        grown = grow(self._plan, tile, absolute(self._layout, tile, data))
        for leaf, value in grown.leaves.items():
            entity.tiles[field_name(leaf)] = value
            change.dirty.add(field_name(leaf))
        for inner, records in grown.states.items():
            name = field_name(inner)
            entity.tiles[name] = state_value(0, b"")
            change.pending[name] = (None, [records])
            change.dirty.add(name)
            self._know_children(entity, inner)
        width = self._layout.narrow.itemsize
        for index, raw in grown.raw.items():
            count = len(raw) // width
            entity.raw[index] = Hot(raw, width, self._payload, count)
            change.appends.append((index, 0, raw))
            change.counts[field_name(Tile(0, index))] = count

    def _know_children(self, entity: Entity, tile: Tile) -> None:
        """A tile that has just split has no children but those of the split: they need not be asked for."""
        if tile.level == 0:
            return
        ratio = self._plan.ladder[tile.level] // self._plan.ladder[tile.level - 1]
        for index in range(tile.index * ratio, (tile.index + 1) * ratio):
            entity.tiles.setdefault(field_name(Tile(tile.level - 1, index)), None)

    def _renew_states(self, changes: list[Change]) -> None:
        """Combine all pending states of the micro-batch in one go."""
        places = [(change, name) for change in changes for name in change.pending]
        pending = [(old, np.concatenate(added)) for change in changes for old, added in change.pending.values()]
        for (change, name), packed in zip(places, fold(self._plan, pending), strict=True):
            change.entity.tiles[name] = state_value(change.counts.get(name, 0), packed)

    def _write(self, changes: list[Change], batch: ViewBatch, watermark: Instant) -> None:
        """Send every changed entity as one script of absolute values."""
        now = time.monotonic()
        drops = self._expired(changes, watermark)
        commands = []
        for change in changes:
            key, entity = change.tag + self._suffix, change.entity
            was, fence = entity.header.fence, max(entity.header.fence, watermark)
            entity.header = Header(self._generation, fence, change.latest, change.ingested)
            pairs: list[bytes] = [HEADER, entity.header.encode()]
            for name in change.dirty:
                pairs += (name, entity.tiles[name] or RAW_MARK)
            names = [key]
            appends: list[int | bytes] = []
            for index, offset, data in change.appends:
                names.append(keys.raw(key, index))
                appends += (offset, data)
            dropped, dropped_raw = drops.get(change.tag, ([], []))
            names += [keys.raw(key, index) for index in dropped_raw]
            ttl = 0
            if now - entity.refreshed >= REFRESH_SECONDS:
                ttl, entity.refreshed = self._expire, now
            counts = (self._mark, ttl, len(change.appends), len(pairs) // 2, len(dropped), self._expire)
            commands += self._texts.keep(key, change.strings, batch.strings.texts)
            commands.append(self._link.write(names, *counts, *appends, *pairs, *dropped))
            commands += self._texts.drop(key, was, fence, renewed=ttl > 0)
            if len(commands) >= POSTED_AT_ONCE:
                self._link.post(commands)
                commands = []
        self._link.post(commands)

    def _expired(self, changes: list[Change], watermark: Instant) -> dict[str, tuple[list[bytes], list[int]]]:
        """For entities whose fence enters another hour or so: forget sealed tiles here, unreachable ones in Redis."""
        step = self._plan.ladder[min(1, self._plan.tiles.top)]
        turned = [
            change
            for change in changes
            if change.entity.header.fence // step < watermark // step and change.entity.header.max_event_time >= 0
        ]
        found = {}
        listed = self._link.run([("HKEYS", change.tag + self._suffix) for change in turned])
        for change, names in zip(turned, listed, strict=True):
            tiles = [unfield(name) for name in names if len(name) == FIELD_DTYPE.itemsize]
            old, old_raw = expired(self._plan, tiles, watermark)
            self._forget_sealed(change, watermark)
            found[change.tag] = ([field_name(tile) for tile in old], old_raw)
        return found

    def _forget_sealed(self, change: Change, fence: Instant) -> None:
        entity, ladder, lateness = change.entity, self._plan.tiles, self._plan.lateness
        for name in [name for name in entity.tiles if name not in change.dirty]:
            tile = unfield(name)
            if ladder.end(tile) + lateness <= fence:
                del entity.tiles[name]
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


class TileWriter:
    """All that one process of the tiles flow writes: a writer for each view of a source."""

    def __init__(self, link: Link, generation: int) -> None:
        """Write under a generation that no earlier process has."""
        self._link = link
        self._generation = generation
        self._views: dict[str, ViewWriter] = {}
        self.duplicates = 0
        """How many of the last micro-batch's events were: by the view that saw the most."""

    @property
    def cached(self) -> int:
        """How many entities are remembered, of all views."""
        return sum(view.cached for view in self._views.values())

    def apply(self, micro_batch: MicroBatch, shards: Set[int], watermark: Instant) -> Counter[str]:
        """Send what a micro-batch has for these shards, and return what was counted.

        `Link.drain` tells when it is all written.
        """
        counts: Counter[str] = Counter()
        self.duplicates = 0
        for batch, rows in zip(micro_batch.views, micro_batch.take(shards), strict=True):
            if not rows:
                continue
            name = batch.version.name
            if name not in self._views:
                self._views[name] = ViewWriter(self._link, batch.version, self._generation)
            view = self._views[name]
            view.apply(batch, rows, watermark)
            counts.update(view.counts)
            self.duplicates = max(self.duplicates, view.counts["duplicates"])
            view.counts.clear()
        return counts
