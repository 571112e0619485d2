"""The roads of one example, each going on by itself: a stream that dies, a mirror, compactions, builds.

Everything runs in this process, from the gate to the script in Redis, so that it can be stopped between any two
commands.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import redis

from rtml.instants import BEGINNING, Instant
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.publish import publish
from rtml_assets.tables.touched import touched_days
from streaming.adoption import Adoption
from streaming.broker import RestartRequiredError
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.mirror import Mirror
from streaming.positions import Position, raise_position
from streaming.route import Router
from streaming.tile_writer import TileWriter
from streaming.versions import Version, read_version, request_rebuild
from tests.end_to_end.catalog_of import Drawn, draw_catalog
from tests.end_to_end.readings_of import draw_readings, entries
from tests.oracle import Event
from tests.streaming.test_lifetimes import MortalRedis, die
from tests.streaming.test_protocol import KilledError, MortalLink

SHARDS = set(range(keys.SHARDS))
IMMORTAL = 10**9


class Process:
    """One process of the tiles flow: the versions that it writes, its generation and caches."""

    def __init__(self, client: redis.Redis, drawn: Drawn) -> None:
        self.link = MortalLink(client)
        self.adoption = Adoption(client, drawn.registry, drawn.source)
        self._gate = Gate(drawn.source)
        self._router = Router(drawn.source, self.adoption.views)
        self._writer = TileWriter(self.link, int(client.incr(keys.GENERATION)))

    def apply(self, partition: int, events: Sequence[Event], start: int, watermark: Instant) -> Counter[str]:
        """Write a micro-batch."""
        routed = self._router(self._gate(entries(partition, events, start)))
        counts = self._writer.apply(routed.micro_batch, SHARDS, watermark)
        self.link.drain()
        return counts + routed.counts


@dataclass(frozen=True)
class Asleep:
    """A process that was paused in the middle of a micro-batch."""

    process: Process
    partition: int
    events: Sequence[Event]
    start: int
    watermark: Instant


class Roads:
    """One example: what was drawn, how far each road has come, and what was counted."""

    def __init__(self, client: MortalRedis, lake: Lake, seed: int, size: int | None = None) -> None:
        """Draw definitions and events; `size` takes so many events only."""
        self.rng = random.Random(seed)
        self.client, self.lake = client, lake
        self.drawn = draw_catalog(self.rng, seed)
        self.source = self.drawn.source
        count = self.rng.choice([5, 40, 120, 250])
        lateness, skew = self.source.lateness_us, self.source.skew_us
        self.partitions = draw_readings(self.rng, lateness, skew, min(count, size or count))
        self.gate = [[e for e in events if e.time - e.ingested <= skew] for events in self.partitions]
        self.last = max(event.ingested for events in self.partitions for event in events)
        self.position, self.snapshot, self.highest = [0, 0], [0, 0], [0, 0]
        self.covered = [BEGINNING, BEGINNING]
        self.mirrored = [0, 0]
        self.compacted: list[Event] = []
        self.doubtful: dict[str, list[Instant]] = {}
        """By view: up to when late events may have been published by publishers that died."""
        self.kills = self.rng.randrange(4)
        self.asleep: Asleep | None = None
        self.tally: Counter[str] = Counter()
        self.aggregates = self.drawn.aggregates
        client.set(keys.replay_time(self.source.name), 1)
        self.trimmed = [0, 0]
        self.fill_stream()
        self.process = self.begin()

    # The stream

    def fill_stream(self) -> None:
        """Have the stream hold all entries from the start; who reads them decides when they come."""
        pipeline = self.client.pipeline(transaction=False)
        for partition, events in enumerate(self.partitions):
            held = entries(partition, events, 0)
            for offset, stamp, payload in zip(held.offsets, held.ingested_at, held.payloads, strict=True):
                fields: Any = {"data": payload, "ingested_at": stamp}
                pipeline.xadd(self.source.stream.key(partition), fields, id=offset)
        redis.client.Pipeline.execute(pipeline)

    def trim(self) -> None:
        """Let the stream forget what both flows have behind them: new builds begin with what the lake holds."""
        behind = min(self.marks(self.mirrored))
        # The oldest entry that is left is in the lake of every partition: what is kept for an hour always is.
        old = [max(0, sum(e.ingested <= behind for e in events) - 1) for events in self.partitions]
        self.trimmed = [min(all_three) for all_three in zip(self.snapshot, self.mirrored, old, strict=True)]
        self.client.set(keys.trimmed(self.source.name), 1)
        for partition, first in enumerate(self.trimmed):
            self.client.xtrim(self.source.stream.key(partition), minid=f"{first + 1}-0", approximate=False)
        self.tally["trims"] += 1

    def begin(self) -> Process:
        """Start a process; it goes back as far as it was told to, or further."""
        process = Process(self.client, self.drawn)
        deep = self.rng.random() < 0.5
        self.position = [self.rng.randrange(done + 1) if deep else done for done in self.snapshot]
        if self.client.exists(keys.rewinding(self.source.name)):
            self.position = [0, 0]
            self.tally["rewinds"] += 1
        self.position = [max(both) for both in zip(self.position, self.trimmed, strict=True)]
        self.snapshot, self.covered = list(self.position), [BEGINNING, BEGINNING]
        return process

    def restart(self) -> None:
        self.process.link.close()
        self.process = self.begin()

    def step(self, partition: int) -> None:
        start = self.position[partition]
        batch = self.partitions[partition][start : start + self.rng.randrange(1, 30)]
        dying = self.kills and self.rng.random() < 0.2
        self.process.link.left = self.rng.randrange(12) if dying else IMMORTAL
        self.highest[partition] = max(self.highest[partition], start + len(batch))
        try:
            self.tally += self.process.apply(partition, batch, start, min(self.covered))
        except KilledError:
            self.fall(Asleep(self.process, partition, batch, start, min(self.covered)))
            return
        self.position[partition] += len(batch)
        if self.position == self.highest:
            self.catch_up()
        if self.rng.random() < 0.3:
            self.take_snapshot()
            if self.rng.random() < 0.5:
                self.go_on()
        if self.asleep and self.rng.random() < 0.3:
            self.wake(self.asleep)

    def fall(self, killed: Asleep) -> None:
        """A new process takes over; the old one may only have been paused."""
        self.kills -= 1
        self.tally["kills"] += 1
        if self.rng.random() < 0.5 and not self.asleep:
            self.asleep = killed
        else:
            killed.process.link.close()
        self.process = self.begin()

    def wake(self, asleep: Asleep) -> None:
        """It goes on where it was, with its old cache; it must be refused, or do no harm."""
        self.asleep = None
        asleep.process.link.left = IMMORTAL
        asleep.process.link.forget()
        try:
            asleep.process.apply(asleep.partition, asleep.events, asleep.start, asleep.watermark)
        except RestartRequiredError:
            self.tally["refused writers"] += 1
        asleep.process.link.close()

    def catch_up(self) -> None:
        """All that was read before is read again: what waited for it goes live."""
        if self.client.delete(keys.rewinding(self.source.name)):
            self.process.adoption.go_live()
            self.tally["promotions"] += 1

    def take_snapshot(self) -> None:
        """Close an epoch: what was written counts."""
        self.snapshot = list(self.position)
        self.covered = self.marks(self.position)
        self.note(keys.position(self.source.name), self.position)

    def go_on(self) -> None:
        """Let the other roads go on; where they made a version that is to be written, a new process does so."""
        self.compact()
        if self.rng.random() < 0.15 and not self.client.exists(keys.rewinding(self.source.name)):
            self.trim()
        if self.process.adoption.has_news():
            self.restart()

    def marks(self, done: Sequence[int]) -> list[Instant]:
        """Return up to when each partition was read."""
        return [self._mark(events, read) for events, read in zip(self.partitions, done, strict=True)]

    def _mark(self, events: Sequence[Event], read: int) -> Instant:
        return self.last if read == len(events) else events[read - 1].ingested if read else BEGINNING

    def note(self, key: str, done: Sequence[int]) -> None:
        for partition, reached in enumerate(self.marks(done)):
            if reached != BEGINNING:
                raise_position(self.client, key, partition, Position(f"{done[partition]}-0", reached))

    # The mirror, and what follows it

    def compact(self, *, whole: bool = False) -> None:
        """Mirror on, compact, and publish every view; publishers may die, builds be asked for."""
        self.mirror(whole=whole)
        days = touched_days(self.lake, self.source)
        if days:
            compact_events(self.lake, self.source, days)
            self.compacted = self.mirrored_events()
        self.tally["compactions"] += 1
        for view in self.drawn.views:
            self.publish(view.name, sure=whole)

    def mirror(self, *, whole: bool) -> None:
        """It may be ahead of the stream or behind it, and die before it appends, or after."""
        for _ in range(1 if whole else self.rng.choice([1, 1, 2])):
            mirror = Mirror(self.client, self.lake, self.source, Figures(self.source.name, "mirror"))
            reached = list(self.mirrored)
            for partition, events in enumerate(self.partitions):
                start, rest = reached[partition], len(events) - reached[partition]
                more = rest if whole else self.rng.randrange(min(rest, 80) + 1)
                gate = Gate(self.source)
                if more:
                    mirror.take(gate(entries(partition, events[start : start + more], start)))
                reached[partition] += more
            died = not whole and self.rng.random() < 0.2
            if died and self.rng.random() < 0.5:
                continue
            mirror.flush()
            if not died:
                self.mirrored = reached
                self.note(keys.mirrored(self.source.name), reached)

    def mirrored_events(self) -> list[Event]:
        """Return what `events/` is to hold."""
        stored = pl.read_delta(self.lake.events(self.source.name)).select("ref", "ingested_at")
        known = {arrival(e): e for events in self.gate for e in events}
        return [known[ref, int(at.timestamp() * 1_000_000)] for ref, at in stored.rows()]

    def publish(self, view: str, *, sure: bool) -> None:
        """Publish one view; a build may be asked for, and the publisher die between any two commands."""
        plan, found = self.drawn.registry.plans[view], self.live(view)
        if found is not None and not sure and self.rng.random() < 0.3:
            request_rebuild(self.client, found)
            self.tally["builds"] += 1
        if not sure and self.rng.random() < 0.3:
            self.client.left, self.client.interrupt = self.rng.randrange(self.rng.choice([10, 25, 60])), die
        try:
            published = publish(self.lake, self.client, self.drawn.registry.views[view], plan)
            self.tally["caught up"] += published.caught_up
            self.tally["late published"] += published.remembered
        except KilledError:
            self.client.left, self.client.interrupt = IMMORTAL, None
            self.tally["publishers killed"] += 1
            self.client.delete(keys.publishing(view))  # as it would be after a while
            self.doubtful.setdefault(view, []).append(min(self.marks(self.mirrored)))
        finally:
            self.client.left, self.client.interrupt = IMMORTAL, None

    def live(self, view: str) -> Version | None:
        names: Any = self.client.hvals(keys.live(view))
        return read_version(self.client, view, names[0].decode()) if names else None


def arrival(event: Event) -> tuple[str, Instant]:
    """Return what tells an arrival from all others."""
    return event.values["ref"], event.ingested
