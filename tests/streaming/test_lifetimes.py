"""Lifetime windows under fire: the stream, the reader and compactions in between, over a real Redis and a real lake.

As in `test_protocol`, and: bases are folded and late events published at any time, from a mirror that is ahead of the
stream or behind it; publishers are killed between any two commands, or paused while another one does the same work;
versions begin with history or without. What was published when a publisher died may be served before or after it, by
entity, and of one with salts by partial state.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import polars as pl
import pytest
import redis
from deltalake import write_deltalake
from redis.client import Pipeline

from rtml import StreamFeatureView
from rtml.columns import TIMESTAMP
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, floor
from rtml.lake import EVENT_DATE, Lake, raw_schema, signed
from rtml.online import keys
from rtml.online.base import Base
from rtml.online.codec import FIELD_DTYPE
from rtml.online.salts import partial_tags
from rtml.online.texts import text_of
from rtml.plan import Plan
from rtml_assets.tables import base
from rtml_assets.tables.base import fold_bases, foldable
from rtml_assets.tables.history import publish_history
from rtml_assets.tables.late import publish_late
from rtml_assets.tables.publish import keep_up
from rtml_assets.tables.reach import history_start
from serving.reader import ViewLookup
from streaming import loading
from streaming.positions import Position, raise_position
from streaming.versions import Version, create_version, read_version, save_version
from tests import oracle
from tests.oracle import Event
from tests.streaming.test_protocol import (
    HEAVY,
    KEYS,
    LATENESS,
    LIFE,
    REGISTRY,
    SOURCE,
    KilledError,
    Trial,
    Writer,
    generate,
    window,
)

READS = int(os.environ.get("TRIAL_READS", "1000"))
"""After so many reads it is enough."""


class OneByOne(Pipeline):
    """A pipeline that is sent command by command, by a client that may die."""

    mortal: MortalRedis

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what was collected."""
        del raise_on_error
        commands, scripts = list(self.command_stack), set(self.scripts)
        self.reset()
        for script in scripts:
            self.mortal.script_load(script.script)
        return [self.mortal.execute_command(*args, **options) for args, options in commands]


class MortalRedis(redis.Redis):
    """A client that does something when it has sent so many commands: it dies, or somebody else goes first."""

    left = 10**9
    interrupt: Callable[[], None] | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, if there is still life in it."""
        if self.left == 0 and self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            interrupt()
        self.left -= 1
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> OneByOne:
        """Return a pipeline that this client sends."""
        pipeline = OneByOne(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.mortal = self
        return pipeline


def die() -> None:
    raise KilledError


class Life(Trial):
    """A trial of one view with a lifetime window, compacted as it goes."""

    def __init__(
        self, client: MortalRedis, seed: int, raw_limit: int, lake: Lake, view: StreamFeatureView, salts: int = 1
    ) -> None:
        super().__init__(client, seed, raw_limit)
        self.view, self.name = view, f"life{seed}.{raw_limit}"
        self.writer.link.close()
        self.mortal, self.lake, self.dice = client, lake, random.Random(seed)
        self.events = generate(self.dice, self.dice.choice([40, 200, 300]))
        self.partitions = [[], []]
        for event in self.events:
            self.partitions[self.dice.random() < 0.33].append(event)
        client.delete(keys.position("messages"))
        plan = msgspec.structs.replace(REGISTRY.plans[view.name], raw_limit=raw_limit, salts=salts)
        version = Version(plan, self.name, "ready")
        self.mirrored = [0, 0]
        self.published: set[tuple[int, int]] = set()
        """Late events that are servable, by time and id."""
        self.doubtful: list[set[tuple[int, int]]] = []
        """Those that are for some entities, since publishers died, one after the other."""
        self.until = BEGINNING
        create_version(client, version)
        if self.dice.random() < 0.5:
            version = self.begin(version)
            save_version(client, version)
        self.versions = [version]
        self.writer = Writer(client, self.versions)

    @property
    def version(self) -> Version:
        found = read_version(self.mortal, self.view.name, self.versions[0].version)
        assert found is not None
        return found

    def begin(self, version: Version) -> Version:
        """Publish history up to a boundary."""
        self.advance_mirror(len(self.events))
        until = self.mirrored_to()
        if until == BEGINNING:
            return version
        edge = max(0, floor(until - LATENESS, version.plan.tiles.coarsest))
        version = msgspec.structs.replace(version, boundary=edge, folded_to=until)
        publish_history(self.lake, self.mortal, self.view, version, lambda: None)
        self.mortal.left, self.mortal.interrupt = self.dice.randrange(40), die
        try:
            fold_bases(self.lake, self.mortal, self.view, version, edge, lambda: None)
        except KilledError:
            self.tally["begun again"] += 1
        self.mortal.left = 10**9
        version = fold_bases(self.lake, self.mortal, self.view, version, edge, lambda: None)
        publish_late(self.lake, self.mortal, self.view, version, until, lambda: None)
        self.published, self.until = self.late_before(until), until
        return msgspec.structs.replace(version, published_to=until, pruned_to=history_start(version))

    def advance_mirror(self, most: int) -> None:
        """Let the mirror read on, by itself: it may be ahead of the stream, or behind it."""
        for partition, events in enumerate(self.partitions):
            done = self.mirrored[partition]
            self.mirrored[partition] = min(len(events), done + self.dice.randrange(most + 1))
        rows = [e for p, done in enumerate(self.mirrored) for e in self.partitions[p][:done]]
        known = oracle.counted(rows, LATENESS, late_too=True)
        columns = {
            "at": pl.Series([e.time for e in known], dtype=pl.Int64).cast(TIMESTAMP),
            "key": pl.Series([e.key for e in known], dtype=pl.String),
            "x": pl.Series([e.values["x"] for e in known], dtype=pl.Float64),
            "n": pl.Series([e.values["n"] for e in known], dtype=pl.Int64),
            "s": pl.Series([e.values["s"] for e in known], dtype=pl.String),
            "ingested_at": pl.Series([e.ingested for e in known], dtype=pl.Int64).cast(TIMESTAMP),
            "id64": pl.Series([e.id64 for e in known], dtype=pl.UInt64),
        }
        frame = pl.DataFrame(columns).with_columns(signed(), pl.col("at").dt.date().alias(EVENT_DATE))
        frame = frame.select(list(raw_schema(SOURCE)))
        write_deltalake(self.lake.events("messages"), frame, mode="overwrite", partition_by=[EVENT_DATE])

    def mirrored_to(self) -> int:
        marks = []
        for partition, done in enumerate(self.mirrored):
            events = self.partitions[partition]
            whole = self.events[-1].ingested + 1
            marks.append(whole if done == len(events) else events[done].ingested if done else BEGINNING)
        return min(marks)

    def late_before(self, until: int) -> set[tuple[int, int]]:
        rows = [e for p, done in enumerate(self.mirrored) for e in self.partitions[p][:done]]
        known = oracle.counted(rows, LATENESS, late_too=True)
        return {(e.time, e.id64) for e in known if e.ingested - e.time > LATENESS and e.ingested <= until}

    def take_snapshot(self) -> None:
        super().take_snapshot()
        for partition, reached in enumerate(self.covered):
            if reached != BEGINNING:
                raise_position(self.mortal, keys.position("messages"), partition, Position("1-0", reached))
        if self.dice.random() < 0.8:
            self.compact()

    def compact(self) -> None:
        self.advance_mirror(60)
        until = self.mirrored_to()
        if until < max(self.until, 0):
            return
        late, tiles, version = self.late_before(until), self.tiles(), self.version
        draw, beside = self.dice.random(), self.tally["publishers beside"]
        self.mortal.left, self.mortal.interrupt = self.dice.randrange(self.dice.choice([10, 15, 40])), None
        if draw < 0.35:
            self.mortal.interrupt = die
        elif draw < 0.6:
            self.mortal.interrupt = self.compact_beside

        def hold() -> None:
            if self.tally["publishers beside"] > beside:
                raise NotReadyError("somebody else has the lock by now")

        try:
            edge = foldable(until, self.mortal, self.view, version)
            version = fold_bases(self.lake, self.mortal, self.view, version, edge, hold)
            if draw >= 0.35:  # what is late is kept from being taken back by the lock alone
                self.mortal.interrupt = None
            keep_up(self.lake, self.mortal, self.view, version, until, hold)
        except KilledError:
            self.tally["publishers killed"] += 1
            self.doubtful.append(late)
        except NotReadyError as error:
            self.tally["publishers refused"] += "folded a base" in str(error)
        else:
            self.mortal.interrupt = None
            self.tally["compactions"] += 1
            self.tally["tiles dropped"] += tiles - self.tiles()
            self.finish(late, until)
        finally:
            self.mortal.left, self.mortal.interrupt = 10**9, None

    def compact_beside(self) -> None:
        """Another publisher goes on with the same while this one sleeps, and further where it can."""
        left, self.mortal.left = self.mortal.left, 10**9
        self.advance_mirror(30)
        until = self.mirrored_to()
        keep_up(self.lake, self.mortal, self.view, self.version, until, lambda: None)
        self.finish(self.late_before(until), until)
        self.mortal.left = left
        self.tally["publishers beside"] += 1

    def tiles(self) -> int:
        """Return how many tiles Redis holds."""
        plan, suffix = self.versions[0].plan, keys.versioned(self.view.name, self.versions[0].version)
        hashes = [tag + suffix for key in KEYS for tag in partial_tags(plan, [key])]
        names: Any = [name for key in hashes for name in self.mortal.hkeys(key)]
        return sum(len(name) == FIELD_DTYPE.itemsize for name in names)

    def finish(self, late: set[tuple[int, int]], until: int) -> None:
        self.published, self.until = self.published | late, max(until, self.until)
        self.doubtful = []
        save_version(self.mortal, msgspec.structs.replace(self.version, published_to=self.until))

    def check(self) -> None:
        """Read every entity, by the latest meta or one that is older, at an instant that may still be asked for."""
        applied = [e for p in (0, 1) for e in self.partitions[p][: self.position[p]]]
        version = self.version
        stale = (
            msgspec.structs.replace(version, based_to=self.versions[0].based_to)
            if self.dice.random() < 0.3
            else version
        )
        self.versions = [version]
        newest = max(e.ingested for e in applied)
        stored: Any = self.mortal.hgetall(keys.position("messages"))
        reached = [int(text.split()[1]) for text in stored.values()]
        reach = max(min(reached) if len(reached) == 2 else BEGINNING, version.boundary)
        earliest = max(reach - LATENESS, version.boundary, newest - 1200_000_000 if reach == BEGINNING else 0)
        at = max(
            earliest, self.dice.choice([newest, newest + 1, earliest, self.dice.randint(min(earliest, newest), newest)])
        )
        everything = [e for partition in self.partitions for e in partition]
        on_time = oracle.counted([*applied, *(e for e in everything if e.time < version.boundary)], LATENESS)
        once = oracle.counted(everything, LATENESS, late_too=True)
        servable = [self.published, *(self.published | late for late in self.doubtful)]
        truths = [[*on_time, *(e for e in once if (e.time, e.id64) in late)] for late in servable]
        self.compare_any(stale, truths, at)

    def compare_any(self, version: Version, truths: list[list[Event]], at: int) -> None:
        """Each partial state is served as before the publications that died, or as after one of them."""
        plan = version.plan
        turn = self.turns.at(plan, at, version.based_to)
        lookup = ViewLookup(version, turn, [keys.entity_tag("key", [key]) for key in KEYS], at)
        while lookup.unfinished:
            pipeline = self.mortal.pipeline(transaction=False)
            for command in lookup.commands():
                pipeline.execute_command(*command)
            lookup.absorb(iter(pipeline.execute()))
        lookup.check_reach()
        features = lookup.answer()
        for row, key in enumerate(KEYS):
            self.tally["reads"] += 1
            self.tally["whole hashes"] += turn.whole
            bases = [one.fetched.base for one in lookup.rows_of(row, row + 1)]
            self.tally["based"] += any(found is not None for found in bases)
            stored: dict[Any, Any] = {}
            for one in lookup.rows_of(row, row + 1):
                stored |= self.mortal.hgetall(keys.texts(one.key))
            texts = {int.from_bytes(name, "little"): text_of(value) for name, value in stored.items()}
            got = {name: values[row] for name, values in features.items()}
            got |= {f.name: _told(got[f.name], texts) for f in plan.features if f.output.kind == "str"}
            mixtures = oracle.mixtures(truths, key, plan.salts)
            wrong = [next(self.wrong(plan, truth, key, at, got), None) for truth in mixtures]
            assert None in wrong, (version, wrong[0], [Base.decode(found) for found in bases])

    def wrong(
        self, plan: Plan, truth: list[Event], key: str, at: int, row: dict[str, Any]
    ) -> Iterator[SimpleNamespace]:
        """Say what differs from a truth."""
        for feature in plan.features:
            events, got = window(plan, feature, truth, key, at), row[feature.name]
            told = dict(feature.parameters), feature.span.edges(at, plan.tiles.finest)
            expected = oracle.value(feature.aggregate, events, feature.column, *told)
            if not oracle.agree(feature.aggregate, got, expected, events, feature.column, *told):
                yield SimpleNamespace(key=key, feature=feature.name, at=at, got=got, expected=expected)


def _told(value: Any, texts: dict[int, str]) -> Any:
    """Strings of their hashes."""
    return [texts[one] for one in value] if isinstance(value, list) else None if value is None else texts[value]


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[MortalRedis]:
    with MortalRedis.from_url(redis_url, protocol=2) as client:
        yield client


def test_no_lifetime_is_ever_wrong(client: MortalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SLACK", 0)
    tally: Counter[str] = Counter()
    seed = 0
    while tally["reads"] < READS:
        monkeypatch.setattr(loading, "CACHED_BYTES", 1_000 if seed % 8 == 3 else 10**6)
        trial = Life(
            client,
            seed,
            raw_limit=(1, 4, 64)[seed % 3],
            lake=Lake(str(tmp_path / str(seed))),
            view=HEAVY if seed % 4 == 3 else LIFE,
            salts=3 if seed % 3 == 2 else 1,
        )
        trial.run()
        trial.writer.link.close()
        for view in trial.writer.writer._views.values():
            tiles = [tile for entity in view._loader.entities.values() for tile in entity.tiles.values() if tile]
            assert not view._plan.tailed or sum(map(len, tiles)) <= loading.CACHED_BYTES
            tally["large states"] += view._plan.tailed
        tally += trial.tally
        seed += 1
    print(f"{seed} trials: {dict(tally)}")
    assert tally["large states"] > 5
    assert tally["kills"] > 10
    assert tally["publishers killed"] > 10
    assert tally["publishers refused"] > 0
    assert tally["publishers beside"] > 3
    assert tally["whole hashes"] > 20
    assert tally["based"] > READS / 3
    assert tally["tiles dropped"] > 20
