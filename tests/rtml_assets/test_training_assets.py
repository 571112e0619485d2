"""`features/<view>`, `training/<service>` and the log, in real runs, against the oracle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

import rtml
from rtml import (
    Count,
    Entity,
    EventSource,
    FeatureService,
    LabelSource,
    Last,
    RedisStream,
    Spine,
    StreamFeatureView,
    Sum,
)
from rtml.columns import TIMESTAMP
from rtml.errors import DefinitionError, LeftOutWarning, RequestError
from rtml.instants import DAY, HOUR, to_datetime, to_instant
from rtml.lake import Lake, features_schema, raw_schema, training_schema
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.compaction import range_tags
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.training_assets import markdown
from rtml_assets.store import FeatureStore
from rtml_assets.tables import delta
from rtml_assets.tables import snapshots as snapshots_module
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.snapshots import build_snapshots, instants_of
from rtml_assets.tables.training_days import build_training
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import START, entity_of, generate, orders, shop_orders, to_frame
from tests.rtml_assets.test_events import days_of, mirror
from tests.rtml_assets.test_training_set import sales as trained
from tests.rtml_assets.test_training_set import truly, wrong_features, wrong_labels

EVENTS = generate(9, 400, days=3)
FRAME = to_frame(EVENTS)
DAYS = days_of(FRAME)

every_8h = StreamFeatureView(
    name="every_8h",
    source=orders,
    entity=Entity("till", join_keys=["shop", "till"]),
    derive={"late": pl.col("items") > 0},
    features=[Count(windows=["3h", "30h"]), Sum("late", windows=["3h"], name="late"), Last("items", windows=["30h"])],
    snapshots="8h",
    description="What a till sold",
)
REGISTRY = Registry.of([trained, every_8h])
PLAN = REGISTRY.plans["every_8h"]


@pytest.fixture
def lake(tmp_path: Any) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    mirror(lake, FRAME)
    compact_events(lake, orders, DAYS)
    return lake


@pytest.fixture
def deployment(lake: Lake) -> Deployment:
    return Deployment(Settings(lake=lake.root, redis_url="redis://127.0.0.1:1/0"), REGISTRY)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def build(deployment: Deployment, instance: dg.DagsterInstance, table: str, name: str, days: list[date]) -> None:
    """Materialise days of an asset in one run."""
    result = (
        definitions_of(deployment)
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey([table, name])], tags=range_tags(days[0], days[-1])
        )
    )
    assert result.success


def figures_of(instance: dg.DagsterInstance, table: str, name: str, day: date) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey([table, name]), asset_partitions=[str(day)])
    found = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert found is not None
    return {name: value.value for name, value in found.metadata.items()}


def snapshots(events: list[Event], days: list[date]) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """What `every_8h` is: by shop, till and instant."""
    found: dict[tuple[str, int, int], tuple[Any, ...]] = {}
    mine = [
        Event(
            f"{e.key}/{e.values['till']}", e.time, e.id64, e.ingested, {**e.values, "late": int(e.values["items"] > 0)}
        )
        for e in truly(events)
    ]
    for day in days:
        for number in (1, 2, 3):
            at = to_instant(day) + number * 8 * HOUR
            for shop, till in {(e.key, e.values["till"]) for e in events}:
                window = partial(oracle.window, mine, f"{shop}/{till}", at)
                long, short = window(30 * HOUR, PLAN.tiles.finest), window(3 * HOUR)
                if long:
                    values = (len(short), len(long), oracle.value("sum", short, "late"), long[-1].values["items"])
                    found[shop, till, at] = values
    return found


def as_found(rows: pl.DataFrame) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    columns = ["count_3h", "count_30h", "late_3h", "items_last_30h"]
    at = rows["timestamp"].dt.epoch("us")
    keys = zip(rows["shop"], rows["till"], at, strict=True)
    return dict(zip(keys, rows.select(columns).rows(), strict=True))


@pytest.mark.parametrize(("limit", "at_once"), [(8_000_000, 2_000_000), (90, 2_000_000), (7, 1), (8_000_000, 40)])
def test_snapshots_are_of_every_entity_with_events_in_reach(
    lake: Lake, limit: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_ROWS_AT_ONCE", at_once)
    days = [*DAYS, DAYS[-1] + timedelta(days=1), DAYS[-1] + timedelta(days=5)]
    figures = build_snapshots(lake, every_8h, PLAN, days, limit)
    rows = pl.read_delta(lake.features("every_8h"))
    assert dict(rows.schema) == features_schema(PLAN)
    expected = snapshots(EVENTS, days)
    assert len(expected) == rows.height
    assert as_found(rows) == expected
    assert rows.filter((pl.col("timestamp") - pl.duration(microseconds=1)).dt.date() != pl.col("event_date")).is_empty()
    assert [day.day for day in figures] == days
    assert sum(day.rows for day in figures) == rows.height
    assert figures[-1].rows == 0  # nothing happened within 30 hours
    table = delta.open_table(lake.features("every_8h"))
    assert table is not None
    if at_once < 2_000_000:  # six entities, thrice a day: two days at a time, or each alone
        assert table.version() == (3 if at_once == 40 else len(days))
    again = build_snapshots(lake, every_8h, PLAN, [DAYS[1]], limit)
    assert again[0].rows == figures[1].rows
    assert pl.read_delta(lake.features("every_8h")).height == rows.height


def test_by_default_there_is_one_instant_the_end_of_the_day() -> None:
    assert instants_of(shop_orders, date(2024, 3, 1)).tolist() == [START + DAY]
    assert instants_of(every_8h, date(2024, 3, 1)).tolist() == [START + 8 * HOUR, START + 16 * HOUR, START + DAY]


def test_features_are_described_and_shown(deployment: Deployment, instance: dg.DagsterInstance, lake: Lake) -> None:
    build(deployment, instance, "features", "every_8h", DAYS)
    figures = figures_of(instance, "features", "every_8h", DAYS[0])
    rows = pl.read_delta(lake.features("every_8h")).filter(pl.col("event_date") == DAYS[0])
    assert figures["rows"] == figures["dagster/partition_row_count"] == rows.height > 0
    assert figures["entities"] == rows.select("shop", "till").n_unique()
    assert figures["sample"].startswith("| shop | till | timestamp | count_3h | count_30h | late_3h | items_last_30h |")
    node: Any = definitions_of(deployment).resolve_asset_graph().get(dg.AssetKey(["features", "every_8h"]))
    notes = {column.name: column.description for column in node.metadata["dagster/column_schema"].columns}
    assert notes["count_30h"] == "count of events, 30h, left edge floored to 5m: counts up to 5m more"
    assert notes["late_3h"] == "sum of late, 3h, exact to the microsecond"
    assert node.description.startswith("What a till sold: the values of every till with events in a window, every 8h")
    assert node.group_name == "every_8h"


def test_a_table_of_cells_stays_one() -> None:
    odd = pl.DataFrame({"a|b": ["x|y", "two\nlines", None], "n": [1.23456789, None, 2.0]})
    assert markdown(odd).splitlines()[2:] == ["| x\\|y | 1.235 |", "| two lines |  |", "|  | 2 |"]
    assert markdown(pl.DataFrame({f"c{n}": [n] for n in range(40)})).splitlines()[0].count("c") == 12


@pytest.mark.parametrize("limit", [8_000_000, 60])
def test_a_services_own_training_set(lake: Lake, limit: int) -> None:
    built = build_training(lake, REGISTRY, "sales", DAYS, limit)
    assert built.missing == []
    rows = pl.read_delta(lake.training("sales")).sort("timestamp")
    assert dict(rows.schema) == training_schema(trained, REGISTRY.plans)
    wanted = sorted((e.time, e.key, e.values["till"]) for e in truly(EVENTS) if e.values["items"] > 0)
    got = sorted(zip(rows["timestamp"].dt.epoch("us"), rows["shop"], rows["till"], strict=True))
    assert got == wanted
    assert wrong_features(rows, EVENTS, {"shop_orders": {}, "till_orders": {}}, "serving") == []
    assert wrong_labels(rows, EVENTS) == []
    for figures in built.days:
        of_day = rows.filter(pl.col("event_date") == figures.day)
        assert figures.rows == of_day.height
        assert figures.mature["next_order"] == (of_day["next_order__mature"].mean() if of_day.height else 1.0)
        if of_day.height:
            nulls = of_day["till_orders__value_last_3h"].null_count()
            assert figures.nulls["till_orders__value_last_3h"] == nulls / of_day.height


def test_training_days_are_replaced_and_say_what_lacks(
    deployment: Deployment, instance: dg.DagsterInstance, lake: Lake
) -> None:
    build(deployment, instance, "training", "sales", DAYS)
    first = pl.read_delta(lake.training("sales"))
    figures = figures_of(instance, "training", "sales", DAYS[0])
    assert figures["rows"] == first.filter(pl.col("event_date") == DAYS[0]).height
    assert figures["next_order_mature"] == 1.0
    assert 0 < figures["null_share"] < 1
    assert "| `next_order__price` | " in figures["null_shares"]
    build(deployment, instance, "training", "sales", DAYS[:1])
    order = ["timestamp", "shop", "till", "big"]
    assert pl.read_delta(lake.training("sales")).sort(order).equals(first.sort(order))
    mirror(lake, FRAME.head(1).with_columns(pl.lit("more").alias("order_id")))
    assert "1 days of source 'orders'" in build_training(lake, REGISTRY, "sales", DAYS[:1]).missing[0]


def test_a_training_set_says_what_it_is_made_of(deployment: Deployment) -> None:
    definitions = definitions_of(deployment)
    graph = definitions.resolve_asset_graph()
    node: Any = graph.get(dg.AssetKey(["training", "sales"]))
    assert {key.to_user_string() for key in node.parent_keys} == {"events/orders", "late/orders"}
    notes = {column.name: column.description for column in node.metadata["dagster/column_schema"].columns}
    assert notes["next_order__price"] == "price of orders, as known 5h after timestamp"
    assert notes["till_orders__count_3h"] == "count of events, 3h, exact to the microsecond"
    mapping = node.partition_mappings[dg.AssetKey(["events", "orders"])]
    assert (mapping.start_offset, mapping.end_offset) == (-2, 1)
    assert {"compact_orders", "training_sales", "promote_sales"} < {job.name for job in definitions.jobs or ()}


def test_a_service_without_a_spine_has_no_training_set(lake: Lake, tmp_path: Any) -> None:
    plain = FeatureService("plain", features=[shop_orders])
    registry = Registry.of([plain])
    with pytest.raises(DefinitionError, match=r"service 'plain' has no training=Spine\(\.\.\.\)"):
        build_training(lake, registry, "plain", DAYS)
    graph = definitions_of(Deployment(Settings(lake=str(tmp_path)), registry)).resolve_asset_graph()
    assert dg.AssetKey(["training", "plain"]) not in graph.get_all_asset_keys()


def test_keys_of_one_name_and_two_types_have_no_column(lake: Lake) -> None:
    class Visit(orders.schema):  # type: ignore[name-defined,misc]
        till: str

    visits = EventSource(name="visits", schema=Visit, timestamp="at", stream=RedisStream("visits"))
    other = StreamFeatureView(
        name="other", source=visits, entity=Entity("visited", join_keys=["till"]), features=[Count(windows=["1h"])]
    )
    registry = Registry.of([FeatureService("both", features=[every_8h, other])])
    with (
        FeatureStore(Settings(lake=lake.root), registry) as store,
        pytest.raises(RequestError, match=r"'till' is an integer in view 'every_8h' and a string in view 'other'"),
    ):
        store.get_historical_features("both", FRAME)


class TestTheLog:
    """`served/<service>`, as a server writes it."""

    @pytest.fixture
    def log(self, lake: Lake) -> pl.DataFrame:
        rng = random.Random(4)
        chosen = [rng.choice(EVENTS) for _ in range(40)]
        at = [event.time + rng.randrange(HOUR) for event in chosen]
        times = {
            name: pl.Series(at, dtype=pl.Int64).cast(TIMESTAMP) for name in ("timestamp", "served_at", "watermark")
        }
        frame = pl.DataFrame([entity_of(event) for event in chosen]).with_columns(**times)
        rows = frame.with_columns(
            shop_orders__count_24h=pl.Series(np.arange(40)),
            shop_orders__version=pl.lit("abc.1"),
            event_date=pl.col("timestamp").dt.date(),
        )
        write_deltalake(lake.served("sales"), rows, partition_by=["event_date"])
        return rows

    @pytest.fixture
    def store(self, lake: Lake) -> Iterator[FeatureStore]:
        with FeatureStore(Settings(lake=lake.root, redis_url="redis://127.0.0.1:1/0"), REGISTRY) as store:
            yield store

    def test_it_is_returned_as_it_is_with_labels(self, store: FeatureStore, log: pl.DataFrame) -> None:
        got = store.get_logged_features("sales", labels=["next_order"])
        logged = [name for name in log.columns if name != "event_date"]
        assert got.columns == [*logged, "next_order__price", "next_order__order_id", "next_order__mature"]
        assert got["timestamp"].is_sorted()
        order = ["shop_orders__count_24h"]
        assert got.select(logged).sort(order).equals(log.select(logged).sort(order))
        assert wrong_labels(got, EVENTS) == []
        assert got["next_order__price"].count() > 0

    def test_some_of_it(self, store: FeatureStore, log: pl.DataFrame) -> None:
        first, last = (log["timestamp"].sort()[number] for number in (5, 15))
        got = store.get_logged_features("sales", start=first, end=last)
        inside = log.filter(pl.col("timestamp").is_between(first, last, closed="left"))
        assert got["shop_orders__count_24h"].sort().to_list() == inside["shop_orders__count_24h"].sort().to_list()
        assert got["timestamp"].min() == first
        assert store.get_logged_features("sales", start=to_datetime(START + 900 * DAY)).height == 0

    @pytest.mark.parametrize("column", ["watermark", "shop_orders__last_ingested", "shop_orders__published_to"])
    def test_what_may_know_of_its_future_is_left_out(
        self, store: FeatureStore, log: pl.DataFrame, lake: Lake, column: str
    ) -> None:
        """As the server's clock, its position and what is published lie: up to the instant asked, or beyond."""
        unknown = pl.lit(None, dtype=TIMESTAMP)
        whole = log.with_columns(
            shop_orders__last_ingested=pl.col("timestamp"), shop_orders__published_to=pl.col("timestamp")
        )
        number = pl.col("shop_orders__count_24h")
        later = pl.col("timestamp") + pl.duration(microseconds=1)
        changed = pl.when(number < 3).then(later).when(number < 6).then(unknown).otherwise(pl.col("timestamp"))
        write_deltalake(
            lake.served("sales"), whole.with_columns(changed.alias(column)), mode="overwrite", schema_mode="overwrite"
        )
        with pytest.warns(LeftOutWarning, match=r"served/sales: 3 of 40 rows answer for instants that were past"):
            got = store.get_logged_features("sales", labels=["next_order"])
        assert sorted(got["shop_orders__count_24h"]) == list(range(3, 40))
        assert wrong_labels(got, EVENTS) == []
        assert store.get_logged_features("sales", past=True).height == 40

    def test_nothing_was_logged(self, store: FeatureStore) -> None:
        with pytest.raises(RequestError, match=r"no table served/sales\. Servers log the share log=0\.01"):
            store.get_logged_features("sales")

    def test_a_label_of_other_keys(self, store: FeatureStore, log: pl.DataFrame) -> None:
        assert log.height
        other = LabelSource(name="o", source=orders, join_keys=["order_id"], labels=["price"], horizon="1h")
        with pytest.raises(RequestError, match=r"served/sales: no column 'order_id'"):
            store.get_logged_features("sales", labels=[other])


def test_a_spine_may_be_all_events(lake: Lake) -> None:
    all_of_them = FeatureService("all", features=[every_8h], training=Spine(orders))
    built = build_training(lake, Registry.of([all_of_them]), "all", DAYS)
    assert sum(day.rows for day in built.days) == len(truly(EVENTS))
    assert all(day.mature == {} for day in built.days)


class Odd(rtml.Event):
    """Columns that are called as the platform's own."""

    event_id: str
    when: rtml.Timestamp
    at: str
    late: int
    known_at: float
    seen: int
    published_at: int


def test_a_users_columns_may_be_called_as_ours(tmp_path: Any) -> None:
    source = EventSource(
        name="odd", schema=Odd, timestamp="when", event_id="event_id", stream=RedisStream("odd"), starts="2024-03-01"
    )
    view = StreamFeatureView(
        name="odd_view",
        source=source,
        entity=Entity("odd", join_keys=["at", "late"]),
        features=[Sum("known_at", windows=["1h"]), Last("seen", windows=["1h"]), Last("published_at", windows=["1h"])],
    )
    outcome = LabelSource(name="later", source=source, join_keys=["at"], labels=["at", "late"], horizon="1h")
    service = FeatureService("odd_service", features=[view], training=Spine(source, labels=[outcome]))
    registry, lake = Registry.of([service]), Lake(str(tmp_path))
    times = pl.Series([START, START + HOUR // 2, START + 3 * HOUR]).cast(TIMESTAMP)
    rows = pl.DataFrame({"event_id": ["a", "b", "c"], "when": times, "at": ["x"] * 3, "late": [7] * 3})
    rows = rows.with_columns(known_at=pl.Series([0.5, 1.5, 2.5]), seen=pl.Series([1, 2, 3]), published_at=9)
    raw = rows.with_columns(ingested_at=times, id64=pl.Series([1, 2, 3]), event_date=times.dt.date())
    delta.append(lake.raw("odd"), raw.select(*raw_schema(source)))
    day = to_datetime(START).date()
    compact_events(lake, source, [day])
    build_training(lake, registry, "odd_service", [day])
    build_snapshots(lake, view, registry.plans["odd_view"], [day])
    made = pl.read_delta(lake.training("odd_service")).sort("timestamp")
    assert dict(made.schema) == training_schema(service, registry.plans)
    assert made["odd_view__known_at_sum_1h"].to_list() == [None, 0.5, None]
    assert made["odd_view__seen_last_1h"].to_list() == [None, 1, None]
    assert made["odd_view__published_at_last_1h"].to_list() == [None, 9, None]
    assert made["later__late"].to_list() == [7, 7, None]
    assert made["later__mature"].to_list() == [True, True, False]
    snapshot = pl.read_delta(lake.features("odd_view"))
    assert dict(snapshot.schema) == features_schema(registry.plans["odd_view"])
    assert snapshot.height == 0  # nothing in the last hour of the day
