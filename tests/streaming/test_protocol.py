"""The online protocol under fire: writer and reader alone over a real Redis, against the oracle.

Two interleaved partitions, duplicates, ties, disorder, late and future events; kills between any two commands, rewinds
of any depth, and a paused old writer that wakes beside its successor. Heartbeats travel among the events: what is noted
of them never goes back, and never runs ahead of what is written.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import polars as pl
import pytest
import redis

import rtml
from rtml.columns import TIMESTAMP
from rtml.define.feature import Aggregation
from rtml.instants import BEGINNING, SECOND
from rtml.online import keys
from rtml.online.codec import Header
from rtml.online.salts import partial_tags
from rtml.online.texts import out_of_reach, text_of
from rtml.plan import Plan, PlannedFeature
from rtml.registry import Registry
from serving.reader import Turns, ViewLookup
from streaming import loading
from streaming.broker import RestartRequiredError
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated
from streaming.heartbeats import Heard, note, parse_heard
from streaming.link import Link
from streaming.route import Router
from streaming.tile_writer import TileWriter
from streaming.versions import Version
from tests import oracle
from tests.oracle import Event

READS = int(os.environ.get("TRIAL_READS", "4500"))
"""After so many reads it is enough."""
LATENESS, SKEW = 15 * SECOND, 3 * SECOND
KEYS = ("a", "b|{c}", "")


class Message(rtml.Event):
    at: rtml.Timestamp
    key: str
    x: float = rtml.Field(nullable=True)
    n: int
    s: str = rtml.Field(nullable=True)


SOURCE = rtml.EventSource(
    name="messages", schema=Message, timestamp="at", stream=rtml.RedisStream("messages", 2), lateness="15s", skew="3s"
)


def view(name: str, tail: str | None, windows: list[str | rtml.Window], *more: Aggregation) -> rtml.StreamFeatureView:
    return rtml.StreamFeatureView(
        name=name,
        source=SOURCE,
        entity=rtml.Entity("key"),
        tail=tail,  # type: ignore[arg-type]
        ladder=["10s", "1m", "6m"],
        features=[
            rtml.Count(windows=windows),
            rtml.Sum("x", windows=windows),
            rtml.Mean("x", windows=windows),
            rtml.Min("n", windows=windows),
            rtml.Max("x", windows=windows),
            rtml.Stddev("x", windows=windows),
            rtml.First("n", windows=windows),
            rtml.Last("x", windows=windows),
            rtml.LastN("x", n=3, windows=windows[1:3]),
            rtml.LastDistinctN("n", n=4, windows=windows[1:3]),
            rtml.DecayedSum("x", half_life="1m", windows=windows[1:3]),
            rtml.First("s", windows=windows),
            rtml.LastDistinctN("s", n=3, windows=windows[1:]),
            *more,
        ],
    )


WINDOWS = ["20s", "90s", "400s", "1000s"]
EXACT = view("exact", "exact", [*WINDOWS])
TILE = view("tile", "tile", [*WINDOWS, rtml.Window("90s", offset="20s"), rtml.Window("400s", offset="800s")])
LIFE = view("life", None, ["90s", "lifetime", rtml.Window("50s", offset="60s")])
# States with sets, which the stream does not write with every event.
SETS = view(
    "sets",
    None,
    [*WINDOWS],
    rtml.CountDistinct("n", windows=[*WINDOWS, rtml.Window("90s", offset="60s")]),
    rtml.CountDistinct("s", windows=WINDOWS[:1]),
)
HEAVY = replace(LIFE, name="heavy", features=[rtml.Count(["lifetime"]), rtml.CountDistinct("n", ["90s", "lifetime"])])
VIEWS = [EXACT, TILE, LIFE, SETS]
REGISTRY = Registry.of([*VIEWS, HEAVY])


def window(plan: Plan, feature: PlannedFeature, truth: list[Event], key: str, at: int) -> list[Event]:
    """The events that a feature counts."""
    return oracle.window(truth, key, at, feature.window, 1 if feature.exact else plan.tiles.finest, feature.offset)


def salts_of(seed: int) -> int:
    """Every fourth trial spreads its entities over partial states."""
    return 3 if seed % 4 == 3 else 1


class KilledError(Exception):
    """The process died here."""


class MortalLink(Link):
    """A link that sends one command at a time, and dies when it has none left to live for."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.left = 10**9

    def forget(self) -> None:
        """What was under way when it was paused was never sent."""
        self._posted, self._replies = [], []

    def _send(self, commands: Sequence[tuple[Any, ...] | bytes], *, wait: bool = False) -> None:
        del wait
        for command in commands:
            if self.left <= 0:
                raise KilledError
            self.left -= 1
            super()._send([command], wait=True)


def generate(rng: random.Random, count: int) -> list[Event]:
    """Events in order of arrival."""
    events: list[Event] = []
    now = 1_000 * SECOND
    while len(events) < count:
        now += int(rng.expovariate(1 / rng.choice([50_000, 400_000, 9_000_000])))
        if events and rng.random() < 0.12:
            again = rng.choice(events[-30:])
            events.append(Event(again.key, again.time, again.id64, now, again.values))
            continue
        delay = rng.choice(
            [
                rng.uniform(0, LATENESS * 0.99),
                rng.uniform(0, 500_000),
                rng.uniform(-SKEW, 0),
                LATENESS,
                rng.uniform(LATENESS, 300 * SECOND) if rng.random() < 0.2 else 0,
            ]
        )
        time = now - int(delay)
        if delay != LATENESS:
            time = time // 50_000 * 50_000
        values: dict[str, Any] = {"x": None if rng.random() < 0.1 else rng.gauss(100, 30), "n": rng.randrange(-50, 100)}
        values["s"] = random.Random(now).choice([None, "", "🛫", "often", f"{now % 40}", f"once {now}"])
        events.append(Event(rng.choice(KEYS), time, rng.getrandbits(64), now, values))
    return events


def gated(events: list[Event], partition: int = 0, heartbeat: str | None = None) -> Gated:
    frame = pl.DataFrame(
        {
            "at": pl.Series([e.time for e in events], dtype=pl.Int64).cast(TIMESTAMP),
            "key": pl.Series([e.key for e in events], dtype=pl.String),
            "x": pl.Series([e.values["x"] for e in events], dtype=pl.Float64),
            "n": pl.Series([e.values["n"] for e in events], dtype=pl.Int64),
            "s": pl.Series([e.values["s"] for e in events], dtype=pl.String),
            "ingested_at": pl.Series([e.ingested for e in events], dtype=pl.Int64).cast(TIMESTAMP),
            "id64": pl.Series([e.id64 for e in events], dtype=pl.UInt64),
            ARRIVED: pl.Series([e.ingested for e in events], dtype=pl.Int64),
        }
    )
    return Gated(Entries(partition, [], [], [], [], heartbeat), frame, [])


class Writer:
    """What one process of the tiles flow is: its own generations and caches."""

    def __init__(self, client: redis.Redis, versions: list[Version]) -> None:
        self.link = MortalLink(client)
        self.router = Router(SOURCE, [(REGISTRY.views[version.view], version) for version in versions])
        self.writer = TileWriter(self.link, int(client.incr(keys.GENERATION)))

    def apply(
        self, events: list[Event], watermark: int, trial: str = "", partition: int = 0, heartbeat: str | None = None
    ) -> Counter[str]:
        batch = self.router(gated(events, partition, heartbeat)).micro_batch
        counts = self.writer.apply(batch, SHARDS, watermark)
        self.link.drain()
        if batch.heartbeat is not None:
            self.link.run([note(trial, "tiles", *batch.heartbeat)])
        return counts


SHARDS = set(range(keys.SHARDS))


class Trial:
    """One run: partitions, positions, snapshots, and a writer that may die at any time."""

    def __init__(self, client: redis.Redis, seed: int, raw_limit: int, salts: int = 1) -> None:
        self.client = client
        self.rng, self.beats = random.Random(seed), random.Random(seed)
        self.name = f"trial{seed}.{raw_limit}"
        self.noted: dict[int, Heard] = {}
        self.turns = Turns()
        self.versions = [
            Version(msgspec.structs.replace(plan, raw_limit=raw_limit, salts=salts), self.name, "ready")
            for plan in (REGISTRY.plans[view.name] for view in VIEWS)
        ]
        self.events = generate(self.rng, self.rng.choice([5, 40, 300]))
        self.partitions: list[list[Event]] = [[], []]
        for event in self.events:
            self.partitions[self.rng.random() < 0.33].append(event)
        self.position, self.snapshot, self.highest = [0, 0], [0, 0], [0, 0]
        self.kills = self.rng.randrange(0, 4)
        self.writer = Writer(client, self.versions)
        self.sleeping: tuple[Writer, int, list[Event]] | None = None
        self.covered = [BEGINNING, BEGINNING]
        self.tally: Counter[str] = Counter()

    def run(self) -> None:
        while live := [p for p in (0, 1) if self.position[p] < len(self.partitions[p])]:
            partition = self.rng.choice(live)
            start = self.position[partition]
            batch = self.partitions[partition][start : start + self.rng.randrange(1, 30)]
            self.writer.link.left = self.rng.randrange(0, 12) if self.kills and self.rng.random() < 0.15 else 10**9
            beat = f"{start + len(batch)}-0" if self.beats.random() < 0.3 else None
            try:
                self.tally += self.writer.apply(batch, min(self.covered), self.name, partition, beat)
            except KilledError:
                self.restart(partition, batch)
                continue
            self.position[partition] += len(batch)
            self.highest[partition] = max(self.highest[partition], self.position[partition])
            self.check_heartbeats()
            if self.rng.random() < 0.3:
                self.take_snapshot()
            if self.sleeping and self.rng.random() < 0.2:
                self.wake()
            if self.position == self.highest and self.rng.random() < 0.6:
                self.check()

    def take_snapshot(self) -> None:
        self.snapshot = list(self.position)
        for partition, done in enumerate(self.position):
            events = self.partitions[partition]
            if done == len(events):
                self.covered[partition] = self.events[-1].ingested
            elif done:
                self.covered[partition] = events[done - 1].ingested

    def restart(self, partition: int, batch: list[Event]) -> None:
        """A new process takes over from a snapshot, or from further back; the old one may only have been paused."""
        self.kills -= 1
        self.tally["kills"] += 1
        self.highest[partition] = max(self.highest[partition], self.position[partition] + len(batch))
        if self.rng.random() < 0.5 and not self.sleeping:
            self.sleeping = (self.writer, min(self.covered), batch)
        else:
            self.writer.link.close()
        self.writer = Writer(self.client, self.versions)
        deep = self.rng.random() < 0.5
        self.position = [self.rng.randrange(0, done + 1) if deep else done for done in self.snapshot]
        self.snapshot = list(self.position)
        self.covered = [BEGINNING, BEGINNING]

    def wake(self) -> None:
        """The paused process goes on where it was, with its old cache; it must be refused, or do no harm."""
        assert self.sleeping is not None
        writer, watermark, batch = self.sleeping
        self.sleeping = None
        writer.link.left = 10**9
        writer.link.forget()
        try:
            writer.apply(batch, watermark, self.name, 0, "0-1")
        except RestartRequiredError:
            self.tally["refused"] += 1
        writer.link.close()

    def check_heartbeats(self) -> None:
        """What is noted is written, and was never noted further."""
        stored: Any = self.client.hgetall(keys.heartbeat(self.name, "tiles"))
        noted = parse_heard(stored)
        for partition, heard in noted.items():
            before = self.noted.get(partition, heard)
            assert before.order <= heard.order <= (self.highest[partition], 0)
            assert before.written_at <= heard.written_at
        self.tally["heartbeats"] += len(noted.items() - self.noted.items())
        self.noted = noted

    def check(self) -> None:
        """Read every entity at an instant that may still be asked for, and compare with the oracle."""
        applied = [e for p in (0, 1) for e in self.partitions[p][: self.position[p]]]
        truth = oracle.counted(applied, LATENESS)
        newest = max(e.ingested for e in applied)
        reach = max(min(self.covered), 0)
        earliest = max(reach - LATENESS, newest - 1200 * SECOND if reach == 0 else 0)
        at = self.rng.choice(
            [newest, newest + 1, self.rng.randint(min(earliest, newest), newest), truth[-1].time if truth else newest]
        )
        at = max(at, earliest)
        for version in self.versions:
            self.compare(version, truth, at)

    def compare(self, version: Version, truth: list[Event], at: int) -> None:
        plan = version.plan
        lookup = ViewLookup(version, self.turns.at(plan, at), [keys.entity_tag("key", [key]) for key in KEYS], at)
        while lookup.unfinished:
            pipeline = self.client.pipeline(transaction=False)
            for command in lookup.commands():
                pipeline.execute_command(*command)
            lookup.absorb(iter(pipeline.execute()))
        features = lookup.answer()
        pipeline = self.client.pipeline(transaction=False)
        for entity in lookup.rows:
            pipeline.hgetall(keys.texts(entity.key))
        strings, salts = pipeline.execute(), plan.salts
        for row, key in enumerate(KEYS):
            stored = {name: text for found in strings[row * salts : (row + 1) * salts] for name, text in found.items()}
            self.tally["reads"] += 1
            self.tally["strings"] += len(stored)
            texts = {int.from_bytes(name, "little"): text_of(value) for name, value in stored.items()}
            for feature in plan.features:
                events = window(plan, feature, truth, key, at)
                told = dict(feature.parameters), feature.span.edges(at, plan.tiles.finest)
                expected = oracle.value(feature.aggregate, events, feature.column, *told)
                got = features[feature.name][row]
                if feature.output.kind == "str":
                    got = [texts[one] for one in got] if isinstance(got, list) else got and texts[got]
                assert oracle.agree(feature.aggregate, got, expected, events, feature.column, *told), SimpleNamespace(
                    version=version.version, key=key, feature=feature.name, at=at, got=got, expected=expected
                )

    def check_pruned(self) -> None:
        """No entity has strings that were out of reach when its fence last entered a coarsest tile."""
        for version in self.versions:
            for tag in [tag for key in KEYS for tag in partial_tags(version.plan, [key])]:
                name = tag + keys.versioned(version.view, version.version)
                header: Any = self.client.hget(name, "h")
                stored: Any = self.client.hvals(keys.texts(name))
                if header and stored:
                    plan, fence = version.plan, Header.decode(header).fence
                    first = out_of_reach(plan, fence // plan.tiles.coarsest * plan.tiles.coarsest)
                    assert min(int.from_bytes(value[:4], "little") for value in stored) >= first
                    self.tally["pruned"] += first


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def test_no_read_is_ever_wrong(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    tally: Counter[str] = Counter()
    seed = 0
    while tally["reads"] < READS:
        monkeypatch.setattr(loading, "CACHED_ENTITIES", 1 if seed % 5 == 0 else 100)
        monkeypatch.setattr(loading, "WEIGHED_EVERY", 0 if seed % 7 < 4 else 10)  # forgets what is sealed: each time
        trial = Trial(client, seed, raw_limit=(1, 4, 64)[seed % 3], salts=salts_of(seed))
        trial.run()
        trial.writer.link.close()
        trial.check_pruned()
        tally += trial.tally
        tally["salted reads"] += trial.tally["reads"] * (salts_of(seed) > 1)
        seed += 1
    print(f"{seed} trials: {dict(tally)}")
    assert tally["kills"] > 50
    assert tally["refused"] > 10
    assert tally["duplicates"] > 1_000
    assert tally["fenced"] > 100
    assert tally["heartbeats"] > 100
    assert tally["salted reads"] > READS / 10
    assert tally["strings"] > 10_000
    assert tally["pruned"] > 10
