"""Parity three ways: clean data agrees, and a fault planted in one road is found there and named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, HOUR, to_datetime
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.scratch import LONGEST_USE, scratch_version
from rtml_assets.tables.stream_parity import stream_versus_batch
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.tables.tiles import compact_tiles
from rtml_assets.tables.touched import touched_days
from streaming.table_replay import replay_table
from tests.oracle import Event
from tests.rtml_assets.orders import START, generate, orders, plan_of, shop_orders, till_orders, to_frame
from tests.rtml_assets.test_events import mirror

VIEWS = [shop_orders, till_orders]
PLANS = [plan_of(view) for view in VIEWS]


def compact(lake: Lake, events: list[Any]) -> list[date]:
    mirror(lake, to_frame(events))
    days = touched_days(lake, orders)
    compact_events(lake, orders, days)
    for view in VIEWS:
        compact_tiles(lake, view, plan_of(view), days)
    return days


def alter(lake: Lake, view: str, day: date, level: int, **changes: pl.Expr) -> dict[str, Any]:
    """Write a day of `tiles/` again, with one row of a level changed."""
    table = pl.read_delta(lake.tiles(view)).filter(pl.col("event_date") == day).sort("shop", "tile_start")
    place = table["level"].to_list().index(level)
    chosen = pl.int_range(pl.len()) == place
    changed = table.with_columns(
        pl.when(chosen).then(to).otherwise(pl.col(name)).alias(name) for name, to in changes.items()
    )
    write_deltalake(lake.tiles(view), changed, mode="overwrite", predicate=f"event_date = '{day}'")
    return table.row(place, named=True)


@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.sampled_from([3, 60, 900]))
def test_clean_data_agrees(lake: Lake, client: Any, seed: int, count: int, tmp_path: Any) -> None:
    lake = Lake(str(tmp_path / f"{seed}-{count}"))
    compared = 0
    for day in compact(lake, generate(seed, count)):
        for view, plan in zip(VIEWS, PLANS, strict=True):
            for parity in (
                tiles_versus_events(lake, view, plan, day),
                stream_versus_batch(lake, client, view, msgspec.structs.replace(plan, salts=1 + count % 7), day),
            ):
                assert parity.agrees, str(parity)
                assert parity.worst.is_empty()
                compared += parity.total("equal")
    assert compared > 5 * count
    assert not client.keys("rtml:{*")
    assert not client.exists(keys.scratch("shop_orders"), keys.scratch("till_orders"))


def test_a_changed_tile_is_found_and_named(lake: Lake) -> None:
    days = compact(lake, generate(3))
    day = days[1]
    row = alter(lake, "till_orders", day, 1, **{"value.sum": pl.col("value.sum") + 0.5, "rows": pl.col("rows") + 1})
    parity = tiles_versus_events(lake, till_orders, plan_of(till_orders), day)
    wrong = {feature.feature: feature for feature in parity.features if not feature.agrees}
    assert set(wrong) == {"till_orders__count", "till_orders__value_sum"}
    assert {(one.differing, one.missing) for one in wrong.values()} == {(1, 0)}
    assert wrong["till_orders__value_sum"].largest == pytest.approx(0.5)
    assert wrong["till_orders__count"].largest == 1
    for worst in parity.worst.to_dicts():
        assert {name: worst[name] for name in ("shop", "till", "big", "start")} == {
            "shop": row["shop"],
            "till": row["till"],
            "big": row["big"],
            "start": row["tile_start"],
        }
        assert (worst["tile"], worst["why"]) == ("1h", "differs")
    assert "till_orders__count (1 differ of" in str(parity)
    assert f"tile 1h, start {row['tile_start']}" in str(parity)
    assert f"shop {row['shop']}, till {row['till']}" in str(parity)
    assert tiles_versus_events(lake, till_orders, plan_of(till_orders), days[0]).agrees


def test_a_change_within_the_tolerance_is_none(lake: Lake) -> None:
    day = compact(lake, generate(3))[1]
    nudged = pl.col("price.sum") * (1 + 1e-12)
    alter(lake, "shop_orders", day, 0, **{"price.sum": nudged})
    parity = tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day)
    assert parity.agrees
    assert 0 < max(feature.largest for feature in parity.features) < 1e-3


def test_a_missing_tile_is_missing(lake: Lake, client: Any) -> None:
    day = compact(lake, generate(4))[1]
    table = pl.read_delta(lake.tiles("shop_orders")).filter(pl.col("event_date") == day)
    top = table["level"].max()
    gone = table.filter(pl.col("level") == top).sort("shop").head(1)
    kept = table.filter(~((pl.col("level") == top) & (pl.col("shop") == gone["shop"][0])))
    write_deltalake(lake.tiles("shop_orders"), kept, mode="overwrite", predicate=f"event_date = '{day}'")
    for parity in (
        tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day),
        stream_versus_batch(lake, client, shop_orders, plan_of(shop_orders), day),
    ):
        assert {(feature.differing, feature.missing) for feature in parity.features} == {(0, 1)}
        assert set(parity.worst["shop"]) == {gone["shop"][0]}
        assert set(parity.worst["tile"]) == {"1d"}


def test_doubled_tiles_differ(lake: Lake, client: Any) -> None:
    """Each row of a day is right, and there twice."""
    day = compact(lake, generate(3))[1]
    table = pl.read_delta(lake.tiles("shop_orders")).filter(pl.col("event_date") == day)
    row = table.sort("level", "shop").row(0, named=True)
    one = pl.all_horizontal(pl.col(name) == row[name] for name in ("level", "shop", "tile_start"))
    write_deltalake(lake.tiles("shop_orders"), table.filter(one), mode="append")
    for parity in (
        tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day),
        stream_versus_batch(lake, client, shop_orders, plan_of(shop_orders), day),
    ):
        assert {(feature.differing, feature.missing) for feature in parity.features} == {(2, 0)}
        assert set(parity.worst["why"]) == {"doubled"}
        assert set(parity.worst["shop"]) == {row["shop"]}
        assert "(doubled)" in str(parity)
    write_deltalake(lake.tiles("shop_orders"), table, mode="append")
    parity = tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day)
    assert parity.total("equal") == 0
    assert parity.total("differing") == parity.total("compared") > 0


def test_a_fault_of_the_stream_is_found(lake: Lake, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile that the writer got wrong."""
    day = compact(lake, generate(5, shops=["a", "b"]))[1]

    def faulty(given: Any, lake: Any, source: Any, views: Any, **arguments: Any) -> int:
        read = replay_table(given, lake, source, views, **arguments)
        key = keys.entity_tag("shop", ["b"]) + keys.versioned("shop_orders", views[0][1].version)
        stored = client.hgetall(key)
        name = next(name for name, value in sorted(stored.items()) if len(name) == 5 and value[:1] == b"R")
        client.hdel(key, name)
        return read

    monkeypatch.setattr("streaming.table_replay.replay_table", faulty)
    parity = stream_versus_batch(lake, client, shop_orders, plan_of(shop_orders), day)
    assert not parity.agrees
    assert set(parity.worst["shop"]) == {"b"}
    assert "expected" in set(parity.worst.columns)
    assert parity.total("missing") > 0
    assert tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day).agrees
    assert not client.keys("rtml:{*")


def garbled(client: Any, key: str) -> None:
    """Change a value of the last record: the last bytes are null bits, before them are the items."""
    data = client.get(key)
    client.set(key, data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])


RAW_FAULTS: dict[str, Callable[[Any, str], object]] = {
    "lost": lambda client, key: client.delete(key),
    "short": lambda client, key: client.set(key, client.get(key)[:-1]),
    "of another tile": lambda client, key: client.setrange(key, 0, b"\xff" * 4),
    "garbled": garbled,
}


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_raw_records_that_are_not_what_their_tile_says_are_found(
    lake: Lake, client: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A hot finest tile keeps its state, and its records elsewhere: serving reads both."""
    values = {"till": 0, "big": False, "price": 1.5, "items": 1}
    times = [START + 6 * HOUR + n * 1_000 for n in range(300)]
    events = [
        Event(shop, time, n, time, {**values, "id": f"{shop}{n}"}) for n, time in enumerate(times) for shop in "ab"
    ]
    (day,) = compact(lake, events)
    plan = plan_of(shop_orders)
    sound = stream_versus_batch(lake, client, shop_orders, plan, day)
    assert sound.agrees, str(sound)

    def faulty(given: Any, lake: Any, source: Any, views: Any, **arguments: Any) -> int:
        read = replay_table(given, lake, source, views, **arguments)
        key = keys.entity_tag("shop", ["b"]) + keys.versioned("shop_orders", views[0][1].version)
        raw = keys.raw(key, times[0] // plan.tiles.finest)
        assert client.exists(raw)
        RAW_FAULTS[fault](client, raw)
        return read

    monkeypatch.setattr("streaming.table_replay.replay_table", faulty)
    parity = stream_versus_batch(lake, client, shop_orders, plan, day)
    assert not parity.agrees
    assert set(parity.worst["shop"]) == {"b"}
    assert set(parity.worst["tile"]) == {"5m, raw records"}
    if fault != "garbled":
        assert {(feature.differing, feature.missing) for feature in parity.features} == {(0, 1)}


def test_days_that_are_behind_are_not_compared(lake: Lake, client: Any) -> None:
    events = generate(6)
    day = compact(lake, events)[0]
    more = [event for event in generate(7) if to_datetime(event.time).date() == day]
    mirror(lake, to_frame(more))
    with pytest.raises(NotReadyError, match=f"has rows of {day} that tiles/shop_orders was not built from"):
        stream_versus_batch(lake, client, shop_orders, plan_of(shop_orders), day)
    assert tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day).agrees
    compact_events(lake, orders, [day])
    with pytest.raises(NotReadyError, match=r"tiles of 2024-03-01 are built from .* raw rows, its events from"):
        tiles_versus_events(lake, shop_orders, plan_of(shop_orders), day)


def test_scratch_versions_are_deleted_whatever_happens(lake: Lake, client: Any) -> None:
    plan = plan_of(shop_orders)
    mirror(lake, to_frame(generate(8, 100)))

    def die_within() -> None:
        with scratch_version(client, plan) as version:
            replay_table(client, lake, orders, [(shop_orders, version)], start=BEGINNING, end=2**60, fence=False)
            assert client.keys("rtml:{*")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        die_within()
    assert not client.keys("rtml:{*")
    killed = scratch_version(client, plan, now=HOUR)
    left = killed.__enter__()
    replay_table(client, lake, orders, [(shop_orders, left)], start=BEGINNING, end=2**60, fence=False)
    with scratch_version(client, plan, now=HOUR + LONGEST_USE):
        assert client.keys("rtml:{*")  # it may still be at work
    with scratch_version(client, plan, now=HOUR + LONGEST_USE + 1):
        assert not client.keys("rtml:{*")
    assert not client.exists(keys.scratch("shop_orders"))
    killed.__exit__(None, None, None)
