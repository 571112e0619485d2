"""The flights' own training set: a row a take-off, with the delay at landing as it was known a day later."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

from examples.flights import data
from rtml.lake import Lake, raw_schema
from rtml.registry import Registry, load
from rtml_assets.tables import delta
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.training_days import build_training
from streaming.gate import id64

FIRST, DAYS = date(2013, 3, 1), [date(2013, 3, 1) + timedelta(days=number) for number in range(4)]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load("examples.flights.features")


@pytest.fixture(scope="module")
def training(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for name, read in (("departures", data.departures), ("arrivals", data.arrivals)):
        events = read(FIRST, DAYS[-1] + timedelta(days=1))
        ids = pl.Series("id64", [id64(event) for event in events["event_id"]], dtype=pl.UInt64)
        day = pl.col("event_time").dt.date().alias("event_date")
        rows = events.with_columns(ids.reinterpret(signed=True), day).select(*raw_schema(registry.source(name)))
        delta.append(lake.raw(name), rows.sort("event_date"))
        compact_events(lake, registry.source(name), DAYS)
    assert build_training(lake, registry, "eta", DAYS).missing == []
    return pl.read_delta(lake.training("eta")).sort("timestamp", "flight")


def test_there_is_a_row_for_every_take_off(training: pl.DataFrame) -> None:
    took_off = data.departures(FIRST, DAYS[-1] + timedelta(days=1)).filter(~pl.col("cancelled"))
    expected = took_off.select("origin", "carrier", "route", "dest", "flight", timestamp="event_time")
    order = ["timestamp", "flight"]
    assert training.select(expected.columns).equals(expected.sort(order))
    assert training.columns[-2:] == ["arrival_delay__mature", "event_date"]


def test_its_labels_are_of_the_same_flight_and_known_a_day_later(training: pl.DataFrame) -> None:
    landed = data.arrivals(FIRST, DAYS[-1] + timedelta(days=1)).select(
        "flight", "event_time", "ingested_at", "arr_delay"
    )
    joined = training.join(landed, on="flight", how="left", maintain_order="left")
    known = pl.col("ingested_at") <= pl.col("timestamp") + pl.duration(hours=24)
    inside = (pl.col("event_time") >= pl.col("timestamp")) & (pl.col("event_time") < pl.col("timestamp") + timedelta(1))
    # Without Redis: what came by the source's lateness and an epoch of the mirror ago is all there.
    newest = landed["ingested_at"].max() - timedelta(minutes=15, seconds=30)  # type: ignore[operator]
    mature = pl.col("timestamp") + pl.duration(hours=24) <= newest
    expected = joined.select(pl.when(known & inside & mature).then("arr_delay").alias("label"), mature.alias("mature"))
    assert training["arrival_delay__arr_delay"].equals(expected["label"])
    assert training["arrival_delay__mature"].equals(expected["mature"])
    assert 0.7 < training["arrival_delay__mature"].mean() < 0.8  # type: ignore[operator]
    assert training.filter("arrival_delay__mature")["arrival_delay__arr_delay"].null_count() < 100


def test_a_row_is_not_in_its_own_past(training: pl.DataFrame) -> None:
    """The first take-off of all has seen nothing."""
    first = training.row(0, named=True)
    counts = {name: value for name, value in first.items() if "__count_" in name}
    assert set(counts.values()) == {0}
    assert len(counts) == 7
