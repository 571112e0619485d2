"""The tile writer: a process's entities, in which every on-time event counts once (design §6)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence, Set

from rtml.instants import BEGINNING, MINUTE, SECOND, Instant
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, HEADER, RAW_MARK, encode_header, unfield
from rtml.online.codec import field as field_name
from rtml.online.commands import Command
from rtml.online.tail import TAIL
from streaming.change import Change, Editor
from streaming.entity import REFRESH_SECONDS, Entity, Run, runs_of
from streaming.link import Link
from streaming.loading import Loader, Work
from streaming.pruning import expired
from streaming.route import MicroBatch, Rows, ViewBatch
from streaming.texts import BatchTexts, TextWriter
from streaming.versions import Version

SHORTEST_STEP = 5 * MINUTE
POSTED_AT_ONCE = 256
"""Redis works on so many writes while the next ones are prepared."""

Drops = dict[str, tuple[list[bytes], list[int]]]
"""By entity: the tiles that are to be deleted, and the finest indices whose raw records are."""


class ViewWriter:
    """The writer of one version's entities."""

    def __init__(self, link: Link, version: Version, generation: int) -> None:
        """Write under a generation that no earlier writer of these entities has."""
        self.counts: Counter[str] = Counter()
        self._link = link
        self._plan = version.plan
        self._suffix = keys.versioned(version.view, version.version)
        self._generation = generation
        self._expire = version.plan.expire_after // SECOND
        self._packer = link.packer(generation, self._expire, version.plan.raw_expire_after // SECOND)
        self._loader = Loader(link, version, self._packer, self.counts)
        self._editor = Editor(version.plan, self.counts)
        ladder = self._plan.ladder
        self._step = next((size for size in ladder[1:] if size >= SHORTEST_STEP), ladder[-1])
        """When the fence of an entity enters another one of these, what is out of its reach is deleted."""
        self._watermark: Instant = BEGINNING
        self._now = 0.0
        self._held: list[Change] = []
        self._ready: list[Command | bytes] = []
        self._texts, self._strings = TextWriter(link, version.plan), BatchTexts()

    @property
    def cached(self) -> int:
        """How many entities are remembered."""
        return len(self._loader.entities)

    def apply(self, batch: ViewBatch, rows: Rows, watermark: Instant) -> None:
        """Send a micro-batch; the fence of every entity that is written rises to the watermark.

        Each entity is looked at once, and sent while it is at hand, but for those of which something must be fetched or
        computed first: that is done for all of them together.
        """
        self._watermark, self._now, self._strings = watermark, time.monotonic(), batch.strings
        self.counts["conflicting"] += self._texts.conflicts(batch.strings)
        self._editor.begin(batch)
        entities = self._loader.entities
        waiting: Work = {}
        misses = 0
        for tag, found in rows.items():
            runs, entity = runs_of(batch, found), entities.get(tag)
            if entity is not None and entity.is_known(batch, runs):
                self._work_in(tag, entity, batch, runs)
            else:
                misses += entity is None
                waiting[tag] = runs
        self.counts.update(cache_hits=len(rows) - misses, cache_misses=misses)
        self._loader.load(batch, waiting)
        for tag, runs in waiting.items():
            self._work_in(tag, entities[tag], batch, runs)
        self._finish_held()
        self._post()
        self._loader.forget(rows, self._now)

    def _work_in(self, tag: str, entity: Entity, batch: ViewBatch, runs: Sequence[Run]) -> None:
        entity.wanted = True
        change = Change(tag, entity, turns=self._turns(entity))
        opened = entity.open_runs(self._plan, batch, runs)
        if len(opened) < len(runs):
            self.counts["fenced"] += sum(map(len, runs)) - sum(map(len, opened))
        self._editor.work_in(change, batch, opened)
        if not (change.dirty or change.tail):
            if change.strings:  # of duplicates
                self._ready += self._texts.keep(tag + self._suffix, change.strings, self._strings.texts)
            return
        if change.pending or change.tail or change.turns:
            self._held.append(change)
        else:
            self._send(change)

    def _finish_held(self) -> None:
        held, self._held = self._held, []
        if self._plan.tailed:
            self._fold_tails([change for change in held if self._editor.must_fold(change)])
        self._editor.renew_states(held)
        drops = self._expired(held)
        for change in held:
            self._send(change, *drops.get(change.tag, ()))

    def _fold_tails(self, changes: Sequence[Change]) -> None:
        self._loader.load_above_tails(changes)
        for change in changes:
            self._editor.fold_tail(change)

    def _turns(self, entity: Entity) -> bool:
        """Whether an entity's fence is about to enter another hour or so."""
        return entity.fence // self._step < self._watermark // self._step and entity.max_event_time >= 0

    def _send(self, change: Change, dropped: Sequence[bytes] = (), dropped_raw: Sequence[int] = ()) -> None:
        """Send a changed entity, as one script of absolute values."""
        entity, key = change.entity, change.tag + self._suffix
        was, entity.fence = entity.fence, max(entity.fence, self._watermark)
        header = encode_header(self._generation, entity.fence, entity.max_event_time, entity.last_ingested)
        ttl = 0
        if self._now - entity.refreshed >= REFRESH_SECONDS:
            ttl, entity.refreshed = self._expire, self._now
        if len(change.dirty) == 1 and not (ttl or change.tail or change.appends or dropped or dropped_raw):
            (name,) = change.dirty
            command = self._packer.write_tile(key.encode(), header, name, entity.tiles[name] or RAW_MARK)
        else:
            pairs = [HEADER, header]
            for name in change.dirty:
                pairs += (name, entity.tiles[name] or RAW_MARK)
            if change.tail:
                pairs += (TAIL, entity.tail)
            raw = [keys.raw(key, index) for index in (*[index for index, *_ in change.appends], *dropped_raw)]
            names = [name.encode() for name in (key, *raw)]
            command = self._packer.write(names, ttl, [append[1:] for append in change.appends], pairs, dropped)
        if entity.raw is not None:
            entity.cool(self._plan)
        if self._plan.texts:
            self._ready += self._texts.keep(key, change.strings, self._strings.texts)
            self._ready.append(command)
            self._ready += self._texts.drop(key, was, entity.fence, renewed=ttl > 0)
        else:
            self._ready.append(command)
        if len(self._ready) >= POSTED_AT_ONCE:
            self._post()

    def _post(self) -> None:
        ready, self._ready = self._ready, []
        self._link.post(ready)

    def _expired(self, held: Sequence[Change]) -> Drops:
        """Forget sealed tiles here, and find those in Redis, or on their way there, that are out of reach."""
        found: Drops = {}
        turned = [change for change in held if change.turns]
        listed = self._link.run([("HKEYS", change.tag + self._suffix) for change in turned])
        for change, names in zip(turned, listed, strict=True):
            found[change.tag] = self._out_of_reach(names, self._watermark, change.entity.pruned)
            change.entity.pruned = self._watermark
            change.entity.forget_sealed(self._plan, self._watermark, change.dirty)
        for change in held:
            if change.split:  # what has moved down may be old
                moved = self._out_of_reach(change.dirty, max(change.entity.fence, self._watermark))
                tiles, raw = found.get(change.tag, ([], []))
                found[change.tag] = (tiles + moved[0], raw + moved[1])
        return found

    def _out_of_reach(
        self, names: Iterable[bytes], fence: Instant, since: Instant = BEGINNING
    ) -> tuple[list[bytes], list[int]]:
        tiles = [unfield(name) for name in names if len(name) == FIELD_DTYPE.itemsize]
        old, raw = expired(self._plan, tiles, fence, since)
        return [field_name(tile) for tile in old], raw


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
