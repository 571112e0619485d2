"""What a view costs: measured on a real Redis and lake, adding up without a rest, and estimated where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest
import redis

from rtml.columns import TIMESTAMP
from rtml.instants import DAY, to_datetime
from rtml.lake import EVENT_DATE, Lake
from rtml.online import keys
from rtml_assets.runtime.cost import Cost, cost
from rtml_assets.runtime.cost_estimate import estimate
from rtml_assets.runtime.cost_sample import HOT, STATES
from rtml_assets.runtime.cost_shown import rendered
from rtml_assets.tables.delta import append
from tests.serving.online import REGISTRY, OwnRedis, fill, version_of, write
from tests.streaming.test_pruning import Meter

NOW = 20_000 * DAY
PURCHASES, VISITS = REGISTRY.plans["user_purchases"], REGISTRY.plans["shop_visits"]


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    server = OwnRedis()
    try:
        client = server.start()
        fill(client)
        yield client
        client.close()
    finally:
        server.stop()


def measured(client: redis.Redis, name: str, lake: str, **options: float) -> Cost:
    plan = REGISTRY.plans[name]
    return cost(client, version_of(plan), plan, Lake(lake), **options)  # type: ignore[arg-type]


def test_bytes_are_redis_own_and_add_up(client: redis.Redis, tmp_path: Path) -> None:
    found = measured(client, "shop_visits", str(tmp_path), entities=1_000_000)
    online = found.online
    assert online is not None
    held = list(client.scan_iter(f"rtml:{{*}}{keys.versioned('shop_visits', online.version)}*"))
    total = sum(client.memory_usage(name, samples=0) or 0 for name in held)
    assert (online.entities, online.sampled, online.entities_exact) == (1, 1, True)
    assert online.per_entity.mean == online.per_entity.max == total == sum(online.parts.values())
    assert online.per_entity.error == 0
    assert found.projected == 1_000_000 * total
    assert online.events == 100
    assert online.per_event == total / 100
    assert online.parts[HOT] > 100 * 12  # a hundred records of a finest tile, in a key of their own
    states = sum(family.bytes for family in online.families)
    assert 0 < states < online.parts[STATES]
    assert sum(online.levels.values()) == sum(online.windows.values()) == online.parts[STATES]
    assert all(family.features for family in online.families)


def test_a_sample_is_said_to_be_one(client: redis.Redis, tmp_path: Path) -> None:
    whole = measured(client, "user_purchases", str(tmp_path)).online
    part = measured(client, "user_purchases", str(tmp_path), sample=1).online
    assert whole is not None
    assert part is not None
    assert (whole.entities, whole.sampled, part.sampled) == (3, 3, 1)
    assert whole.events == 4
    assert whole.written_per_event is not None
    assert "3 entities" in shown(measured(client, "user_purchases", str(tmp_path)))


@pytest.mark.parametrize("pace", [24, 1_440])
def test_an_estimate_is_near_what_is_measured(client: redis.Redis, tmp_path: Path, pace: int) -> None:
    count = (PURCHASES.longest + PURCHASES.lateness) * pace // DAY
    times = [NOW - number * (DAY // pace) for number in range(count)]
    client.flushall()
    write(client, PURCHASES, ["often"], times, {"amount": [1.5] * count, "quantity": [2] * count})
    online = measured(client, "user_purchases", str(tmp_path)).online
    assert online is not None
    assert online.events == count
    (guessed,) = [one for one in estimate(PURCHASES) if one.events_per_day == pace]
    assert 0.7 < guessed.bytes / online.per_entity.mean < 1.4


def test_sketches_are_told_apart(client: redis.Redis, tmp_path: Path) -> None:
    client.flushall()
    meter = next(meter for seed in range(100) if (meter := Meter(client, seed)).plan.tailed)
    for _ in range(30):
        meter.apply(meter.batch())
    found = cost(client, meter.version, meter.plan, Lake(str(tmp_path)))
    online = found.online
    assert online is not None
    states = {family.family: family for family in online.families}
    assert states["uniques(x)"].features == ["x_approx_count_distinct_" + meter.plan.windows[0].label]
    assert online.families[0] is states["uniques(x)"]
    assert online.events * online.sampled == meter.number
    assert any("uniques(x)" in words for words in found.advice)


def test_partial_states_are_one_entity(client: redis.Redis, tmp_path: Path) -> None:
    client.flushall()
    plan = msgspec.structs.replace(VISITS, salts=3)
    write(client, plan, [7], [NOW] * 10, {})
    online = cost(client, version_of(plan), plan, Lake(str(tmp_path))).online
    assert online is not None
    assert (online.entities, online.sampled, online.events) == (1, 1, 10)
    held = [client.memory_usage(name, samples=0) or 0 for name in client.scan_iter("*")]
    assert len(held) == 3
    assert online.per_entity.mean == sum(held) == sum(online.parts.values())


def test_without_data_it_is_an_estimate(tmp_path: Path) -> None:
    found = cost(None, None, VISITS, Lake(str(tmp_path)))
    assert found.online is None
    assert [one.events_per_day for one in found.estimates] == [1, 24, 1_440]
    assert "an estimate from the definition" in shown(found)


def test_the_lake_is_measured_by_event(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    days = pl.Series([to_datetime(NOW)] * 50, dtype=TIMESTAMP)
    rows = pl.DataFrame({"at": days, EVENT_DATE: days.dt.date()})
    append(lake.raw(VISITS.source), rows)
    append(lake.events(VISITS.source), rows.head(25))
    append(lake.tiles(VISITS.view), rows.head(5))
    tables = cost(None, None, VISITS, lake).lake
    assert {name: table.rows for name, table in tables.items()} == {"raw": 50, "events": 25, "tiles": 5}
    of = {"raw": 50, "events": 25, "tiles": 25}
    assert {name: table.per_event for name, table in tables.items()} == {
        name: table.bytes / of[name] for name, table in tables.items()
    }


def shown(found: Cost) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(rendered(found))
    return capture.get()
