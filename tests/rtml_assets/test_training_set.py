"""Training sets against the oracle, and read in small portions against read at once."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from rtml import FeatureService, LabelSource, NotBuiltWarning, Spine
from rtml.columns import TIMESTAMP
from rtml.errors import InstantError, NotReadyError, RequestError, UnknownNameError
from rtml.instants import DAY, HOUR, MINUTE, SECOND, to_datetime
from rtml.lake import LATE, Lake
from rtml.online import keys
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.store import FeatureStore
from rtml_assets.tables import delta, training_set
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.seen import Asked
from rtml_assets.tables.spans import Reach, Span, spans
from rtml_assets.tables.spine import check_spine
from rtml_assets.tables.training_set import TrainingSet, load_part
from streaming.positions import Position, raise_position
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import (
    LATENESS,
    START,
    entity_of,
    generate,
    key_of,
    orders,
    seen_by,
    shop_orders,
    till_orders,
    to_frame,
)
from tests.rtml_assets.test_events import days_of, mirror

HORIZON = 5 * HOUR
next_order = LabelSource(
    name="next_order", source=orders, join_keys=["shop", "till"], labels=["price", "order_id"], horizon="5h"
)
sales = FeatureService(
    "sales",
    features=[till_orders, shop_orders[["count_24h", "price_mean_24h", "items_last_30m"]]],
    training=Spine(orders, where=pl.col("items") > 0, labels=[next_order]),
)
REGISTRY = Registry.of([sales])
FEATURES = [f"{view.name}__{name}" for view, name in sales.columns]


def truly(events: list[Event]) -> list[Event]:
    return oracle.counted(events, LATENESS, late_too=True)


def published(lake: Lake, events: list[Event], rng: random.Random) -> dict[str, dict[tuple[int, int], int]]:
    """Publish some late events, of two versions of a view; return when each became servable."""
    found: dict[str, dict[tuple[int, int], int]] = {"shop_orders": {}, "till_orders": {}}
    rows = []
    for view, times in found.items():
        for event in truly(events):
            if event.ingested - event.time > LATENESS and rng.random() < 0.7:
                for version in rng.sample(["a.1", "b.1"], rng.choice([1, 2])):
                    at = event.ingested + rng.randrange(6 * HOUR)
                    rows.append((view, version, event.time, event.id64, at))
                    known = times.setdefault((event.time, event.id64), at)
                    times[event.time, event.id64] = min(known, at)
    if rows:
        frame = pl.DataFrame(rows, schema=["view", "version", "event_time", "id64", "published_at"], orient="row")
        times_as = [pl.col(name).cast(TIMESTAMP) for name in ("event_time", "published_at")]
        ids = pl.Series("id64", [row[3] for row in rows], dtype=pl.UInt64).reinterpret(signed=True)
        full = frame.with_columns(*times_as, ids).with_columns(event_date=pl.col("event_time").dt.date())
        delta.append(lake.late("orders"), full.select(*LATE))
    return found


def random_spine(events: list[Event], rng: random.Random, count: int) -> pl.DataFrame:
    """Rows at, before and after events, of known and unknown entities, with duplicates, in no order."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        event = rng.choice(events)
        at = event.time + rng.choice([0, 1, -1, rng.randrange(2 * DAY), 30 * MINUTE, 3 * HOUR, DAY, LATENESS])
        at = rng.choice([at, event.ingested, event.ingested - 1])
        rows.append({"mine": number, **entity_of(event), "timestamp": at})
        if rng.random() < 0.2:
            rows[-1]["shop"] = "nobody"
        if rng.random() < 0.2:
            rows.append(dict(rng.choice(rows)))
    rng.shuffle(rows)
    schema = {"mine": pl.Int64, "shop": pl.String, "till": pl.Int8, "big": pl.Boolean, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("timestamp").cast(TIMESTAMP))


def wrong_features(
    got: pl.DataFrame, events: list[Event], late: dict[str, dict[tuple[int, int], int]], known_at: str
) -> list[str]:
    wrong = []
    seen = {view: seen_by(view, truly(events)) for view in late}
    for row in got.to_dicts():
        at = (row["timestamp"] - to_datetime(0)) // (to_datetime(1) - to_datetime(0))
        for view, name in sales.columns:
            feature, plan = REGISTRY.plans[view.name].feature(name), REGISTRY.plans[view.name]
            known = [
                e
                for e in seen[view.name]
                if known_at == "hindsight" or oracle.servable(e, LATENESS, at, late[view.name].get((e.time, e.id64)))
            ]
            floor = 1 if feature.exact else plan.tiles.finest
            inside = oracle.window(known, key_of(view.name, row), at, feature.window, floor, feature.offset)
            expected = oracle.value(feature.aggregate, inside, feature.column)
            value = row[f"{view.name}__{name}"]
            if not oracle.agree(feature.aggregate, value, expected, inside, feature.column):
                wrong.append(f"{view.name}__{name} at {at}: got {value}, expected {expected}")
    return wrong


def wrong_labels(got: pl.DataFrame, events: list[Event]) -> list[str]:
    wrong = []
    mine = [Event(f"{e.key}/{e.values['till']}", e.time, e.id64, e.ingested, e.values) for e in truly(events)]
    newest = max(e.ingested for e in mine) - LATENESS - 30 * SECOND
    for row in got.to_dicts():
        at = (row["timestamp"] - to_datetime(0)) // (to_datetime(1) - to_datetime(0))
        mature = at + HORIZON <= newest
        found = oracle.label(mine, f"{row['shop']}/{row['till']}", at, HORIZON) if mature else None
        expected = (mature, *((found.values["price"], found.values["id"]) if found else (None, None)))
        values = (row["next_order__mature"], row["next_order__price"], row["next_order__order_id"])
        if values != expected:
            wrong.append(f"label at {at}: got {values}, expected {expected}")
    return wrong


@given_settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_training_set_is_the_oracles_however_it_is_read(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    events = generate(seed % 1_000, rng.choice([1, 20, 150]), days=rng.choice([0.5, 4, 12]))
    mirror(lake, to_frame(events))
    compact_events(lake, orders, days_of(to_frame(events)))
    late = published(lake, events, rng)
    spine = random_spine(events, rng, 40)
    known_at = rng.choice(["serving", "hindsight"])
    at_once = TrainingSet.of(lake, REGISTRY, "sales", known_at, ["next_order"])
    got = at_once.compute(at_once.check(spine))
    assert got.columns == [*spine.columns, *FEATURES, "next_order__price", "next_order__order_id", "next_order__mature"]
    assert got.select(spine.columns).equals(spine)
    assert wrong_features(got, events, late, known_at) == []
    assert wrong_labels(got, events) == []
    limit = rng.choice([1, 5, 40, 200])
    in_parts = TrainingSet.of(lake, REGISTRY, "sales", known_at, [next_order], limit)
    parts = in_parts.compute(in_parts.check(spine.lazy()))
    assert wrong_features(parts, events, late, known_at) == []
    exact = ~pl.selectors.float() | pl.selectors.contains("last", "next_order")  # sums may end in another last bit
    assert parts.select(exact).equals(got.select(exact))


@given(
    st.lists(st.integers(0, 40 * DAY), min_size=1, max_size=60),
    st.integers(0, 9 * DAY),
    st.integers(0, 3 * DAY),
    st.integers(1, 500),
    st.lists(st.integers(0, 60), min_size=60, max_size=60),
)
def test_spans_hold_every_row_once_and_all_days_that_it_looks_at(
    offsets: list[int], before: int, after: int, limit: int, sizes: list[int]
) -> None:
    times = np.array(offsets, dtype=np.int64) + START
    first = date(2024, 2, 20)
    counts = {date.fromordinal(first.toordinal() + day): size for day, size in enumerate(sizes) if size}
    found = list(spans(times, Reach(before, after), counts, limit))
    for time in times:
        (span,) = [span for span in found if span.first <= time <= span.last]
        looked_at = {day for day in counts if to_datetime(int(time) - before).date() <= day}
        looked_at &= {day for day in counts if day <= to_datetime(int(time) + after).date()}
        assert looked_at <= set(span.days)
    assert all(left.last < right.first for left, right in pairwise(found))
    for span in found:
        rows = sum(counts[day] for day in span.days)
        assert (span.parts - 1) * limit < rows <= span.parts * limit or rows == 0
    if sum(sizes) <= limit:
        assert len(found) == 1


class TestWithAStore:
    EVENTS = generate(5, 300, days=3)
    SPINE = random_spine(EVENTS, random.Random(3), 50).filter(
        pl.col("timestamp") <= max(to_datetime(event.time) for event in EVENTS)  # after that, one is warned
    )

    @pytest.fixture
    def lake(self, tmp_path: Path) -> Lake:
        lake = Lake(str(tmp_path / "lake"))
        frame = to_frame(self.EVENTS)
        mirror(lake, frame)
        compact_events(lake, orders, days_of(frame))
        return lake

    @pytest.fixture
    def store(self, lake: Lake) -> Iterator[FeatureStore]:
        settings = Settings(home="nowhere", lake=lake.root, redis_url="redis://127.0.0.1:1/0")
        with FeatureStore(settings, REGISTRY) as store:
            yield store

    def test_it_needs_no_redis_and_tells_how_far_it_is(self, store: FeatureStore) -> None:
        told: list[tuple[int, int]] = []
        got = store.get_historical_features("sales", self.SPINE, progress=lambda *now: told.append(now))
        assert wrong_features(got, self.EVENTS, {"shop_orders": {}, "till_orders": {}}, "serving") == []
        assert told[-1] == (self.SPINE.height, self.SPINE.height)
        assert [done for done, _ in told] == sorted(done for done, _ in told)

    @pytest.mark.parametrize("name", ["set.parquet", "deep/er/set.parquet", "table"])
    def test_it_writes_what_it_returns(
        self, store: FeatureStore, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = store.get_historical_features("sales", self.SPINE, labels=["next_order"])
        monkeypatch.setattr(training_set, "SPINE_ROWS_AT_ONCE", 7)
        target, told = tmp_path / name, list[tuple[int, int]]()
        for _ in range(2):  # what is there is replaced
            told.clear()
            rows = store.write_historical_features(
                "sales", self.SPINE, target, labels=["next_order"], progress=lambda *now: told.append(now)
            )
            assert rows == expected.height
        assert len(told) == -(-expected.height // 7)
        if name.endswith(".parquet"):
            assert pl.read_parquet(target).equals(expected)
            assert [path.name for path in target.parent.glob("*part*")] == []
        else:
            order = ["mine", "timestamp", "shop"]
            assert pl.read_delta(str(target)).sort(order).equals(expected.sort(order))

    @pytest.mark.parametrize("name", ["set.parquet", "table"])
    def test_what_goes_wrong_while_it_writes_is_told_and_leaves_what_was(
        self, store: FeatureStore, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / name
        monkeypatch.setattr(training_set, "SPINE_ROWS_AT_ONCE", 7)
        store.write_historical_features("sales", self.SPINE, target)

        def interrupt(done: int, total: int) -> None:
            raise RequestError(f"enough: {done} of {total}")

        with pytest.raises(RequestError, match=f"^enough: 7 of {self.SPINE.height}$"):
            store.write_historical_features("sales", self.SPINE, target, progress=interrupt)
        left = pl.read_parquet(target) if name.endswith(".parquet") else pl.read_delta(str(target))
        assert left.height == self.SPINE.height

    ODD: ClassVar = {
        "kind": pl.lit("x").cast(pl.Categorical),
        "level": pl.lit("low").cast(pl.Enum(["low", "high"])),
        "u8": pl.lit(200, dtype=pl.UInt8),
        "u32": pl.lit(2**32 - 1, dtype=pl.UInt32),
        "u64": pl.lit(2**63 - 1, dtype=pl.UInt64),
        "half": pl.lit(0.5).cast(pl.Float16),
        "pair": pl.lit([1, 255], dtype=pl.Array(pl.UInt8, 2)),
        "nested": pl.struct(kinds=pl.lit("y").cast(pl.Categorical).implode()),
    }

    def test_a_delta_table_holds_what_spines_have(self, store: FeatureStore, tmp_path: Path) -> None:
        spine = self.SPINE.with_columns(pl.col("shop").cast(pl.Categorical), pl.col("till").cast(pl.UInt64), **self.ODD)
        store.write_historical_features("sales", spine, tmp_path / "table")
        got = pl.read_delta(str(tmp_path / "table"))
        assert (
            got.sort("mine")
            .select("mine", "shop", "till")
            .equals(self.SPINE.sort("mine").select("mine", "shop", pl.col("till").cast(pl.Int64)))
        )
        odd = got.select(*self.ODD).row(0)
        assert odd == ("x", "low", 200, 2**32 - 1, 2**63 - 1, 0.5, [1, 255], {"kinds": ["y"]})
        store.write_historical_features("sales", spine, tmp_path / "set.parquet")
        assert pl.read_parquet(tmp_path / "set.parquet").schema["u64"] == pl.UInt64

    @pytest.mark.parametrize(
        ("column", "words"),
        [
            (pl.lit(None), r"column 'x' must be of a type .* got Null: cast it to the type that is meant"),
            (pl.lit(datetime.time(1)), r"column 'x' .* got Time: cast it to pl.String"),
            (pl.duration(hours=1).implode(), r"column 'x' .* got Duration.*total_microseconds"),
            (pl.lit(2**63, dtype=pl.UInt64), r"column 'x' must fit signed 64 bits.* got UInt64"),
        ],
    )
    def test_a_delta_table_refuses_what_it_has_no_type_for(
        self, store: FeatureStore, tmp_path: Path, column: pl.Expr, words: str
    ) -> None:
        spine = self.SPINE.with_columns(x=column)
        with pytest.raises(RequestError, match=words):
            store.write_historical_features("sales", spine, tmp_path / "table")
        assert store.write_historical_features("sales", spine, tmp_path / "set.parquet") == spine.height

    def test_late_events_that_no_row_can_know_are_not_loaded(self, lake: Lake) -> None:
        last = max(event.ingested for event in self.EVENTS)
        keys = pl.DataFrame({"shop": sorted({event.key for event in self.EVENTS})})
        asked = Asked.of(shop_orders, REGISTRY.plans["shop_orders"], ["count_24h"])
        days = days_of(to_frame(self.EVENTS))
        loaded = load_part(lake, asked, keys, Span(START, last, tuple(days), 1), "serving")
        late = [event for event in truly(self.EVENTS) if event.ingested - event.time > LATENESS]
        assert 0 < len(late) == len(truly(self.EVENTS)) - loaded.height
        assert not loaded["late"].any()

    def test_an_empty_spine_gives_an_empty_set(self, store: FeatureStore, tmp_path: Path) -> None:
        got = store.get_historical_features("sales", self.SPINE.clear(), labels=[next_order])
        assert got.height == 0
        assert got.schema["till_orders__count_3h"] == pl.Int64
        assert got.schema["next_order__order_id"] == pl.String
        assert store.write_historical_features("sales", self.SPINE.clear(), tmp_path / "none.parquet") == 0
        assert pl.read_parquet(tmp_path / "none.parquet").columns == [*self.SPINE.columns, *FEATURES]

    def test_a_lake_without_the_events_is_an_error(self, tmp_path: Path) -> None:
        lake = Lake(str(tmp_path))
        with FeatureStore(Settings(lake=lake.root), REGISTRY) as store:
            for ask in (
                lambda: store.get_historical_features("sales", self.SPINE),
                lambda: store.write_historical_features("sales", self.SPINE, tmp_path / "set.parquet"),
            ):
                with pytest.raises(NotReadyError, match=r"no table events/orders in the lake .* no raw/orders either"):
                    ask()
            mirror(lake, to_frame(self.EVENTS[:1]))
            with pytest.raises(
                NotReadyError, match=r"raw/orders has 1 days.*compact_orders.*`rtml backfill till_orders`"
            ):
                store.get_historical_features("sales", self.SPINE)

    def test_entities_without_events_have_the_documented_empty_values(self, store: FeatureStore) -> None:
        nobody = self.SPINE.with_columns(shop=pl.lit("nobody"))
        got = store.get_historical_features("sales", nobody, labels=["next_order"])
        assert got["till_orders__count_3h"].to_list() == [0] * self.SPINE.height
        assert got["till_orders__value_sum_3h"].null_count() == self.SPINE.height
        assert got["next_order__price"].null_count() == self.SPINE.height

    def test_days_that_are_not_compacted_are_told_when_a_row_looks_at_them(
        self, store: FeatureStore, lake: Lake
    ) -> None:
        more = to_frame(self.EVENTS[:1]).with_columns(pl.lit("more").alias("order_id"))
        mirror(lake, more)
        day = more["at"][0].date()
        near = self.SPINE.head(1).with_columns(more["at"].alias("timestamp"))
        with pytest.warns(NotBuiltWarning, match=rf"1 days of source 'orders' .* {day}\. Run .* job compact_orders"):
            store.get_historical_features("sales", near)
        away = near.with_columns(pl.col("timestamp") + pl.duration(days=2))
        store.get_historical_features("sales", away)  # a warning would be an error

    def test_days_outside_of_history_are_told_when_a_row_looks_at_them(self, store: FeatureStore, lake: Lake) -> None:
        early = to_datetime(START - HOUR)
        more = to_frame(self.EVENTS[:1]).with_columns(
            pl.lit("more").alias("order_id"), *(pl.lit(early, TIMESTAMP).alias(name) for name in ("at", "ingested_at"))
        )
        mirror(lake, more)
        near = self.SPINE.head(1).with_columns(pl.lit(to_datetime(START + HOUR), TIMESTAMP).alias("timestamp"))
        with pytest.warns(NotBuiltWarning, match=r"1 days of source 'orders' lie outside .* serving .*: 2024-02-29\."):
            store.get_historical_features("sales", near)
        store.get_historical_features("sales", near.with_columns(pl.col("timestamp") + pl.duration(days=2)))

    def test_rows_that_look_beyond_the_ends_of_history_are_told(self, tmp_path: Path) -> None:
        lake = Lake(str(tmp_path / "lake"))
        second = [event for event in self.EVENTS if DAY <= event.time - START < 2 * DAY]
        mirror(lake, to_frame(second))
        compact_events(lake, orders, days_of(to_frame(second)))
        rows = self.SPINE.head(3)

        def at(*instants: int) -> pl.DataFrame:
            return rows.head(len(instants)).with_columns(pl.Series("timestamp", instants).cast(TIMESTAMP))

        with FeatureStore(Settings(lake=lake.root), REGISTRY) as store:
            with pytest.warns(NotBuiltWarning, match=r"2 of 3 rows lie outside of .* events/orders, 2024-03-02"):
                store.get_historical_features("sales", at(START + DAY, START, START + DAY + 1))
            with pytest.warns(NotBuiltWarning, match=r"2 of 3 rows lie outside"):
                store.get_historical_features("sales", at(START + 2 * DAY + 1, START + 3 * DAY, START + 2 * DAY))
            store.get_historical_features("sales", at(START + DAY, START + 2 * DAY))  # every history begins somewhere

    def test_a_label_is_not_mature_while_what_came_before_is_not_compacted(
        self, store: FeatureStore, lake: Lake
    ) -> None:
        newest = max(event.ingested for event in self.EVENTS)
        assert Arrivals().known_to(lake, orders) == newest - LATENESS - 30 * SECOND
        missing = to_datetime(newest - 2 * HOUR)
        more = to_frame(self.EVENTS[:1]).with_columns(
            pl.lit("more").alias("order_id"),
            *(pl.lit(missing, TIMESTAMP).alias(name) for name in ("at", "ingested_at")),
        )
        mirror(lake, more)
        assert Arrivals().known_to(lake, orders) == newest - 2 * HOUR - 1

    def test_a_label_is_mature_when_all_partitions_are_mirrored_to_its_horizon(
        self, lake: Lake, client: Any, own_redis: str
    ) -> None:
        """Whatever one of them was ahead by."""
        newest = max(event.ingested for event in self.EVENTS)
        arrivals = Arrivals(own_redis)
        assert arrivals.known_to(lake, orders) == newest - LATENESS - 30 * SECOND  # nobody has mirrored
        for partition, at in enumerate([newest, newest - 6 * HOUR]):
            raise_position(client, keys.mirrored("orders"), partition, Position("5-0", at))
        assert arrivals.known_to(lake, orders) == newest - 6 * HOUR
        row = self.SPINE.head(1).with_columns(
            pl.lit(to_datetime(newest - 6 * HOUR - HORIZON + 1), TIMESTAMP).alias("timestamp")
        )
        wanted = TrainingSet.of(lake, REGISTRY, "sales", "serving", ["next_order"], arrivals=arrivals)
        assert wanted.compute(wanted.check(row))["next_order__mature"].to_list() == [False]
        raise_position(client, keys.mirrored("orders"), 1, Position("6-0", newest - 6 * HOUR + 1))
        assert wanted.compute(wanted.check(row))["next_order__mature"].to_list() == [True]

    def test_what_is_wrong_with_a_spine_is_named(self, store: FeatureStore) -> None:
        ask = store.get_historical_features
        spine = self.SPINE
        naive = spine.with_columns(pl.col("timestamp").dt.replace_time_zone(None))
        with pytest.raises(InstantError, match=r"column 'timestamp' must carry a time zone; got the naive Datetime"):
            ask("sales", naive)
        with pytest.raises(RequestError, match=r"spine of service 'sales': no column 'till'\. Did you mean 'tilt'\?"):
            ask("sales", spine.rename({"till": "tilt"}))
        with pytest.raises(RequestError, match=r"no column 'timestamp'\. Did you mean 'timestamps'\?"):
            ask("sales", spine.rename({"timestamp": "timestamps"}))
        with pytest.raises(RequestError, match=r"join key 'till' must be an integer column; got String"):
            ask("sales", spine.with_columns(pl.col("till").cast(pl.String)))
        with pytest.raises(RequestError, match=r"'timestamp' must be Datetime\('us', 'UTC'\); got Int64"):
            ask("sales", spine.with_columns(pl.col("timestamp").dt.epoch("us")))
        with pytest.raises(RequestError, match=r"column 'shop' must not be null; got 1 nulls of"):
            ask("sales", spine.with_columns(pl.when(pl.int_range(pl.len()) > 0).then("shop").alias("shop")))
        with pytest.raises(RequestError, match=r"'shop_orders__count_24h' is what is asked for: leave it out"):
            ask("sales", spine.with_columns(shop_orders__count_24h=1))
        with pytest.raises(RequestError, match=r"must be a Polars DataFrame or LazyFrame; got list"):
            ask("sales", spine.to_dicts())  # type: ignore[arg-type]
        big = pl.Series("till", [2**63], dtype=pl.UInt64)
        with pytest.raises(
            RequestError, match=r"join key 'till' must fit signed 64 bits; got UInt64 up to 9223372036854775808"
        ):
            ask("sales", spine.head(1).with_columns(big))

    def test_what_is_wrong_with_the_rest_is_named(self, store: FeatureStore) -> None:
        ask = store.get_historical_features
        with pytest.raises(
            RequestError, match=r"known_at must be 'serving' or 'hindsight'; got 'servnig'\. Did you mean"
        ):
            ask("sales", self.SPINE, known_at="servnig")
        with pytest.raises(UnknownNameError, match=r"no service 'sale'\. Did you mean 'sales'\?"):
            ask("sale", self.SPINE)
        with pytest.raises(UnknownNameError, match=r"no label source 'next'\. "):
            ask("sales", self.SPINE, labels=["next"])
        with pytest.raises(RequestError, match=r"labels must be a list of label sources or their names"):
            ask("sales", self.SPINE, labels="next_order")
        with pytest.raises(RequestError, match=r"labels must be different label sources"):
            ask("sales", self.SPINE, labels=["next_order", next_order])


def test_other_zones_and_units_are_the_same_instants() -> None:
    spine = pl.DataFrame({"k": ["a"], "timestamp": [to_datetime(START)]}, schema_overrides={"timestamp": TIMESTAMP})
    other = spine.with_columns(pl.col("timestamp").dt.cast_time_unit("ms").dt.convert_time_zone("Asia/Tokyo"))
    assert check_spine(other, {"k": "str"}).at.tolist() == check_spine(spine, {"k": "str"}).at.tolist() == [START]
