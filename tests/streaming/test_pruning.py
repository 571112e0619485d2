"""What no window can reach goes: by random definitions over many windows' time, on a real Redis, key by key."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
import redis

import rtml
from rtml.columns import TIMESTAMP
from rtml.instants import DAY, MINUTE, SECOND, Instant
from rtml.online import keys
from rtml.online.codec import FIELD_DTYPE, HEADER, Header, Records, unfield
from rtml.online.tail import TAIL
from rtml.plan import FORGET_AFTER, Plan
from rtml.projection import Projection
from rtml.registry import Registry
from rtml_assets.tables.pruning import prune_versions, prune_views
from streaming import tile_writer
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated
from streaming.link import Link
from streaming.pruning import expired
from streaming.route import Router, shard_of
from streaming.tile_writer import TileWriter
from streaming.versions import Version, create_version, go_live, version_names

LATENESS = 15 * SECOND
OWNERS = ("busy", "seldom")
TRIALS = 12
LADDERS = (["10s"], ["10s", "1m"], ["10s", "1m", "6m"], ["30s", "10m"])
BEGIN = 20_000 * DAY


class Reading(rtml.Event):
    at: rtml.Timestamp
    meter: str
    x: float


SOURCE = rtml.EventSource(
    name="pruned_readings",
    schema=Reading,
    timestamp="at",
    stream=rtml.RedisStream("pruned_readings"),
    lateness="15s",
    skew="0s",
)


def view(rng: random.Random) -> rtml.StreamFeatureView:
    """A view of a random ladder, with windows of random lengths, tails and offsets, some of them with a sketch."""
    windows: list[rtml.Window] = []
    for minutes in rng.sample([1, 2, 3, 5, 9, 20], rng.randint(1, 3)):
        offset = rng.choice([None, None, "2m", "7m"])
        tail: Any = "tile" if offset else rng.choice(["exact", "tile"])
        windows.append(
            rtml.Window(f"{minutes}m", tail=tail, offset=offset) if offset else rtml.Window(f"{minutes}m", tail=tail)
        )
    features: list[Any] = [rtml.Count(windows=windows), rtml.Mean("x", windows=windows)]
    if rng.random() < 0.4:
        features.append(rtml.ApproxCountDistinct("x", windows=windows[:1]))
    return rtml.StreamFeatureView(
        name="pruned",
        source=SOURCE,
        entity=rtml.Entity("meter"),
        ladder=rng.choice(LADDERS),
        features=features,
    )


class Meter:
    """A stream of one view over a long simulated time; what Redis holds is looked at after every micro-batch."""

    def __init__(self, client: redis.Redis, seed: int) -> None:
        self.rng, self.client = random.Random(seed), client
        registry = Registry.of([view(self.rng)])
        plan = registry.plans["pruned"]
        self.plan: Plan = plan.__class__.decode(plan.encode())
        self.version = Version(self.plan, f"pruned{seed}.1", "ready")
        self.link = Link(client)
        self.router = Router(SOURCE, [(registry.views["pruned"], self.version)])
        self.writer = self.start()
        self.now, self.watermark, self.number = BEGIN, BEGIN, 0
        self.tally: Counter[str] = Counter()
        self.most: list[int] = []
        """The bytes of the busy entity after each micro-batch."""

    def start(self) -> TileWriter:
        return TileWriter(self.link, int(self.client.incr(keys.GENERATION)))

    def run(self) -> None:
        """Write events for twelve times as long as the longest window reaches."""
        end = BEGIN + 12 * (self.plan.longest + LATENESS + self.plan.ladder[-1])
        while self.now < end:
            self.apply(self.batch())
            self.check("busy")
            self.check("seldom")
            self.watermark = self.now - self.rng.choice([0, 0, 2 * SECOND])
            if self.rng.random() < 0.05:
                self.writer = self.start()
        self.link.close()

    def batch(self) -> list[tuple[Instant, Instant, str]]:
        """Events of a while, short or long, few or many: when they happened, when they came, and whose they are."""
        span = self.rng.choice([SECOND, 20 * SECOND, MINUTE, 4 * MINUTE])
        events = []
        for at in sorted(self.rng.randrange(span) for _ in range(self.rng.choice([1, 5, 30, 150]))):
            came = self.now + 1 + at
            owner = "seldom" if self.rng.random() < 0.02 else "busy"
            events.append((came - self.rng.randrange(LATENESS), came, owner))
        self.now += span
        return events

    def apply(self, events: list[tuple[Instant, Instant, str]]) -> None:
        """Send a micro-batch through router and writer, as the tiles flow does."""
        numbers = range(self.number, self.number + len(events))
        self.number += len(events)
        came = pl.Series([event[1] for event in events], dtype=pl.Int64)
        frame = pl.DataFrame(
            {
                "at": pl.Series([event[0] for event in events], dtype=pl.Int64).cast(TIMESTAMP),
                "meter": [event[2] for event in events],
                "x": [float(number) for number in numbers],
                "ingested_at": came.cast(TIMESTAMP),
                "id64": pl.Series(list(numbers), dtype=pl.UInt64),
                ARRIVED: came,
            }
        )
        batch = self.router(Gated(Entries(0, [], [], [], [], None), frame, [])).micro_batch
        shards = {shard_of(keys.entity_tag("meter", [owner])) for owner in OWNERS}
        self.tally += self.writer.apply(batch, shards, self.watermark)
        self.link.drain()

    def check(self, owner: str) -> None:
        """Everything that an entity has may still be asked for, as of the last time that its fence turned."""
        plan, ladder = self.plan, self.plan.tiles
        key = keys.entity_tag("meter", [owner]) + keys.versioned("pruned", self.version.version)
        fields: Any = self.client.hgetall(key)
        if not fields:
            return
        step = next((size for size in plan.ladder[1:] if size >= 5 * MINUTE), plan.ladder[-1])
        turned = max(Header.decode(fields[HEADER]).fence // step * step, BEGIN)
        tiles = {unfield(name) for name in fields if len(name) == FIELD_DTYPE.itemsize}
        assert set(fields) - {HEADER, TAIL} == {name for name in fields if len(name) == FIELD_DTYPE.itemsize}
        reach = min(window.edges(turned - LATENESS, ladder.finest)[0] for window in plan.windows)
        assert not [tile for tile in tiles if ladder.end(tile) < reach]
        exact = turned - LATENESS - plan.longest_exact - ladder.finest
        raw = {name: int(name.rpartition(b":r")[2]) for name in self.client.scan_iter(f"{key}:r*".replace("{", "\\{"))}
        assert not [index for index in raw.values() if (index + 1) * ladder.finest < exact]
        assert {(0, index) for index in raw.values()} <= tiles
        assert len(fields.get(TAIL, b"")) <= plan.tail_limit * Records.of(plan).tailed.itemsize
        lasting = plan.longest + LATENESS + FORGET_AFTER
        assert all(0 < self.client.ttl(name) <= lasting // SECOND for name in [key, *raw])
        self.tally["looks"] += 1
        self.tally["raw keys"] += len(raw)
        self.tally["tails"] += TAIL in fields
        if owner == "busy":
            self.most.append(len(fields))
            assert len(fields) <= self.field_bound(turned)

    def field_bound(self, turned: Instant) -> int:
        """Return how many fields there may be: tiles of every level as far as windows reach, header and tail."""
        span = self.now - turned + LATENESS + self.plan.longest + self.plan.ladder[0]
        return 2 + sum(span // size + 2 for size in self.plan.ladder)


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def run_all(client: redis.Redis, first: int) -> Counter[str]:
    tally: Counter[str] = Counter()
    for seed in range(first, first + TRIALS):
        meter = Meter(client, seed)
        meter.run()
        tally += meter.tally
    return tally


def test_nothing_stays_that_no_window_reaches(client: redis.Redis) -> None:
    tally = run_all(client, 0)
    print(f"{TRIALS} trials: {dict(tally)}")
    assert tally["looks"] > 200
    assert tally["raw keys"] > 100
    assert tally["tails"] > 50


@pytest.mark.parametrize("forgotten", [0, 1])
def test_what_is_left_behind_is_found(client: redis.Redis, monkeypatch: pytest.MonkeyPatch, forgotten: int) -> None:
    """The look would see a writer that forgot to prune tiles, or raw records."""

    def forgetful(*given: Any) -> tuple[list[Any], list[int]]:
        found = expired(*given)
        return ([], found[1]) if forgotten == 0 else (found[0], [])

    monkeypatch.setattr(tile_writer, "expired", forgetful)
    with pytest.raises(AssertionError, match=r"assert not \["):
        run_all(client, 100)


def test_raw_records_are_unlinked_once(client: redis.Redis) -> None:
    """A long window with tiles behind it does not have the same raw keys deleted again every hour."""
    plan = Registry.of([view(random.Random(1))]).plans["pruned"]
    tiles = [plan.tiles.tile(0, BEGIN + number * plan.tiles.finest) for number in range(500)]
    fence = BEGIN + 400 * plan.tiles.finest
    first, second = expired(plan, tiles, fence)[1], expired(plan, tiles, fence + MINUTE, fence)[1]
    assert first
    assert second
    assert not set(first) & set(second)
    assert sorted([*first, *second]) == sorted(expired(plan, tiles, fence + MINUTE)[1])
    del client


def test_versions_of_no_use_leave_no_key(client: redis.Redis) -> None:
    registry = Registry.of([view(random.Random(2))])
    plan = registry.plans["pruned"]
    names = [f"{plan.fingerprint}.{build}" for build in (1, 10)]
    for name in names:
        version = Version(plan, name, "ready", created_at=5, projection=Projection.of(registry.views["pruned"]))
        go_live(client, create_version(client, version))
        key = keys.entity_tag("meter", ["busy"]) + keys.versioned("pruned", name)
        client.hset(key, mapping={b"h": b"", b"late": b"R"})
        client.set(keys.raw(key, 7), b"x")
        client.hset(f"{key}:s", "hash", "text")
        client.sadd(keys.late_entities("pruned", name), key)
    assert prune_versions(client, plan, 10) == names[:1]
    left = list(client.scan_iter(f"*pruned@{plan.fingerprint}*"))
    assert len(left) == 5
    assert all(name.partition(b"pruned@")[2].startswith(names[1].encode()) for name in left)
    assert prune_views(client, ["pruned"], 10) == []
    assert prune_views(client, ["another"], 10) == [f"pruned@{names[1]}"]
    assert list(client.scan_iter(f"*pruned@{plan.fingerprint}*")) == []
    assert version_names(client, "pruned") == []
    assert not client.exists(keys.live("pruned"))
    assert not client.sismember(keys.VIEWS, "pruned")
