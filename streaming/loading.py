"""What a writer must know of entities before it can write them: claimed, and fetched from Redis."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from rtml.instants import SECOND
from rtml.online import keys
from rtml.online.codec import RAW, Header, Records, raw_count
from rtml.online.codec import field as field_name
from rtml.online.commands import Command
from rtml.online.tail import TAIL, joined, states_above
from streaming.change import Change
from streaming.entity import Entity, Hot, Run, all_unknown
from streaming.link import Link
from streaming.route import ViewBatch
from streaming.scripts import generation_bytes
from streaming.versions import Version

CACHED_ENTITIES = 120_000
"""How many entities of a view a process remembers at most."""
CACHED_BYTES = 512 << 20
"""About how many bytes of tiles it remembers of a view whose states are large: these may be kilobytes each."""

Work = dict[str, list[Run]]
"""What a micro-batch has for each entity, by its tag."""


class Loader:
    """One version's entities, as many as are remembered; the others are claimed when events of theirs come."""

    def __init__(self, link: Link, version: Version, generation: int, counts: Counter[str]) -> None:
        """Claim for a generation."""
        self._link = link
        self._plan = version.plan
        self._own = (TAIL,) if version.plan.tailed else ()
        self._suffix = keys.versioned(version.view, version.version)
        self._claim = (generation_bytes(generation), Header(generation).encode(), version.plan.expire_after // SECOND)
        self._counts = counts
        self.entities: OrderedDict[str, Entity] = OrderedDict()
        self._bytes = 0

    def load(self, batch: ViewBatch, work: Work) -> Work:
        """Claim and fetch all that events need; leave out, and count, those that are behind an entity's fence."""
        self._load_tiles(batch, work)
        opened, hot = {}, []
        for tag, runs in work.items():
            self.entities.move_to_end(tag)
            entity = self.entities[tag]
            found = self._before_fence(batch, entity, runs)
            if not found:
                continue
            opened[tag] = found
            hot += [(tag, run[0]) for run in found if _joins_hot(entity, batch, run[0])]
        self._load_raw(batch, hot)
        return opened

    def forget(self, changed: Iterable[str]) -> None:
        """Forget the entities that have had no events for longest, if they are too many, or too large."""
        if self._plan.tailed:
            for tag in changed:
                entity = self.entities[tag]
                size = sum([len(value) for value in entity.tiles.values() if value])
                self._bytes += size - entity.size
                entity.size = size
        while len(self.entities) > CACHED_ENTITIES or self._bytes > CACHED_BYTES:
            _, entity = self.entities.popitem(last=False)
            self._bytes -= entity.size

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
        commands: list[Command] = []
        stranger = Entity(Header())
        mark, fresh, expire = self._claim
        for tag, runs in work.items():
            entity = self.entities.get(tag)
            names = all_unknown(entity or stranger, batch, runs)
            if entity is None:
                commands.append(self._link.claim(tag + self._suffix, mark, fresh, expire, *self._own, *names))
            elif names:
                commands.append(("HMGET", tag + self._suffix, *names))
            else:
                continue
            asked.append((tag, entity, names))
        misses = 0
        for (tag, known, names), reply in zip(asked, self._link.run(commands), strict=True):
            entity, values = known, reply
            if entity is None:
                misses += 1
                own = 1 + len(self._own)
                entity = self.entities[tag] = Entity(Header.decode(reply[0]), *reply[1:own])
                values = reply[own:]
            entity.tiles.update(zip(names, values, strict=True))
        self._counts.update(cache_hits=len(work) - misses, cache_misses=misses)

    def _before_fence(self, batch: ViewBatch, entity: Entity, runs: list[Run]) -> list[Run]:
        """Leave out what is behind the fence: it was applied before."""
        fence = entity.header.fence
        if fence < 0:
            return runs
        sealed = (fence - self._plan.lateness) // self._plan.tiles.finest
        found = [run for run in runs if batch.finest[run[0]] >= sealed]
        if len(found) < len(runs):
            self._counts["fenced"] += sum(map(len, runs)) - sum(map(len, found))
        return found

    def _load_raw(self, batch: ViewBatch, hot: list[tuple[str, int]]) -> None:
        """Fetch the raw records of hot finest tiles that events join."""
        layout = Records.of(self._plan)
        width, payload = layout.narrow.itemsize, layout.wide.itemsize - 16
        finest = batch.fields_from_top[-1][1]
        asked = []
        for tag, row in hot:
            entity, index = self.entities[tag], batch.finest[row]
            if index not in entity.raw:
                count = raw_count(entity.tiles[finest[row]] or b"") + joined(self._plan, entity.tail, index)
                asked.append((tag, index, count))
        commands: list[Command] = [
            ("GETRANGE", keys.raw(tag + self._suffix, index), 0, count * width - 1) for tag, index, count in asked
        ]
        for (tag, index, count), data in zip(asked, self._link.run(commands), strict=True):
            found = self.entities[tag].raw[index] = Hot(data, width, payload, count)
            self._counts["damaged"] += found.damaged


def _joins_hot(entity: Entity, batch: ViewBatch, row: int) -> bool:
    for _, names in batch.fields_from_top:
        value = entity.tiles[names[row]]
        if value is None or value[0] == RAW:
            return False
    return True
