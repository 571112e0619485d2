"""A micro-batch's events worked into the tiles of entities, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from rtml.algebra.family import Array
from rtml.online.adaptive import absolute, fold_runs, grow
from rtml.online.codec import PREFIX, RAW, RAW_MARK, Records, raw_count, state_value, unfield
from rtml.online.codec import field as field_name
from rtml.online.tail import states_above
from rtml.plan import Plan
from rtml.tiles import Tile
from streaming.entity import Entity, Run
from streaming.hot import Hot, find_record
from streaming.route import ViewBatch


class Change:
    """What one micro-batch does to one entity; tiles go by their field names."""

    __slots__ = ("appends", "counts", "dirty", "entity", "pending", "split", "strings", "tag", "tail", "turns")

    def __init__(self, tag: str, entity: Entity, *, turns: bool = False) -> None:
        """Begin with nothing done; `turns` when tiles that are out of reach are to be forgotten."""
        self.turns = turns
        self.tag = tag
        self.entity = entity
        self.dirty: dict[bytes, None] = {}
        self.appends: list[tuple[int, int, bytes]] = []
        """Raw records: finest index, byte offset, bytes."""
        self.pending: dict[bytes, tuple[bytes | None, list[int]]] = {}
        """States to renew: the old one, and the numbers of the records to add (`Pool`)."""
        self.counts: dict[bytes, int] = {}
        """How many raw records a renewed finest state stands for."""
        self.tail = False
        """Whether the tail is another one."""
        self.split = False
        self.strings: dict[int, int] = {}
        """By hash: the number of the newest coarsest tile that a string is in."""

    def mention(self, hashes: Sequence[int], number: int) -> None:
        """Note the strings of an event, and the coarsest tile that it is in."""
        for one in hashes:
            self.strings[one] = max(number, self.strings.get(one, number))


class Pool:
    """All records that a micro-batch adds to states, by number: its events', then those that tiles held before."""

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: list[Array] = []
        self._count = 0

    def add(self, records: Array) -> range:
        """Take more, and return their numbers."""
        first = self._count
        self._parts.append(records)
        self._count += len(records)
        return range(first, self._count)

    def take(self, numbers: Array) -> Array:
        """Return some records."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0][numbers]


class Editor:
    """Changes the entities of one plan."""

    def __init__(self, plan: Plan, counts: Counter[str]) -> None:
        """Count duplicates into `counts`."""
        self._plan = plan
        self._layout = Records.of(plan)
        self._top = plan.tiles.top
        self._widths = [self._layout.of_level(level).itemsize for level in range(self._top + 1)]
        self._payload = self._layout.wide.itemsize - 16
        """Bytes of a record behind its time and id64."""
        self._longest_tail = plan.tail_limit * self._layout.tailed.itemsize
        self._counts = counts
        self._pool, self._first = Pool(), 0

    def begin(self, batch: ViewBatch) -> None:
        """Begin with a micro-batch."""
        self._first = self._pool.add(batch.records).start  # not 0 where the one before was cut short

    def work_in(self, change: Change, batch: ViewBatch, runs: Sequence[Run]) -> None:
        """Work one entity's events in; what they do to states is left pending."""
        entity = change.entity
        for run in runs:
            added = self._add(change, batch, run, entity.leaf(batch, run[0]))
            if added:
                entity.max_event_time = max(entity.max_event_time, batch.latest(added))
                entity.last_ingested = max(entity.last_ingested, batch.last_ingested(added))
            if batch.strings.texts:  # of duplicates, too: a full Redis may have refused the strings and not the tiles
                number = int(batch.indices[-1][run[0]])
                change.mention([one for row in run for one in batch.strings.rows[row]], number)

    def must_fold(self, change: Change) -> bool:
        """Whether a tail is to be folded now: it is too long, or tiles that it counts for are others from now on."""
        length = len(change.entity.tail)
        return length > 0 and (change.split or change.turns or length > self._longest_tail)

    def fold_tail(self, change: Change) -> None:
        """Leave a tail pending on the states above its records; these are known, or were forgotten for good."""
        for tile, records in states_above(self._plan, change.entity.tail):
            name = field_name(tile)
            value = change.entity.tiles[name]
            if value is None:
                continue
            if tile.level == 0:
                before = change.counts[name] if name in change.pending else raw_count(value)
                change.counts[name] = before + len(records)
            self._pend(change, name, self._pool.add(records))
        change.entity.tail = b""
        change.tail = True

    def renew_states(self, changes: Sequence[Change]) -> None:
        """Combine all pending states of the micro-batch in one go."""
        pool, self._pool = self._pool, Pool()
        places = [(change, name) for change in changes for name in change.pending]
        if not places:
            return
        pending = [found for change in changes for found in change.pending.values()]
        sizes = np.array([len(numbers) for _, numbers in pending])
        numbers = np.fromiter(
            chain.from_iterable([numbers for _, numbers in pending]), dtype=np.int64, count=sizes.sum()
        )
        packed = fold_runs(self._plan, [old for old, _ in pending], pool.take(numbers), sizes)
        for (change, name), state in zip(places, packed, strict=True):
            change.entity.tiles[name] = state_value(change.counts.get(name, 0), state)

    def _add(self, change: Change, batch: ViewBatch, run: Run, level: int) -> Run:
        """Add a run to its leaf and to the states above; return those of its rows that are not there already."""
        entity, finest = change.entity, batch.finest[run[0]]
        name = batch.fields_from_top[self._top - level][1][run[0]]
        value = entity.tiles[name]
        hot = entity.hot(finest) if value is not None and value[0] != RAW else None
        added, data = self._new_hot(batch, run, hot) if hot else self._new(batch, run, level, value or b"")
        if not added:
            return added
        if level < self._top or hot:
            self._add_above(change, batch, added, level, hot)
        if hot:
            self._append(change, finest, hot, data)
            entity.heat(finest, hot)
        elif len(value or RAW_MARK) + len(data) <= 1 + self._plan.raw_limit * self._widths[level]:
            entity.tiles[name] = (value or RAW_MARK) + data
            change.dirty[name] = None
        else:
            self._split(change, unfield(name), (value or RAW_MARK)[1:] + data)
        return added

    def _new(self, batch: ViewBatch, run: Run, level: int, value: bytes) -> tuple[Run, bytes]:
        """Return the rows that are neither in a leaf's value nor in the run before them, and their records."""
        width, data = self._widths[level], batch.encoded[level]
        key_width = width - self._payload
        records: dict[bytes, bytes] = {}
        added = []
        for row in run:
            record = data[row * width : (row + 1) * width]
            key = record[:key_width]
            before = records.get(key) or find_record(value, key, width, 1)
            if before is None:
                records[key] = record
                added.append(row)
            else:
                self._is_duplicate(record, before)
        return added, b"".join(records.values())

    def _new_hot(self, batch: ViewBatch, run: Run, hot: Hot) -> tuple[Run, bytes]:
        """Return the rows that are neither in a hot tile nor in the run before them, and their records."""
        width, data = self._widths[0], batch.encoded[0]
        records = [data[row * width : (row + 1) * width] for row in run]
        found = hot.admit(records)
        if found.count(None) == len(found):
            return run, b"".join(records)
        added, fresh = [], []
        for row, record, before in zip(run, records, found, strict=True):
            if before is None:
                added.append(row)
                fresh.append(record)
            else:
                self._is_duplicate(record, before)
        return added, b"".join(fresh)

    def _is_duplicate(self, record: bytes, before: bytes) -> None:
        self._counts["duplicates"] += 1
        self._counts["conflicting"] += before != record

    def _add_above(self, change: Change, batch: ViewBatch, rows: Run, level: int, hot: Hot | None) -> None:
        """Add events to the states above their leaf: at once, or to the tail."""
        lowest = 0 if hot else level + 1
        if self._plan.tailed:
            width, mark = self._layout.wide.itemsize, bytes((lowest,))
            parts = [mark + batch.wide[row * width : (row + 1) * width] for row in rows]
            change.entity.tail += b"".join(parts)
            change.tail = True
            return
        numbers = [self._first + row for row in rows] if self._first else rows
        for _, names in batch.fields_from_top[: self._top - lowest + 1]:
            self._pend(change, names[rows[0]], numbers)

    def _append(self, change: Change, index: int, hot: Hot, data: bytes) -> None:
        """Add to a hot finest tile's raw records, unless some were lost: readers must go on seeing that."""
        width = self._widths[0]
        if not hot.damaged:
            change.appends.append((index, hot.count * width, data))
        hot.count += len(data) // width
        if not self._plan.tailed:
            change.counts[field_name(Tile(0, index))] = hot.count

    @staticmethod
    def _pend(change: Change, name: bytes, numbers: Iterable[int]) -> None:
        if name not in change.pending:
            value = change.entity.tiles[name]
            change.pending[name] = (value[PREFIX:] if value else None, [])
        change.pending[name][1].extend(numbers)
        change.dirty[name] = None

    def _split(self, change: Change, tile: Tile, data: bytes) -> None:
        """A tile past K: its state stays, its records move down."""
        entity = change.entity
        change.split = True
        grown = grow(self._plan, tile, absolute(self._layout, tile, data))
        for leaf, value in grown.leaves.items():
            entity.tiles[field_name(leaf)] = value
            change.dirty[field_name(leaf)] = None
        for inner, records in grown.states.items():
            name = field_name(inner)
            entity.tiles[name] = state_value(0, b"")
            change.pending[name] = (None, [*self._pool.add(records)])
            change.dirty[name] = None
            self._know_children(entity, inner)
        width = self._widths[0]
        for index, raw in grown.raw.items():
            count = len(raw) // width
            entity.heat(index, Hot(raw, width, self._payload, count))
            change.appends.append((index, 0, raw))
            change.counts[field_name(Tile(0, index))] = count

    def _know_children(self, entity: Entity, tile: Tile) -> None:
        """A tile that has just split has no children but those of the split: they need not be asked for."""
        if tile.level == 0:
            return
        ratio = self._plan.ladder[tile.level] // self._plan.ladder[tile.level - 1]
        for index in range(tile.index * ratio, (tile.index + 1) * ratio):
            entity.tiles.setdefault(field_name(Tile(tile.level - 1, index)), None)
