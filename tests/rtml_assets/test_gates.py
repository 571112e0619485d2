"""What is expected of a day keeps it out of `tiles/` where it is not met: real Great Expectations, real runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from examples.flights import data
from rtml import Count, EventSource, Expect, StreamFeatureView
from rtml.errors import RequestError
from rtml.instants import to_datetime, to_instant
from rtml.lake import Lake, features_schema
from rtml.registry import Registry, load
from rtml.settings import Settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.compaction import range_tags, requests_for
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.materialize import CompactionError, Summary, materialize_days
from rtml_assets.tables import delta, gates
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from rtml_assets.tables.mending import DROP, Decider, correct
from rtml_assets.tables.quarantine import HELD, PASSED, summary
from rtml_assets.tables.touched import blocked_days, touched_days
from tests.rtml_assets.orders import START, generate, orders, to_frame
from tests.rtml_assets.test_events import mirror

FIRST = date(2013, 3, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(9)]
BAD = DAYS[7]
FLIGHTS = data.departures(FIRST, DAYS[-1] + timedelta(days=1))
OF_BAD = pl.col("event_time").dt.date() == BAD


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The flights' departures with their views, and nothing of the arrivals."""
    flights = load("examples.flights.features")
    views = flights.views_of("departures")
    return Registry.of([flights.source("departures"), *views])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def doubled(events: pl.DataFrame) -> pl.DataFrame:
    """A producer that sends an hour again, under new ids."""
    hour = events.filter(OF_BAD, pl.col("event_time").dt.hour() == 15)
    again = hour.with_columns(pl.col("event_id") + "-again", pl.col("ingested_at") + timedelta(hours=1))
    return pl.concat([events, again])


def results(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    """The newest evaluation of each check of an asset."""
    keys = [dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name) for name in checks_of(asset)]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {
        key.name: record.event.dagster_event.event_specific_data
        for key, record in found.items()
        if record.event and record.event.dagster_event
    }


def checks_of(asset: str) -> list[str]:
    own = ["contract", "expectations", "volume", "days_built"]
    return [*own, "dep_delay_known", "dep_delay_in_minutes", "take_off_once", "distance_in_miles", "counted"]


def counts(lake: Lake, table: str) -> dict[date, int]:
    return delta.rows_by_day(delta.open_table(f"{lake.root}/{table}"))


def test_a_bad_day_is_caught_by_name_before_it_reaches_the_tiles(
    settings: Settings, lake: Lake, client: Any, registry: Registry, instance: dg.DagsterInstance
) -> None:
    """The days beside it wait for nothing."""
    check = "take_off_once"
    departures = registry.source("departures")
    events = doubled(FLIGHTS.filter(pl.col("event_time").dt.date() >= DAYS[6]))
    land(lake, client, departures, events)
    with pytest.raises(CompactionError, match=rf"check '{check}' of events/departures: {BAD}: expect_") as failed:
        materialize_days(settings, registry, instance=instance)
    assert set(re.findall(r"check '(\w+)'", str(failed.value))) == {check}
    for table in ("events/departures", "tiles/origin_departures", "tiles/carrier_departures"):
        assert set(counts(lake, table)) == {DAYS[6], DAYS[8]}
    assert touched_days(lake, departures, registry.plans.values()) == [BAD]
    # The days beside it were built by a run of their own: a good one, which does not hide the bad one.
    outcome = results(instance, "events/departures")[check]
    assert (outcome.passed, outcome.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert outcome.description.startswith(f"{BAD}: not built")
    assert outcome.metadata["report"].value.endswith(f"{BAD}.html")
    assert results(instance, "events/departures")["dep_delay_known"].passed
    assert blocked_days(lake, departures) == {BAD}
    of_day = {str(DAYS[6]), str(DAYS[8])}
    assert instance.get_materialized_partitions(dg.AssetKey(["events", "departures"])) == of_day

    held = pl.read_delta(lake.quarantine("departures")).filter(reason=f"check:{check}")
    expected = events["event_id"].str.ends_with("-again").sum()
    assert held.height == expected > 0
    assert held["detail"].unique().to_list()[0].startswith("expect_")
    # An hour later, and more of the day beside it has come: nothing is held twice, and that day is built again.
    more = FLIGHTS.filter(pl.col("event_time").dt.date() == DAYS[6]).head(1)
    late = more.with_columns(pl.col("event_id", "flight") + "-more", pl.col("ingested_at") + timedelta(days=3))
    land(lake, client, departures, late)
    requests = list(requests_for(Deployment(settings, registry), departures, DAYS[6:]))
    ranges = [tuple(request.tags.values()) for request in requests]
    assert ranges == [*((str(day), str(day)) for day in (DAYS[6], DAYS[8], BAD)), ()]
    assert [len(request.asset_selection or ()) for request in requests] == [3, 3, 3, 2]  # the last one publishes
    before = counts(lake, "events/departures")
    with pytest.raises(CompactionError, match=check):
        materialize_days(settings, registry, instance=instance)
    assert counts(lake, "events/departures") == before | {DAYS[6]: before[DAYS[6]] + 1}
    assert touched_days(lake, departures, registry.plans.values()) == [BAD]
    assert pl.read_delta(lake.quarantine("departures")).filter(reason=f"check:{check}").height == expected

    outcome = results(instance, "events/departures")[check]
    assert (outcome.passed, outcome.severity) == (False, dg.AssetCheckSeverity.ERROR)
    url = outcome.metadata["report"].value
    assert url == f"http://127.0.0.1:8815/quality/docs/events/departures/{BAD}.html"
    page = Path(settings.lake_root, "quality", url.split("/quality/")[1]).read_text()
    assert f"<code>{check}</code>" in page


def test_what_was_held_while_its_day_filled_up_is_no_longer_held_when_that_passes(lake: Lake) -> None:
    """Who dropped it then would drop good events; and it is held again when the day fails again."""
    expected = [Expect("expect_column_values_to_not_be_null", "price", mostly=0.9, name="priced")]
    source = replace(orders, quality=expected)
    good = to_frame(generate(3, 200, days=0.5)).with_columns(price=pl.lit(1.0))
    bad = good.head(10).with_columns(price=pl.lit(None, pl.Float64))
    day, once = good["at"].dt.date()[0], bad["order_id"].n_unique()

    def compacted(rows: pl.DataFrame) -> tuple[bool, list[tuple[str, int]]]:
        mirror(lake, rows)
        blocked = bool(compact_events(lake, source, [day]).blocked)
        assert blocked_days(lake, source) == ({day} if blocked else set())
        return blocked, summary(lake, source).select("state", "rows").rows()

    assert compacted(bad) == (True, [(HELD, once)])
    assert compacted(good.tail(150)) == (False, [(PASSED, once)])
    with pytest.raises(RequestError, match="check 'priced' holds no events"):
        correct(lake, source, "priced", None, DROP, Decider(START, "", ""))
    twice = pl.concat([bad.with_columns(pl.col("order_id") + suffix) for suffix in "xy"])
    assert compacted(twice) == (True, [(HELD, 3 * once)])
    # When all of it is dropped, there is nothing left to judge: such a day can be built.
    source = replace(orders, quality=[Expect("expect_column_mean_to_be_between", "price", min_value=9, name="dear")])
    compact_events(lake, source, [day])
    correct(lake, source, "dear", None, DROP, Decider(START, "", ""))
    assert compact_events(lake, source, [day]).blocked == {}
    assert counts(lake, "events/orders") == {}


def materialized(deployment: Deployment, instance: dg.DagsterInstance, asset: str, days: list[date]) -> Any:
    job = definitions_of(deployment).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(asset.split("/"))
    chosen = job.get_subset(asset_selection={key})
    return chosen.execute_in_process(
        instance=instance, asset_selection=[key], tags=range_tags(days[0], days[-1]), raise_on_error=False
    )


@pytest.fixture
def built(settings: Settings, lake: Lake, client: Any, registry: Registry, instance: dg.DagsterInstance) -> Summary:
    """Nine good days."""
    land(lake, client, registry.source("departures"), FLIGHTS)
    return materialize_days(settings, registry, instance=instance)


def test_good_days_pass_and_are_profiled(
    built: Summary, settings: Settings, lake: Lake, registry: Registry, instance: dg.DagsterInstance
) -> None:
    assert built.warnings == []
    assert list(counts(lake, "events/departures")) == DAYS
    found = results(instance, "events/departures")
    assert {name for name, outcome in found.items() if outcome.passed} == {
        "contract", "dep_delay_known", "dep_delay_in_minutes", "take_off_once", "distance_in_miles",
    }  # fmt: skip
    spread = found["dep_delay_in_minutes"].metadata
    assert (spread["days"].value, spread["failed_days"].value) == (9, 0)
    truth = FLIGHTS.filter(pl.col("event_time").dt.date() == DAYS[-1])["dep_delay"].std()
    assert spread["observed"].value == pytest.approx(truth)
    assert spread["report"].value.endswith(f"/events/departures/{DAYS[-1]}.html")
    assert [path.name for path in Path(lake.quality, "docs/events/departures").iterdir()] == [f"{DAYS[-1]}.html"]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["events", "departures"]), asset_partitions=[str(BAD)])
    record = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert record is not None
    rows = FLIGHTS.filter(OF_BAD)
    assert record.metadata["nulls/dep_delay"].value == rows["dep_delay"].null_count() / rows.height
    assert record.metadata["mean/cancelled"].value == pytest.approx(rows["cancelled"].mean())
    assert "| `origin` | 0.0% | 3 |" in str(record.metadata["profile"].value)

    deployment = Deployment(settings, registry)
    job = definitions_of(deployment).resolve_job_def("quality_departures")
    assert job.execute_in_process(instance=instance).success
    found = results(instance, "events/departures")
    assert found["expectations"].passed
    assert found["expectations"].metadata["expectations"].value == 20
    assert found["volume"].passed
    assert found["volume"].metadata["days_compared"].value == 7  # the last day is not over
    assert found["days_built"].metadata["days_built"].value == 8
    assert Path(lake.quality, f"docs/suites/events_departures/{DAYS[7]}.html").is_file()


def test_what_a_person_accepted_warns_and_is_built(
    settings: Settings, lake: Lake, client: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "accepted", lambda *_: {(BAD, "take_off_once"), (DAYS[6], "dep_delay_known")})
    land(lake, client, registry.source("departures"), doubled(FLIGHTS.filter(OF_BAD)))
    summary = materialize_days(settings, registry)
    (warning,) = summary.warnings
    assert warning.startswith(f"check 'take_off_once' of events/departures: {BAD}: expect_")
    assert set(counts(lake, "events/departures")) == set(counts(lake, "tiles/origin_departures")) == {BAD}


def test_a_warning_does_not_block_and_a_views_values_are_judged(
    settings: Settings, lake: Lake, client: Any, registry: Registry, instance: dg.DagsterInstance
) -> None:
    flights = registry.source("departures")
    source = EventSource(
        name="departures", schema=flights.schema, timestamp="event_time", event_id="event_id", stream=flights.stream,
        starts="2013-01-01", ends="2014-01-01",
        quality=[Expect("expect_column_max_to_be_between", "distance", max_value=1, severity="warning", name="near")],
    )  # fmt: skip
    view = StreamFeatureView(
        name="origins", source=source, entity=registry.views["origin_departures"].entity,
        features=[Count(windows=["24h"])],
        quality=[
            Expect("expect_column_values_to_be_between", "count_24h", max_value=300, name="counted"),
            Expect("expect_column_values_to_be_in_set", "origin", value_set=["JFK"], severity="warning", name="jfk"),
        ],
    )  # fmt: skip
    own = Registry.of([source, view])
    land(lake, client, source, FLIGHTS.filter(OF_BAD))
    summary = materialize_days(settings, own, instance=instance)
    assert [words[:35] for words in summary.warnings] == ["check 'near' of events/departures: "]
    assert set(counts(lake, "tiles/origins")) == {BAD}

    run = materialized(Deployment(settings, own), instance, "features/origins", [BAD])
    outcomes = {one.check_name: one for one in run.get_asset_check_evaluations()}
    assert not run.success  # the critical one failed, and what is downstream must not go on
    values = delta.scan(delta.open_table(lake.features("origins")), features_schema(own.plans["origins"])).collect()
    above = values.filter(pl.col("count_24h") > 300).height
    assert (outcomes["counted"].passed, outcomes["counted"].metadata["unexpected"].value) == (False, above)
    assert outcomes["counted"].severity == dg.AssetCheckSeverity.ERROR
    assert (outcomes["jfk"].passed, outcomes["jfk"].severity) == (False, dg.AssetCheckSeverity.WARN)
    assert outcomes["counted"].metadata["report"].value.endswith(f"/quality/docs/features/origins/{BAD}.html")


def test_a_day_that_is_missing_or_behind_is_told(
    settings: Settings, lake: Lake, client: Any, registry: Registry, instance: dg.DagsterInstance
) -> None:
    departures = registry.source("departures")
    few = FLIGHTS.filter((pl.col("event_time").dt.date() < DAYS[8]) | (pl.int_range(pl.len()) % 10 == 0))
    land(lake, client, departures, few, until=to_datetime(to_instant(DAYS[8] + timedelta(days=2))))
    own = Registry.of([departures])
    materialize_days(settings, own, DAYS[:8], instance=instance)
    job = definitions_of(Deployment(settings, own)).resolve_job_def("quality_departures")
    assert job.execute_in_process(instance=instance).success
    found = results(instance, "events/departures")
    assert found["expectations"].metadata["day"].value == str(DAYS[7])
    assert not found["days_built"].passed
    assert str(DAYS[8]) in found["days_built"].description
    assert not found["volume"].passed
    assert found["volume"].metadata["rows"].value == counts(lake, "raw/departures")[DAYS[8]] < 100
    assert found["volume"].severity == dg.AssetCheckSeverity.WARN
