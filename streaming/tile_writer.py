"""The tile writer: a process's entities, in which every on-time event counts once (design §6)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence, Set

from rtml.instants import SECOND, Instant
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, HEADER, RAW_MARK, Header, unfield
from rtml.online.codec import field as field_name
from rtml.online.commands import Command
from rtml.online.tail import TAIL
from streaming.change import Change, Editor
from streaming.entity import REFRESH_SECONDS, runs_of
from streaming.link import Link
from streaming.loading import Loader
from streaming.pruning import expired
from streaming.route import MicroBatch, Rows, ViewBatch
from streaming.scripts import generation_bytes
from streaming.texts import TextWriter
from streaming.versions import Version

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
        self._mark = generation_bytes(generation)
        self._expire = version.plan.expire_after // SECOND
        self._raw_expire = version.plan.raw_expire_after // SECOND
        self._loader = Loader(link, version, generation, self.counts)
        self._editor = Editor(version.plan, self.counts)
        self._texts = TextWriter(link, version.plan)

    @property
    def cached(self) -> int:
        """How many entities are remembered."""
        return len(self._loader.entities)

    def apply(self, batch: ViewBatch, rows: Rows, watermark: Instant) -> None:
        """Send a micro-batch; the fence of every entity that is written rises to the watermark."""
        entities, editor = self._loader.entities, self._editor
        self.counts["conflicting"] += self._texts.conflicts(batch.strings)
        opened = self._loader.load(batch, {tag: runs_of(batch, found) for tag, found in rows.items()})
        changes = [editor.change(tag, entities[tag], batch, runs) for tag, runs in opened.items()]
        self._keep_strings([change for change in changes if not (change.dirty or change.tail)], batch)
        changes = [change for change in changes if change.dirty or change.tail]
        turned = self._turned(changes, watermark)
        if self._plan.tailed:
            self._fold_tails(changes, turned)
        editor.renew_states(changes)
        self._write(changes, self._expired(turned, watermark), batch, watermark)
        self._loader.forget(rows)

    def _keep_strings(self, changes: Sequence[Change], batch: ViewBatch) -> None:
        """Send the strings of entities that had duplicates alone: those that are not known to be there."""
        texts = batch.strings.texts
        kept = [self._texts.keep(change.tag + self._suffix, change.strings, texts) for change in changes if texts]
        self._link.post([command for commands in kept for command in commands])

    def _fold_tails(self, changes: Sequence[Change], turned: Sequence[Change]) -> None:
        """Fold the tails that are full, and those of entities whose tiles are about to be forgotten."""
        tags = {change.tag for change in turned}
        folded = [change for change in changes if self._editor.must_fold(change) or change.tag in tags]
        self._loader.load_above_tails(folded)
        for change in folded:
            self._editor.fold_tail(change)

    def _write(self, changes: Sequence[Change], drops: Drops, batch: ViewBatch, watermark: Instant) -> None:
        """Send every changed entity as one script of absolute values."""
        now = time.monotonic()
        commands: list[Command] = []
        for change in changes:
            key, was, renewed = change.tag + self._suffix, change.entity.header.fence, change.entity.refreshed
            commands += self._texts.keep(key, change.strings, batch.strings.texts)
            commands.append(self._command(change, drops.get(change.tag), watermark, now))
            fence, renews = change.entity.header.fence, change.entity.refreshed > renewed
            commands += self._texts.drop(key, was, fence, renewed=renews)
            if len(commands) >= POSTED_AT_ONCE:
                self._link.post(commands)
                commands = []
        self._link.post(commands)

    def _command(
        self, change: Change, drops: tuple[list[bytes], list[int]] | None, watermark: Instant, now: float
    ) -> Command:
        key, entity = change.tag + self._suffix, change.entity
        fence = max(entity.header.fence, watermark)
        entity.header = Header(self._generation, fence, change.latest, change.ingested)
        tiles = entity.tiles
        pairs: list[bytes] = [HEADER, entity.header.encode()]
        for name in change.dirty:
            pairs += (name, tiles[name] or RAW_MARK)
        if change.tail:
            pairs += (TAIL, entity.tail)
        names = [key]
        appends: list[int | bytes] = []
        for index, offset, data in change.appends:
            names.append(keys.raw(key, index))
            appends += (offset, data)
        dropped: list[bytes] = []
        if drops is not None:
            dropped, dropped_raw = drops
            names += [keys.raw(key, index) for index in dropped_raw]
        ttl = 0
        if now - entity.refreshed >= REFRESH_SECONDS:
            ttl, entity.refreshed = self._expire, now
        counts = (self._mark, ttl, len(change.appends), len(pairs) // 2, len(dropped), self._raw_expire)
        return self._link.write(names, *counts, *appends, *pairs, *dropped)

    def _turned(self, changes: Sequence[Change], watermark: Instant) -> list[Change]:
        """Return the changes of entities whose fence enters another hour or so."""
        step = self._plan.ladder[min(1, self._plan.tiles.top)]
        turn = watermark // step
        return [
            change
            for change in changes
            if change.entity.header.fence // step < turn and change.entity.header.max_event_time >= 0
        ]

    def _expired(self, turned: Sequence[Change], watermark: Instant) -> Drops:
        """Forget sealed tiles here, and find those in Redis that are out of reach."""
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
