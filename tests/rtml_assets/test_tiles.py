"""`events/` → `tiles/`, at every level, against plain Python."""

from __future__ import annotations

import math
from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from rtml.instants import to_instant
from rtml.lake import raw_schema, tiles_schema
from rtml_assets.tables import delta, tiles
from rtml_assets.tables.events import compact_events, deduplicate, load_events
from rtml_assets.tables.tiles import build_tiles, compact_tiles
from rtml_assets.tables.touched import touched_days
from tests import oracle
from tests.rtml_assets.orders import LATENESS, generate, orders, plan_of, seen_by, shop_orders, till_orders, to_frame
from tests.rtml_assets.test_events import days_of, mirror, to_raw

VIEWS = [shop_orders, till_orders]


def in_python(view, events):
    """Sums by (key, level, tile): rows, sum and number of one value column, and its last value."""
    column = "price" if view is shop_orders else "value"
    found = defaultdict(list)
    for event in seen_by(view.name, oracle.counted(events, LATENESS, late_too=True)):
        for level, size in enumerate(plan_of(view).ladder):
            found[event.key, level, event.time // size * size].append(event)
    return {
        place: (len(group), sum(e.values[column] is not None for e in group), [e.values[column] for e in group], group)
        for place, group in found.items()
    }


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@given_settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.sampled_from([1, 30, 400]))
def test_every_level_is_pythons(view, seed, count):
    events = generate(seed, count, days=2)
    rows, _ = deduplicate(orders, to_raw(to_frame(events)))
    plan, column = plan_of(view), "price" if view is shop_orders else "value"
    built = build_tiles(view, plan, rows.lazy().with_columns(pl.col("id64").reinterpret(signed=False)))
    assert built.schema == tiles_schema(plan)
    expected = in_python(view, events)
    assert built.height == len(expected)
    for row in built.to_dicts():
        key = row["shop"] if view is shop_orders else f"{row['shop']}/{row['till']}/{row['big']}"
        count_, valid, values, group = expected[key, row["level"], to_instant(row["tile_start"])]
        present = [value for value in values if value is not None]
        assert (row["rows"], row[f"{column}.n"]) == (count_, valid)
        assert row[f"{column}.sum"] == pytest.approx(math.fsum(present), rel=1e-12, abs=1e-6)
        assert row["event_date"] == row["tile_start"].date()
        if view is till_orders and present:
            last = max((e for e in group if e.values[column] is not None), key=lambda e: (e.time, e.id64))
            assert row["value.last"] == last.values[column]
            assert row["value.last_id64"] % 2**64 == last.id64


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_a_tile_is_a_matter_of_its_own_events(monkeypatch, view, at_once):
    rows, _ = deduplicate(orders, to_raw(to_frame(generate(14, 600, days=2))))
    events = rows.with_columns(pl.col("id64").reinterpret(signed=False))
    plan = plan_of(view)
    whole = build_tiles(view, plan, events.lazy())
    assert whole.equals(whole.sort("level", *plan.key_names, "tile_start"))
    apart = pl.concat([build_tiles(view, plan, day.lazy()) for day in events.partition_by("event_date")])
    assert apart.sort("level", *plan.key_names, "tile_start").equals(whole)
    monkeypatch.setattr(tiles, "_EVENTS_AT_ONCE", at_once)
    monkeypatch.setattr(tiles, "_TILES_AT_ONCE", at_once)
    assert build_tiles(view, plan, events.lazy()).equals(whole)
    assert build_tiles(view, plan, events.sample(fraction=1, shuffle=True, seed=at_once).lazy()).equals(whole)


def test_the_table_holds_what_was_built_and_its_figures(lake):
    events = generate(11)
    frame = to_frame(events)
    mirror(lake, frame)
    days = days_of(frame)
    compact_events(lake, orders, days)
    for view in VIEWS:
        plan = plan_of(view)
        figures = compact_tiles(lake, view, plan, days)
        stored = delta.scan(delta.open_table(lake.tiles(view.name)), tiles_schema(plan)).collect()
        order = [*plan.key_names, "level", "tile_start"]
        assert stored.sort(order).equals(build_tiles(view, plan, load_events(lake, orders, days)).sort(order))
        kept = seen_by(view.name, oracle.counted(events, LATENESS, late_too=True))
        assert sum(day.events for day in figures) == len(kept)
        assert sum(day.rows for day in figures) == stored.height
        assert all(day.agrees and len(day.counted) == len(plan.ladder) for day in figures)
        top = stored.filter(pl.col("level") == plan.tiles.top)
        entities = {day.day: day.entities for day in figures}
        assert entities == dict(top.group_by("event_date").agg(pl.struct(plan.key_names).n_unique()).rows())


def test_tiles_are_touched_when_their_events_were_built_anew(lake):
    frame = to_frame(generate(12, 200, days=2))
    mirror(lake, frame)
    days, plans = days_of(frame), [plan_of(view) for view in VIEWS]
    compact_events(lake, orders, days)
    assert touched_days(lake, orders) == []
    assert touched_days(lake, orders, plans) == days
    for view in VIEWS:
        compact_tiles(lake, view, plan_of(view), days)
    assert touched_days(lake, orders, plans) == []
    mirror(lake, frame.head(1).with_columns(pl.lit("late").alias("order_id")))
    compact_events(lake, orders, days[:1])
    assert touched_days(lake, orders, plans) == days[:1]


def test_a_day_without_events_has_no_tiles(lake):
    frame = to_frame(generate(13, 50, days=1)).with_columns(pl.lit(0, dtype=pl.Int64).alias("items"))
    mirror(lake, frame)
    days = days_of(frame)
    compact_events(lake, orders, days)
    figures = compact_tiles(lake, till_orders, plan_of(till_orders), days)  # its `where` keeps nothing
    assert {(day.rows, day.entities, day.events, day.agrees) for day in figures} == {(0, 0, 0, True)}
    assert touched_days(lake, orders, [plan_of(till_orders)]) == []
    assert raw_schema(orders)["id64"] == pl.Int64()
