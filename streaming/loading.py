"""What a writer must know of entities before it can write them: claimed, and fetched from Redis."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from rtml.online import keys
from rtml.online.codec import RAW, Header, Records, raw_count
from rtml.online.codec import field as field_name
from rtml.online.commands import Command
from rtml.online.tail import TAIL, joined, states_above
from streaming.change import Change
from streaming.entity import Entity, Run, all_unknown
from streaming.hot import Hot
from streaming.link import Link
from streaming.packing import Packer
from streaming.route import ViewBatch
from streaming.versions import Version

CACHED_ENTITIES = 120_000
"""How many entities of a view a process remembers at most."""
CACHED_BYTES = 512 << 20
"""About how many bytes they may take: states may be kilobytes each, and the raw records of hot tiles are many."""
WEIGHED_EVERY = 10.0
"""How often an entity is weighed whose states are small, in seconds, and what is sealed of it forgotten."""

Work = dict[str, list[Run]]
"""What a micro-batch has for each entity, by its tag."""


class Loader:
    """One version's entities, as many as are remembered; the others are claimed when events of theirs come."""

    def __init__(self, link: Link, version: Version, packer: Packer, counts: Counter[str]) -> None:
        """Count the damaged ones into `counts`."""
        self._link = link
        self._plan = version.plan
        self._packer = packer
        self._own = (TAIL,) if version.plan.tailed else ()
        self._suffix = keys.versioned(version.view, version.version)
        self._counts = counts
        self.entities: OrderedDict[str, Entity] = OrderedDict()
        self._bytes = 0

    def load(self, batch: ViewBatch, work: Work) -> None:
        """Claim the entities that are not remembered, and fetch what else their events need."""
        self._load_tiles(batch, work)
        opened = {tag: self.entities[tag].open_runs(self._plan, batch, runs) for tag, runs in work.items()}
        self._load_raw(batch, [(tag, run[0]) for tag, runs in opened.items() for run in runs])

    def forget(self, seen: Iterable[str], now: float) -> None:
        """Forget entities that have had no events for long, if they are too many, or too large (the CLOCK rule).

        `seen` are those that may be larger by now.
        """
        self._weigh(seen, now)
        while len(self.entities) > CACHED_ENTITIES or self._bytes > CACHED_BYTES:
            tag, entity = self.entities.popitem(last=False)
            if entity.wanted:
                entity.wanted = False
                self.entities[tag] = entity
            else:
                self._bytes -= entity.size

    def _weigh(self, tags: Iterable[str], now: float) -> None:
        entities, before = self.entities, now - (0 if self._plan.tailed else WEIGHED_EVERY)
        for tag in tags:
            entity = entities[tag]
            if entity.weighed <= before:
                self._bytes -= entity.size
                if not self._plan.tailed:  # the states above a tail are wanted again when it is folded
                    entity.forget_sealed(self._plan, entity.fence)
                entity.weigh(now)
                self._bytes += entity.size

    def load_above_tails(self, changes: Sequence[Change]) -> None:
        """Fetch the states that tails are about to be folded into."""
        asked = []
        for change in changes:
            tiles = change.entity.tiles
            above = [field_name(tile) for tile, _ in states_above(self._plan, change.entity.tail)]
            if names := [name for name in above if name not in tiles]:
                asked.append((change, names))
        commands: list[Command] = [("HMGET", change.tag + self._suffix, *names) for change, names in asked]
        for (change, names), reply in zip(asked, self._link.run(commands), strict=True):
            change.entity.tiles.update(zip(names, reply, strict=True))

    def _load_tiles(self, batch: ViewBatch, work: Work) -> None:
        asked: list[tuple[str, Entity | None, list[bytes]]] = []
        commands: list[Command | bytes] = []
        stranger = Entity(Header())
        for tag, runs in work.items():
            entity = self.entities.get(tag)
            names = all_unknown(entity or stranger, batch, runs)
            if entity is None:
                commands.append(self._packer.claim((tag + self._suffix).encode(), (*self._own, *names)))
            elif names:
                commands.append(("HMGET", tag + self._suffix, *names))
            else:
                continue
            asked.append((tag, entity, names))
        own = 1 + len(self._own)
        for (tag, known, names), reply in zip(asked, self._link.run(commands), strict=True):
            entity, values = known, reply
            if entity is None:
                entity = self.entities[tag] = Entity(Header.decode(reply[0]), *reply[1:own])
                values = reply[own:]
            entity.tiles.update(zip(names, values, strict=True))

    def _load_raw(self, batch: ViewBatch, rows: Sequence[tuple[str, int]]) -> None:
        """Fetch the raw records of hot finest tiles that events join."""
        layout = Records.of(self._plan)
        width, payload = layout.narrow.itemsize, layout.wide.itemsize - 16
        finest = batch.fields_from_top[-1][1]
        asked = []
        for tag, row in rows:
            entity, index = self.entities[tag], batch.finest[row]
            value = entity.tiles.get(finest[row])
            if value is not None and value[0] != RAW and entity.hot(index) is None:
                asked.append((tag, index, raw_count(value) + joined(self._plan, entity.tail, index)))
        commands: list[Command] = [
            ("GETRANGE", keys.raw(tag + self._suffix, index), 0, count * width - 1) for tag, index, count in asked
        ]
        for (tag, index, count), data in zip(asked, self._link.run(commands), strict=True):
            found = Hot(data, width, payload, count)
            self.entities[tag].heat(index, found)
            self._counts["damaged"] += found.damaged
