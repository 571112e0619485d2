"""A random schedule over one lake and one Redis: a stream that dies, a mirror, compactions, builds, and all who read.

Everything runs in this process, from the gate to the server's lookup, so that it can be stopped between any two
commands. What is compared is the oracle's, feature by feature.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import redis

from rtml.columns import TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, Instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.publish import publish
from rtml_assets.tables.seen import published_at
from rtml_assets.tables.stream_parity import stream_versus_batch
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.tables.tiles import compact_tiles
from rtml_assets.tables.touched import touched_days
from rtml_assets.tables.training_set import TrainingSet
from serving.features import Lookup, prepare
from serving.reader import Turns
from serving.state import ServingState, Snapshot
from streaming.adoption import Adoption
from streaming.broker import RestartRequiredError
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.mirror import Mirror
from streaming.positions import Position, raise_position
from streaming.route import Router
from streaming.tile_writer import TileWriter
from streaming.versions import Version, read_version, request_rebuild
from tests import oracle
from tests.end_to_end.catalog_of import Drawn, draw_catalog
from tests.end_to_end.readings_of import KEYS, draw_readings, entries
from tests.oracle import Event
from tests.streaming.test_lifetimes import MortalRedis, die
from tests.streaming.test_protocol import KilledError, MortalLink

SHARDS = set(range(keys.SHARDS))
IMMORTAL = 10**9
NEVER = 2**63 - 1


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


class Schedule:
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
        self.asked: list[Instant] = []
        self.tally: Counter[str] = Counter()
        self.aggregates = self.drawn.aggregates
        self.turns, self.state = Turns(), ServingState(client)
        self.seen: Snapshot | None = None
        client.set(keys.replay_time(self.source.name), 1)
        self.trimmed = [0, 0]
        self.fill_stream()
        self.process = self.begin()

    def run(self) -> Counter[str]:
        """Play it to its end, and compare all roads once more there."""
        while True:
            while live := [p for p in (0, 1) if self.position[p] < len(self.partitions[p])]:
                self.step(self.rng.choice(live))
            self.take_snapshot()
            self.compact(whole=True)
            if not self.process.adoption.has_news():
                break
            self.restart()
        for _ in range(3):
            self.check()
        self.train()
        if self.rng.random() < 0.25:
            self.hold_tiles()
        self.process.link.close()
        return self.tally

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
        self.trimmed = [min(both) for both in zip(self.snapshot, self.mirrored, strict=True)]
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
        if self.position == self.highest and self.rng.random() < 0.6:
            self.check()

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
        known = {_arrival(e): e for events in self.gate for e in events}
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

    # Who reads

    def check(self) -> None:
        """Ask a server at an instant that may still be asked for: all entities at once, or each by itself."""
        fresh = self.state.refresh()
        snapshot = fresh
        if self.seen and self.seen.services and self.rng.random() < 0.3 and _names(self.seen) == _names(fresh):
            snapshot = self.seen
        self.seen = fresh
        service = snapshot.services.get(self.drawn.service)
        if service is None or not all(fresh.live.get(view.name) for view in self.drawn.views):
            return
        for at in {self.instant(fresh, fresh.versions(service)) for _ in range(3)}:
            asked = [list(KEYS)] if self.rng.random() < 0.5 else [[key] for key in KEYS]
            for some in asked:
                self.read(snapshot, fresh, some, at)
            self.asked.append(at)

    def instant(self, snapshot: Snapshot, versions: Sequence[Version]) -> Instant:
        newest = max(e.ingested for p in (0, 1) for e in self.partitions[p][: self.position[p]])
        reach = max(snapshot.reach(version) for version in versions)
        # Where nothing counts as servable yet, late events are kept for those who ask for the mirror's present.
        known = reach - self.source.lateness_us if reach != BEGINNING else max(*self.marks(self.mirrored), newest)
        earliest = max(known, *(version.boundary for version in versions))
        plan = self.rng.choice([version.plan for version in versions])
        span = self.rng.choice(plan.windows)
        edges = [e.time + self.rng.choice([0, min(span.reach, 10**11), span.offset]) for e in self.applied()]
        choices = [newest, newest + 1, earliest, self.rng.randint(min(earliest, newest), newest)]
        choices += [self.rng.choice(edges) + self.rng.randrange(2) for _ in range(3)]
        return max(earliest, self.rng.choice(choices))

    def applied(self) -> list[Event]:
        return [e for p in (0, 1) for e in self.partitions[p][: self.position[p]]]

    def read(self, snapshot: Snapshot, fresh: Snapshot, some: Sequence[str], at: Instant) -> None:
        rows = [{"key": key} for key in some]
        if self.rng.random() < 0.3:
            self.turns = Turns()  # another server: it remembers nothing
        lookup = prepare(snapshot, self.turns, self.drawn.service, rows, at, "wall_clock", 0)
        self.fetch(lookup)
        vectors = lookup.vectors()
        self.tally["reads"] += len(some)
        for version in lookup.question.versions:
            latest = fresh.live[version.view][version.plan.fingerprint]
            truths = self.servable([version, latest])
            assert "damaged" not in vectors.status[version.view]
            for row, key in enumerate(some):
                got = dict(zip(vectors.features, vectors.rows[row], strict=True))
                self.compare_any("online", version.plan, got, key, at, truths)

    def fetch(self, lookup: Lookup) -> None:
        while lookup.unfinished:
            pipeline = self.client.pipeline(transaction=False)
            for command in lookup.commands():
                pipeline.execute_command(*command)
            lookup.absorb(pipeline.execute())
        for _ in lookup.merge(self.rng.randrange(1, 4)):
            pass
        if commands := lookup.strings.commands():
            self.tally["texts read"] += len(commands)
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            lookup.strings.absorb(pipeline.execute())

    def servable(self, found: Sequence[Version]) -> list[list[Event]]:
        """Return what may be counted: with what was published by when, where publishers died."""
        boundary, caught_up_to, lateness = found[0].boundary, found[0].caught_up_to, self.source.lateness_us
        good = [e for events in self.gate for e in events]
        came = {_arrival(e) for e in self.applied()}
        here = [e for e in good if e.time < boundary or e.ingested <= caught_up_to or _arrival(e) in came]
        on_time = oracle.counted(here, lateness)
        late = [e for e in oracle.counted(good, lateness, late_too=True) if e.ingested - e.time > lateness]
        least = min(version.published_to for version in found)
        bounds = {version.published_to for version in found}
        bounds |= {bound for bound in self.doubtful.get(found[0].view, []) if bound > least}
        return [[*on_time, *(e for e in late if e.ingested <= bound)] for bound in sorted(bounds)]

    def compare_any(
        self, road: str, plan: Plan, got: dict[str, Any], key: str, at: Instant, truths: list[list[Event]]
    ) -> None:
        """Compare one entity's features with the oracle's over one of several truths."""
        wrong: list[str] = []
        for truth in truths:
            wrong = list(_wrong(road, plan, got, key, at, truth))
            if not wrong:
                break
        assert not wrong, f"{wrong[0]}\n{plan.raw_limit=} {plan.ladder=} {plan.lateness=}"
        self.tally[f"{road} values"] += len(plan.features)

    def train(self) -> None:
        """Build training sets, at instants that were asked and at others, and compare them."""
        if not self.compacted:
            return
        times = [event.time for event in self.compacted]
        at = [*self.asked[-4:], *(self.rng.choice(times) + self.rng.choice([0, 1, 10**8]) for _ in range(4))]
        rows = [(key, one) for one in at for key in KEYS]
        self.rng.shuffle(rows)
        stamps = pl.Series([one for _, one in rows], dtype=pl.Int64).cast(TIMESTAMP)
        spine = pl.DataFrame({"key": [key for key, _ in rows], "timestamp": stamps})
        for road in ("serving", "hindsight"):
            training = TrainingSet.of(self.lake, self.drawn.registry, self.drawn.service, road)
            found = training.compute(training.check(spine)).to_dicts()
            for view in self.drawn.views:
                known = self.known(road, view)
                for (key, one), row in zip(rows, found, strict=True):
                    plan = self.drawn.registry.plans[view.name]
                    truth = [e for e, since in known if since <= one]
                    self.compare_any(road, plan, row, key, one, [truth])

    def hold_tiles(self) -> None:
        """Build a view's `tiles/`, and hold them against its events and against what a stream writes of them."""
        view = self.rng.choice(self.drawn.views)
        plan = self.drawn.registry.plans[view.name]
        days = list(rows_by_day(open_table(self.lake.events(self.source.name))))
        compact_tiles(self.lake, view, plan, days)
        for day in days:
            for parity in (
                tiles_versus_events(self.lake, view, plan, day),
                stream_versus_batch(self.lake, self.client, view, plan, day),
            ):
                assert parity.agrees, parity
                self.tally["tile values"] += parity.total("compared")

    def known(self, road: str, view: StreamFeatureView) -> list[tuple[Event, Instant]]:
        """Return the events of a view, each with the instant from when on it may count."""
        if road == "hindsight":
            return [(e, BEGINNING) for e in self.compacted]
        days = list(rows_by_day(open_table(self.lake.events(self.source.name))))
        rows = published_at(self.lake, view, days).select("event_time", "id64", "published_at").rows()
        since = {(time, number): at for time, number, at in rows}
        late = self.source.lateness_us
        return [
            (e, e.ingested if e.ingested - e.time <= late else since.get((e.time, e.id64), NEVER))
            for e in self.compacted
        ]


def _arrival(event: Event) -> tuple[str, Instant]:
    return event.values["ref"], event.ingested


def _names(snapshot: Snapshot) -> dict[str, list[str]]:
    return {view: [version.version for version in found.values()] for view, found in snapshot.live.items()}


def _wrong(road: str, plan: Plan, got: dict[str, Any], key: str, at: Instant, truth: list[Event]) -> Iterator[str]:
    for feature in plan.features:
        floor = 1 if feature.exact else plan.tiles.finest
        events = oracle.window(truth, key, at, feature.window, floor, feature.offset)
        told = dict(feature.parameters), feature.span.edges(at, plan.tiles.finest)
        expected = oracle.value(feature.aggregate, events, feature.column, *told)
        value = got[f"{plan.view}__{feature.name}"]
        if not oracle.agree(feature.aggregate, value, expected, events, feature.column, *told):
            yield (
                f"{road}: {feature.aggregate}({feature.column}, {told}) of {key!r} at {at}: got {value}, expected "
                f"{expected} of {len(events)} events: {events[-3:]}"
            )
