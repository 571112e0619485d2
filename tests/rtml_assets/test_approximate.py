"""Parity of approximate features: every road is held against the truth, and what is beyond its bound is found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from quality.approximate import judged, reference
from rtml import (
    ApproxCountDistinct,
    ApproxPercentile,
    ApproxPercentiles,
    ApproxTopK,
    CountDistinct,
    Entity,
    Histogram,
    StreamFeatureView,
)
from rtml.algebra.family import Events, Lane, Span, Values
from rtml.algebra.states import StateSchema
from rtml.columns import TIMESTAMP
from rtml.compile import compile_view
from rtml.define.source import EventSource
from rtml.instants import DAY
from rtml.lake import Lake, served_schema
from rtml.plan import Plan, PlannedFeature
from rtml.values import to_series
from rtml_assets.tables.canary import Checked, check_vectors
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.stream_parity import stream_versus_batch
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.tables.tiles import compact_tiles
from rtml_assets.tables.touched import touched_days
from streaming.versions import Version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import LATENESS, START, generate, orders, to_frame
from tests.rtml_assets.test_events import mirror

VIEW = StreamFeatureView(
    name="shop_sketches",
    source=orders,
    entity=Entity("shop", join_keys=["shop"]),
    features=[
        CountDistinct("price", ["24h"], bound=50),
        ApproxCountDistinct("price", ["24h"], lg_k=8),
        ApproxPercentile("price", 0.5, ["24h"], k=32),
        ApproxPercentile("price", 0.9, ["24h"]),
        ApproxPercentiles("price", [0.1, 0.5], ["24h"], k=16),
        ApproxTopK("items", 2, ["24h"], counters=4),
        ApproxTopK("price", 3, ["24h"]),
        Histogram("items", [-2, 0, 3], ["24h"]),
    ],
)
PLAN = compile_view(VIEW)


def test_features_are_named_after_what_they_say() -> None:
    assert [feature.name for feature in PLAN.features] == [
        "price_count_distinct_24h", "price_approx_count_distinct_24h", "price_p50_24h", "price_p90_24h",
        "price_approx_percentiles_24h", "items_approx_top_k_24h", "price_approx_top_k_24h", "items_histogram_24h",
    ]  # fmt: skip
    again = Plan.decode(PLAN.encode())
    assert again.features == PLAN.features
    assert [feature.definition for feature in again.features] == [feature.definition for feature in PLAN.features]
    assert [feature.output for feature in PLAN.features][4:6] == [("f64", 2), ("i64", 2)]
    assert "price.kll_32" in PLAN.states.names
    assert "price.kll_200" in PLAN.states.names


def test_tiles_agree_and_a_percentile_that_is_beyond_its_bound_is_found(lake: Lake, client: Any) -> None:
    mirror(lake, to_frame(generate(5, 2500, days=1.5)))
    days = touched_days(lake, orders)
    compact_events(lake, orders, days)
    compact_tiles(lake, VIEW, PLAN, days)
    (day, *_) = days
    spread = msgspec.structs.replace(PLAN, salts=2)
    for parity in (
        tiles_versus_events(lake, VIEW, PLAN, day),
        stream_versus_batch(lake, client, VIEW, PLAN, day),
        stream_versus_batch(lake, client, VIEW, spread, day),
    ):
        assert parity.agrees, str(parity)
        assert parity.total("equal") > 1000
    sizes = pl.read_delta(lake.tiles("shop_sketches")).select(
        pl.col("price.kll_32", "price.hll_8").bin.starts_with(b"S").any()
    )
    assert sizes.row(0) == (True, True)
    _swap_states(lake, day)
    wrong = {one.feature: one for one in tiles_versus_events(lake, VIEW, PLAN, day).features if not one.agrees}
    assert set(wrong) == {
        "shop_sketches__price_approx_percentile, k=32, q=0.5",
        "shop_sketches__price_approx_count_distinct, lg_k=8",
    }


@pytest.mark.parametrize("salts", [1, 3])
def test_raw_records_are_judged_by_their_own_events_alone(lake: Lake, client: Any, salts: int) -> None:
    """Late ones are not among them, nor those that another salt keeps as they are."""
    mirror(lake, to_frame(generate(5, 500, days=0.2)))
    plan = msgspec.structs.replace(PLAN, raw_limit=4, salts=salts)
    days = touched_days(lake, orders)
    compact_events(lake, orders, days)
    compact_tiles(lake, VIEW, plan, days)
    parity = stream_versus_batch(lake, client, VIEW, plan, days[0])
    assert parity.agrees, str(parity)


def _swap_states(lake: Lake, day: date) -> None:
    """Give the first tile of an hour or more the sketches of values that are all greater."""
    table = pl.read_delta(lake.tiles("shop_sketches")).filter(pl.col("event_date") == day).sort("level", "tile_start")
    place = table["price.kll_32"].bin.starts_with(b"S").arg_max()
    schema = StateSchema.of(
        tuple(family for feature in PLAN.features[1:3] for family in feature.families),
    )
    events = Events(np.arange(300), np.arange(300, dtype=np.uint64), {"price": Lane(np.arange(300) + 2e6, _true(300))})
    states = schema.combine(schema.lift(events), np.zeros(1, dtype=np.int64))
    chosen = pl.int_range(pl.len()) == place
    changed = table.with_columns(
        pl.when(chosen).then(pl.lit(column[0])).otherwise(pl.col(name)).alias(name) for name, column in states.items()
    )
    write_deltalake(lake.tiles("shop_sketches"), changed, mode="overwrite", predicate=f"event_date = '{day}'")


def _true(count: int) -> Any:
    return np.ones(count, dtype=bool)


EVENTS = oracle.counted(generate(9, 1500, days=0.9, shops=["a"]), LATENESS)
AT = START + DAY
LAST = max(event.ingested for event in EVENTS)


def check(**changes: Any) -> Checked:
    """Compare a vector that was served once all had been seen, with some values changed."""

    def load(_lake: Lake, _source: EventSource, days: Sequence[date]) -> pl.LazyFrame:
        frame = to_frame(EVENTS).with_columns(
            pl.Series("id64", [event.id64 for event in EVENTS], dtype=pl.UInt64), event_date=pl.col("at").dt.date()
        )
        return frame.lazy().filter(pl.col("event_date").is_in(list(days)))

    values = {f"shop_sketches__{feature.name}": to_series(served(feature))[0] for feature in PLAN.features}
    row = {
        **values, "shop": "a", "timestamp": AT, "watermark": LAST + 1, "shop_sketches__last_ingested": LAST,
        "shop_sketches__status": "fresh", **{f"shop_sketches__{name}": value for name, value in changes.items()},
    }  # fmt: skip
    schema = served_schema([PLAN], [(PLAN.view, feature.name) for feature in PLAN.features])
    rows = pl.DataFrame(
        pl.Series(name, [row.get(name)], dtype=pl.Int64).cast(TIMESTAMP)
        if kind == TIMESTAMP
        else pl.Series(name, [row.get(name)], dtype=kind)
        for name, kind in schema.items()
    )
    names = [feature.name for feature in PLAN.features]
    version = Version(PLAN, f"{PLAN.fingerprint}.1", "ready")
    return check_vectors(Lake("/nowhere"), VIEW, PLAN, version, names, rows, load=load)


def window() -> list[Event]:
    return oracle.window(EVENTS, "a", AT, DAY)


def served(feature: PlannedFeature) -> Values:
    """The answer of states that were combined one event at a time, back to front."""
    some = [event for event in window() if event.values[feature.column] is not None][::-1]
    schema = StateSchema.of(feature.families)
    values = np.array([event.values[feature.column] for event in some])
    times = np.arange(len(some))
    states = schema.lift(Events(times, times.astype(np.uint64), {feature.column: Lane(values, _true(len(some)))}))
    while len(states[schema.names[0]]) > 1:
        states = schema.combine(states, np.arange(0, len(states[schema.names[0]]), 7))
    return feature.finalize(states, Span(AT - DAY, AT))


def quantile(q: float) -> float:
    return float(np.quantile([e.values["price"] for e in window() if e.values["price"] is not None], q))


def test_what_was_served_agrees_with_other_sketches_of_the_same_events() -> None:
    for _ in range(5):
        parity = check().parity
        assert parity.agrees, str(parity)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("price_count_distinct_24h", lambda: 49),
        ("price_approx_count_distinct_24h", lambda: 1500),
        ("price_p50_24h", lambda: quantile(0.999)),
        ("price_p90_24h", lambda: quantile(0.8)),
        ("price_approx_percentiles_24h", lambda: [quantile(0.5), quantile(0.1)]),
        ("items_approx_top_k_24h", lambda: [999, 998]),
        ("price_approx_top_k_24h", lambda: [quantile(0), quantile(1), quantile(0)]),
        ("items_histogram_24h", lambda: [0, 0, 0, 0]),
    ],
)
def test_an_answer_beyond_its_bound_is_found_and_alone(name: str, changed: Any) -> None:
    parity = check(**{name: changed()}).parity
    wrong = {one.feature for one in parity.features if not one.agrees}
    assert wrong == {f"shop_sketches__{name}"}, str(parity)


def test_few_values_have_no_slack() -> None:
    """Up to what a list holds, an approximate answer is exact, and is judged so."""
    feature = next(one for one in PLAN.features if one.name == "price_p90_24h")
    judge = reference(feature)
    assert judge is not None
    schema = StateSchema.of(judge.families)
    for count, nearby in [(200, False), (201, True)]:
        values = np.arange(count).astype(np.float64)
        times = np.arange(count)
        lanes = {"price": Lane(values, _true(count))}
        states = schema.combine(schema.lift(Events(times, times.astype(np.uint64), lanes)), np.zeros(1, dtype=np.int64))
        truth = judge.finalize(states, Span(0, 1))
        for value, agrees in [(np.ceil(count * 0.9) - 1, True), (np.ceil(count * 0.9), nearby), (count * 0.8, False)]:
            assert judged(feature, [Values(np.array([value]), _true(1))], truth).tolist() == [agrees]
