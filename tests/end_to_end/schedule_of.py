"""A random schedule of all roads over one lake and one Redis, and all who read of them, compared with the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from rtml.columns import TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, Instant
from rtml.lake import Lake
from rtml.plan import Plan
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.seen import published_at
from rtml_assets.tables.stream_parity import stream_versus_batch
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.tables.tiles import compact_tiles
from rtml_assets.tables.training_set import TrainingSet
from serving.features import Lookup, prepare
from serving.reader import Turns
from serving.state import ServingState, Snapshot
from streaming.versions import Version
from tests import oracle
from tests.end_to_end.readings_of import KEYS
from tests.end_to_end.roads_of import Roads, arrival
from tests.oracle import Event
from tests.streaming.test_lifetimes import MortalRedis

NEVER = 2**63 - 1


class Schedule(Roads):
    """One example, from its first event to its last."""

    def __init__(self, client: MortalRedis, lake: Lake, seed: int, size: int | None = None) -> None:
        """Draw definitions and events; `size` takes so many events only."""
        super().__init__(client, lake, seed, size)
        self.asked: list[Instant] = []
        self.turns, self.state = Turns(), ServingState(client)
        self.seen: Snapshot | None = None

    def run(self) -> Counter[str]:
        """Play it to its end, and compare all roads once more there."""
        while True:
            while live := [p for p in (0, 1) if self.position[p] < len(self.partitions[p])]:
                self.step(self.rng.choice(live))
                if self.position == self.highest and self.rng.random() < 0.6:
                    self.check()
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
        # Where nothing counts as servable yet, nothing is out of reach.
        oldest = min(e.time for e in self.applied())
        reaches = [snapshot.reach(version) for version in versions]
        known = [oldest if reach == BEGINNING else reach - self.source.lateness_us for reach in reaches]
        earliest = max(*known, *(version.boundary for version in versions))
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
        came = {arrival(e) for e in self.applied()}
        here = [e for e in good if e.time < boundary or e.ingested <= caught_up_to or arrival(e) in came]
        on_time = oracle.counted(here, lateness)
        late = [e for e in oracle.counted(good, lateness, late_too=True) if e.ingested - e.time > lateness]
        least = min(version.published_to for version in found)
        bounds = {version.published_to for version in found}
        bounds |= {bound for bound in self.doubtful.get(found[0].view, []) if bound > least}
        return [[*on_time, *(e for e in late if e.ingested <= bound)] for bound in sorted(bounds)]

    def compare_any(
        self, road: str, plan: Plan, got: dict[str, Any], key: str, at: Instant, truths: list[list[Event]]
    ) -> None:
        """Compare one entity's features with the oracle's over one of several truths, or a mixture of them by salt."""
        wrong: list[str] = []
        for truth in oracle.mixtures(truths, key, plan.salts):
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
