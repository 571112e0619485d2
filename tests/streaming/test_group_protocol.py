"""The online protocol in several processes: shares and news that travel at any speed, kills, and sleeping groups.

What one process reads, others write: shares lie in queues between them, each delivered when chance will have it, first
in first out. An epoch closes when all queues are empty and all that was sent is written; only then is a partition
covered, and its position durable. A kill between any two commands of any process takes all of them down; a pause may
last until others have long taken over.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from streaming.broker import RestartRequiredError
from streaming.figures import Figures
from streaming.place import Place
from streaming.progress import Progress
from streaming.route import Router, shard_of
from streaming.shard import Sharder
from streaming.share import Item, Share
from streaming.sinks import TileSink
from streaming.versions import Version
from tests.oracle import Event
from tests.streaming.test_protocol import KEYS, REGISTRY, SOURCE, KilledError, MortalLink, Trial, gated, salts_of

TRIALS = 40
COUNTS = (2, 5)
"""Of how many processes a group is: with these not all keys are one process's."""


class Process:
    """One process of a group, without Bytewax: what it makes of what it reads, and its sink."""

    def __init__(self, client: redis.Redis, name: str, versions: list[Version], place: Place) -> None:
        figures = Figures(name, "tiles", place=place)
        self.figures = figures
        self.sharder = Sharder(replace(SOURCE, name=name), figures, place)
        self.sink = TileSink(client, Progress(2), figures, place, versions)
        self.sink._link.close()
        self.link = self.sink._link = MortalLink(client)
        self.part = self.sink.build_part("write", self.sink.list_parts()[0], None)


class Group:
    """Processes, and what is under way between them: items in order, each with its partition and where that ends."""

    def __init__(self, client: redis.Redis, name: str, versions: list[Version], rng: random.Random) -> None:
        self.rng, self.count = rng, rng.choice(COUNTS)
        self.router = Router(SOURCE, [(REGISTRY.views[version.view], version) for version in versions])
        self.processes = [Process(client, name, versions, Place(number, self.count)) for number in range(self.count)]
        self.queues: dict[tuple[int, int], deque[tuple[Item, int, int]]] = {}
        self.news: dict[int, Instant] = {}

    def read(self, events: list[Event], partition: int, end: int, heartbeat: str | None) -> None:
        """Route what a partition brought; from here on it travels."""
        reader = partition % self.count
        made = gated(events, partition, heartbeat)
        made = replace(made, entries=replace(made.entries, covered=self.news.pop(partition, None)))
        for key, item in self.processes[reader].sharder(self.router(made)):
            queue = self.queues.setdefault((reader, int(key)), deque())
            queue.append((pickle.loads(pickle.dumps(item)), partition, end))

    def deliver(self, share: float) -> None:
        """Deliver some of what is under way, or with 1 all of it."""
        while (full := [key for key, queue in self.queues.items() if queue]) and self.rng.random() < share:
            key = self.rng.choice(full)
            item, _, _ = self.queues[key].popleft()
            self.processes[key[1]].part.write_batch([item])

    def close_epoch(self, covered: dict[int, Instant]) -> None:
        """Have everything written; then it is news how far partitions are covered."""
        self.deliver(1)
        for process in self.processes:
            process.part.snapshot()
        self.news |= covered

    def under_way(self, partition: int) -> list[int]:
        """Return where the shares of a partition end that are not delivered yet."""
        queued = [entry for queue in self.queues.values() for entry in queue]
        return [end for item, of, end in queued if of == partition and isinstance(item, Share)]

    def counts(self) -> Counter[str]:
        """Return what all processes have counted."""
        return sum((process.figures._counts for process in self.processes), Counter())

    def close(self) -> None:
        """Give the connections back."""
        for process in self.processes:
            process.link.close()


class GroupTrial(Trial):
    """A run of groups, one after the other, each of as many processes as chance will have it."""

    def __init__(self, client: redis.Redis, seed: int, raw_limit: int) -> None:
        super().__init__(client, seed, raw_limit, salts_of(seed))
        self.writer.link.close()
        self.name = f"group{seed}_{raw_limit}"
        self.versions = [Version(version.plan, f"{self.name}.1", "ready") for version in self.versions]
        self.group = self.new_group()
        self.resting: tuple[Group, list[Event]] | None = None

    def new_group(self) -> Group:
        return Group(self.client, self.name, self.versions, self.rng)

    def run(self) -> None:
        while live := [p for p in (0, 1) if self.position[p] < len(self.partitions[p])]:
            partition = self.rng.choice(live)
            start = self.position[partition]
            batch = self.partitions[partition][start : start + self.rng.randrange(1, 30)]
            victim = self.rng.choice(self.group.processes)
            victim.link.left = self.rng.randrange(0, 12) if self.kills and self.rng.random() < 0.2 else 10**9
            try:
                self.step(batch, partition, start + len(batch))
            except KilledError:
                self.group.close()
                self.start_anew()
            victim.link.left = 10**9
            if self.kills and not self.resting and self.rng.random() < 0.1:
                self.resting = (self.group, batch)
                self.start_anew()
            self.check_heartbeats()
            if self.resting and self.rng.random() < 0.2:
                self.rouse()
            if self.position == self.highest and not any(self.group.queues.values()) and self.rng.random() < 0.6:
                self.check()
        if self.resting:
            self.rouse()
        self.group.deliver(1)
        self.check()
        self.tally += self.group.counts()
        self.group.close()

    def step(self, batch: list[Event], partition: int, end: int) -> None:
        beat = f"{end}-0" if self.beats.random() < 0.3 else None
        self.group.read(batch, partition, end, beat)
        self.position[partition] = end
        self.highest[partition] = max(self.highest[partition], end)
        self.group.deliver(self.rng.choice([0.3, 0.9, 1]))
        if self.rng.random() < 0.3:
            self.group.deliver(1)  # what closes an epoch
            self.take_snapshot()
            self.group.close_epoch(dict(enumerate(self.covered)))

    def start_anew(self) -> None:
        """All begin again from a snapshot, or from further back."""
        self.kills -= 1
        self.tally["kills"] += 1
        self.tally += self.group.counts()
        self.group = self.new_group()
        deep = self.rng.random() < 0.5
        self.position = [self.rng.randrange(0, done + 1) if deep else done for done in self.snapshot]
        self.snapshot = list(self.position)
        self.covered = [BEGINNING, BEGINNING]

    def rouse(self) -> None:
        """A paused group goes on where it was, with its old caches and what was under way in it."""
        assert self.resting is not None
        group, batch = self.resting
        self.resting = None
        try:
            group.deliver(1)
            group.read(batch, 0, 0, None)
            group.deliver(1)
        except RestartRequiredError:
            self.tally["refused"] += 1
        group.close()

    def check_heartbeats(self) -> None:
        """Nor is anything noted that some process has still to write."""
        super().check_heartbeats()
        for partition, heard in self.noted.items():
            if not self.tally["kills"]:
                assert all(end > heard.order[0] for end in self.group.under_way(partition))


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def test_no_read_is_ever_wrong(client: redis.Redis) -> None:
    shards = [shard_of(keys.entity_tag("key", [key])) for key in KEYS]
    assert all(len({shard % count for shard in shards}) > 1 for count in COUNTS)
    tally: Counter[str] = Counter()
    for seed in range(TRIALS):
        trial = GroupTrial(client, seed, raw_limit=(1, 4, 64)[seed % 3])
        trial.run()
        tally += trial.tally
    print(f"{TRIALS} trials: {dict(tally)}")
    assert tally["kills"] > 20
    assert tally["refused"] > 3
    assert tally["duplicates"] > 500
    assert tally["fenced"] > 1
    assert tally["heartbeats"] > 50
