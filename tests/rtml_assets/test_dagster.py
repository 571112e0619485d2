"""What Dagster shows and runs: real runs, a real instance, one Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl
import pytest

import rtml
from rtml.instants import MINUTE, to_instant
from rtml.lake import QUARANTINE, raw_schema, tiles_schema
from rtml.online import keys
from rtml.registry import Registry
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.compaction import in_stretches
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.materialize import CompactionError, materialize_days
from rtml_assets.tables import delta
from rtml_assets.tables.land import land
from rtml_assets.tables.touched import touched_days
from streaming.versions import find_version, live_version
from tests.rtml_assets.orders import REGISTRY, Order, generate, orders, plan_of, shop_orders, till_orders, to_frame
from tests.rtml_assets.test_events import days_of, mirror
from tests.rtml_assets.test_publish import check_served

EVENTS = generate(1, 500, days=3)
FRAME = to_frame(EVENTS)
PLANS = [plan_of(view) for view in (shop_orders, till_orders)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def deployment(settings: Any) -> Deployment:
    return Deployment(settings, REGISTRY)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def schedule_of(deployment: Deployment) -> Any:
    schedules = definitions_of(deployment).schedules or ()
    return next(schedule for schedule in schedules if schedule.name == "compact_orders_hourly")


def sensor_of(deployment: Deployment) -> Any:
    sensors = definitions_of(deployment).sensors or ()
    return next(sensor for sensor in sensors if sensor.name == "stream_figures")


def figures_of(instance: dg.DagsterInstance, table: str, day: date | None = None) -> dict[str, Any]:
    """Return what was last told of an asset of orders, or of a day of it."""
    days = None if day is None else [str(day)]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey([table, "orders"]), asset_partitions=days)
    found = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert found is not None
    return {name: value.value for name, value in found.metadata.items()}


def tables(lake: Any) -> list[pl.DataFrame]:
    found = [delta.scan(delta.open_table(lake.events("orders")), raw_schema(orders)).collect().sort("at", "id64")]
    for plan in PLANS:
        rows = delta.scan(delta.open_table(lake.tiles(plan.view)), tiles_schema(plan)).collect()
        found.append(rows.sort(*plan.key_names, "level", "tile_start"))
    return found


def test_every_asset_says_what_it_is(deployment):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        definitions = definitions_of(deployment)
    graph = definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert names == {
        *(f"{table}/orders" for table in ("stream", "raw", "quarantine", "events", "late")),
        *(f"{table}/{view}" for table in ("tiles", "published", "features") for view in ("shop_orders", "till_orders")),
        "promotion/sales",
        "served/sales",
    }
    parents = {
        key.to_user_string(): {up.to_user_string() for up in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents["events/orders"] == {"raw/orders"}
    assert parents["raw/orders"] == parents["quarantine/orders"] == {"stream/orders"}
    quarantine: Any = graph.get(dg.AssetKey(["quarantine", "orders"]))
    assert (quarantine.group_name, set(quarantine.kinds)) == ("orders", {"bytewax", "deltalake"})
    assert "refused" in quarantine.description
    assert [column.name for column in quarantine.metadata["dagster/column_schema"].columns] == list(QUARANTINE)
    assert all(graph.get(key).code_version for key in graph.get_all_asset_keys())
    assert parents["tiles/shop_orders"] == {"events/orders"}
    assert parents["published/shop_orders"] == {"tiles/shop_orders", "events/orders"}
    assert parents["promotion/sales"] == {"published/shop_orders", "published/till_orders"}
    assert parents["late/orders"] == {"published/shop_orders", "published/till_orders"}
    events: Any = graph.get(dg.AssetKey(["events", "orders"]))
    assert events.group_name == "orders"
    assert events.owners == ["team:shops", "ada@example.org"]
    assert events.tags["tier"] == "1"
    assert "not a tag" not in events.tags
    assert set(events.kinds) == {"deltalake", "polars"}
    assert events.partitions_def.get_first_partition_key() == "2024-03-01"
    assert events.partitions_def.get_last_partition_key() == "2024-04-30"
    columns = {column.name: column for column in events.metadata["dagster/column_schema"].columns}
    assert list(columns) == list(raw_schema(orders))
    assert columns["price"].description.startswith("may be null; greater_than_or_equal_to")
    assert graph.get(dg.AssetKey(["tiles", "shop_orders"])).code_version == plan_of(shop_orders).fingerprint
    assert graph.get(dg.AssetKey(["stream", "orders"])).freshness_policy is not None
    assert graph.get(dg.AssetKey(["raw", "orders"])).is_external
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {"contract", "levels_agree"}


def test_touched_days_are_built_and_published_in_real_runs(settings, lake, client, instance):
    land(lake, client, orders, FRAME)
    summary = materialize_days(settings, REGISTRY, instance=instance)
    days = days_of(FRAME)
    assert summary.days == {"orders": days}
    assert summary.rows["events/orders"] == FRAME["order_id"].n_unique()
    assert summary.published["shop_orders"]["state"] == "ready"
    assert summary.warnings == []
    assert touched_days(lake, orders, PLANS) == []
    versions = {plan.view: version for plan in PLANS if (version := live_version(client, plan.view, plan.fingerprint))}
    assert check_served(settings, client, EVENTS, versions, EVENTS[-1].ingested, EVENTS[-1].ingested) > 10
    for key in (["raw", "orders"], ["events", "orders"], ["tiles", "shop_orders"], ["tiles", "till_orders"]):
        assert instance.get_materialized_partitions(dg.AssetKey(key)) == {str(day) for day in days}
    record = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(["events", "orders"]), asset_partitions=[str(days[0])]), limit=1
    ).records[0]
    metadata = record.asset_materialization.metadata
    assert metadata["dagster/partition_row_count"].value == metadata["rows"].value < summary.rows["events/orders"]
    assert (
        figures_of(instance, "raw", days[0])["dagster/partition_row_count"]
        == FRAME.filter(pl.col("at").dt.date() == days[0]).height
    )
    kept = delta.rows_by_day(delta.open_table(lake.late("orders")))
    assert figures_of(instance, "late")["dagster/row_count"] == sum(kept.values()) > 0
    before = tables(lake)
    again = materialize_days(settings, REGISTRY, days, instance=instance, durable=False)
    assert again.rows == summary.rows
    assert all(left.equals(right) for left, right in zip(before, tables(lake), strict=True))


def test_only_what_is_touched_is_built_and_gaps_make_runs_of_their_own(settings, lake, client, instance):
    land(lake, client, orders, FRAME)
    materialize_days(settings, REGISTRY, instance=instance)
    runs = instance.get_runs_count()
    assert materialize_days(settings, REGISTRY, instance=instance).days == {"orders": []}
    assert instance.get_runs_count() == runs + 1  # publishing alone
    days = days_of(FRAME)
    for day in (days[0], days[-1]):
        some = FRAME.filter(pl.col("at").dt.date() == day).head(1)
        mirror(lake, some.with_columns(pl.lit(f"more {day}").alias("order_id")))
    summary = materialize_days(settings, REGISTRY, instance=instance)
    assert summary.days == {"orders": [days[0], days[-1]]}
    assert summary.warnings == []
    assert instance.get_runs_count() == runs + 3
    assert set(summary.published) == {"shop_orders", "till_orders"}


def test_days_outside_the_sources_history_are_told(settings, lake, client):
    day = pl.lit(date(2024, 5, 2)).cast(pl.Datetime("us", "UTC"))
    mirror(lake, FRAME.head(1).with_columns(day.alias("at"), day.alias("ingested_at")))
    (warning,) = materialize_days(settings, REGISTRY).warnings
    assert warning.startswith("source 'orders' (orders.py:")
    assert "starts and ends leave out 1 days, such as 2024-05-02" in warning


def test_a_broken_contract_stops_the_run_and_is_named(settings, lake, client, instance):
    land(lake, client, orders, FRAME)
    days = days_of(FRAME)
    bad = FRAME.filter(pl.col("at").dt.date() == days[1]).head(1)
    mirror(lake, bad.with_columns(pl.lit("bad").alias("order_id"), pl.lit(9_999, pl.Int64).alias("items")))
    with pytest.raises(CompactionError, match=r"check 'contract' of events/orders: .*items: less_than") as failed:
        materialize_days(settings, REGISTRY, instance=instance)
    assert "asset events/orders" in str(failed.value)
    assert find_version(client, plan_of(shop_orders)) is None
    assert touched_days(lake, orders) == [days[1]]
    good = {str(day) for day in days if day != days[1]}
    assert {str(day) for day in delta.rows_by_day(delta.open_table(lake.tiles("shop_orders")))} == good
    assert instance.get_materialized_partitions(dg.AssetKey(["events", "orders"])) == good
    assert (
        figures_of(instance, "events", days[0])["rows"]
        == delta.rows_by_day(delta.open_table(lake.events("orders")))[days[0]]
    )


def test_a_failing_asset_is_named(settings, lake, client, instance):
    land(lake, client, orders, FRAME)
    away = msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(CompactionError, match=r"asset published/shop_orders: .*Connection refused"):
        materialize_days(away, REGISTRY, instance=instance)


def test_days_of_a_later_year_than_the_machines_have_partitions_too(settings, lake, client):
    source = rtml.EventSource(
        name="later", schema=Order, timestamp="at", event_id="order_id", stream=rtml.RedisStream("later"),
        starts="2090-01-01", ends="2090-12-31",
    )  # fmt: skip
    day = pl.lit(date(2090, 3, 1)).cast(pl.Datetime("us", "UTC"))
    land(lake, client, source, FRAME.with_columns(day.alias("at"), day.alias("ingested_at")))
    summary = materialize_days(settings, Registry.of([source]))
    assert summary.days == {"later": [date(2090, 3, 1)]}
    assert summary.rows["events/later"] == FRAME["order_id"].n_unique()


def test_the_schedule_asks_for_stretches_of_touched_days(deployment, lake, client, instance):
    schedule = schedule_of(deployment)
    context = dg.build_schedule_context(instance=instance)
    (only,) = schedule(context)
    assert {key.to_user_string() for key in only.asset_selection} == {"published/shop_orders", "published/till_orders"}
    land(lake, client, orders, FRAME)
    first, *_, last = days_of(FRAME)
    (whole,) = schedule(context)
    assert whole.tags["dagster/asset_partition_range_start"] == str(first)
    assert whole.tags["dagster/asset_partition_range_end"] == str(last)
    assert len(whole.asset_selection) == 5
    job = definitions_of(deployment).resolve_job_def("compact_orders")
    chosen = job.get_subset(
        asset_selection=set(whole.asset_selection), asset_check_selection=set(whole.asset_check_keys)
    )
    result = chosen.execute_in_process(instance=instance, tags=whole.tags)
    assert result.success
    assert touched_days(lake, orders, PLANS) == []


def test_stretches():
    first = date(2024, 2, 28)
    days = [first, first + timedelta(days=1), first + timedelta(days=3)]
    assert list(in_stretches(days)) == [(days[0], days[1]), (days[2], days[2])]
    assert list(in_stretches([])) == []


def test_the_sensor_reports_what_the_stream_says_of_itself(deployment, client, instance):
    sensor = sensor_of(deployment)
    skipped = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason)
    assert "no stream has written figures" in str(skipped.skip_message)
    client.hset(
        keys.figures("orders", "tiles"),
        mapping={"accepted": 12, "freshness_p99_ms": "2.5", "position": "7-0", "updated_at": to_instant("2024-03-01")},
    )
    client.hset(keys.figures("orders", "mirror"), mapping={"lag_ms": 3, "updated_at": 5})
    result = sensor(dg.build_sensor_context(instance=instance))
    stream, raw = result.asset_events
    assert isinstance(stream, dg.AssetMaterialization)
    assert stream.asset_key == dg.AssetKey(["stream", "orders"])
    assert stream.metadata["accepted"].value == 12
    assert stream.metadata["freshness_p99_ms"].value == 2.5
    assert "position" not in stream.metadata
    assert "reported 2 sets" in str(result.skip_reason.skip_message)
    assert isinstance(raw, dg.AssetObservation)
    assert raw.asset_key == dg.AssetKey(["raw", "orders"])
    again = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
    assert isinstance(again, dg.SkipReason)
    assert "none is running" in str(again.skip_message)
    client.hset(keys.figures("orders", "tiles"), "updated_at", to_instant("2024-03-01") + MINUTE)
    renewed = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
    assert [event.asset_key.path[0] for event in renewed.asset_events] == ["stream"]
    assert len(json.loads(renewed.cursor)) == 2


def test_the_sensor_skips_when_redis_is_away(settings, instance):
    away = Deployment(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0"), REGISTRY)
    sensor = sensor_of(away)
    skipped = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason)
    assert "Redis does not answer" in str(skipped.skip_message)


def test_the_definitions_load_without_a_warning_and_without_great_expectations(tmp_path):
    code = (
        "import sys, rtml_assets.definitions as d; d.defs.resolve_asset_graph(); "
        "sys.exit('great_expectations' in sys.modules or 'bytewax' in sys.modules)"
    )
    environment = {**os.environ, "RTML_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
