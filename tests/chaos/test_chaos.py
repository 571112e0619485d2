"""Every fault, one after another, against a running platform: `make chaos`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import polars as pl
import pytest

from rtml.columns import TIMESTAMP
from tests.chaos.definitions import SERVICE
from tests.chaos.fault import Fault, Outcome, await_end, go_through
from tests.chaos.faults_data import ClockSkew, HotKey, LateFlood, SchemaBreak
from tests.chaos.faults_lake import DagsterDown, DeltaConflict, DiskFull, SkewFound
from tests.chaos.faults_redis import RedisFull, RedisHangs, RedisIsOlder
from tests.chaos.faults_stream import Lag, StreamKilled, StreamStalled
from tests.chaos.table import table_of, write_table
from tests.chaos.world import ENTITIES, World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

FAULTS: list[type[Fault]] = [
    RedisFull,
    RedisHangs,
    StreamStalled,
    RedisIsOlder,
    StreamKilled,
    SchemaBreak,
    LateFlood,
    ClockSkew,
    HotKey,
    DiskFull,
    DeltaConflict,
    DagsterDown,
    SkewFound,
    Lag,
]
OUTCOMES: list[Outcome] = []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        with World(tmp_path_factory.mktemp("chaos")) as world:
            until(lambda: world.age > 12, "the watch tells", 20)
            world.agree()
            world.compact()
            yield world


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_fault_is_told_and_nothing_is_lost(world: World, kind: type[Fault]) -> None:
    until(lambda: world.age > getattr(kind, "grace", 0), "the watch is old enough", 120)
    OUTCOMES.append(go_through(kind(), world))


def only_what_was_caused(world: World) -> None:
    """Assert that nobody was told of anything else, nor more often than it was caused."""
    caused = Counter((outcome.fault.alert, outcome.fault.target) for outcome in OUTCOMES)
    also = {name for outcome in OUTCOMES for name in outcome.fault.also}
    told = Counter((alert.alert, alert.target) for alert in world.ledger() if alert.since >= OUTCOMES[0].caused)
    more = {name: count for name, count in told.items() if name[0] not in also and count != caused[name]}
    assert not more, f"of that was caused: {caused}"


def test_in_the_end_all_is_well_online_and_offline(world: World) -> None:
    for outcome in OUTCOMES:
        if outcome.resolved is None:
            await_end(outcome, world)
    until(lambda: not world.open(), "all alerts resolve", 200, world.open)
    world.compact(quiet=True)
    present = world.settle()
    world.truth.read()
    answer = world.ask(ENTITIES, present)
    online = world.truth.compare(ENTITIES, answer.column, present)
    spine = pl.DataFrame(ENTITIES).with_columns(pl.lit(present).cast(TIMESTAMP).alias("timestamp"))
    trained = world.store.get_historical_features(SERVICE, spine)
    offline = world.truth.compare(ENTITIES, lambda name: trained[name].to_list(), present)
    assert online == offline > 0
    table = table_of(OUTCOMES)
    print(f"\n{table}\n{len(world.truth.events):,} events", flush=True)
    only_what_was_caused(world)
    if [type(outcome.fault) for outcome in OUTCOMES] == FAULTS:
        write_table(table)
