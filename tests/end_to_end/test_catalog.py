"""Shapes, lists, rates, decayed sums and a custom aggregate on every road: stream, tiles, lake, checks, HTTP."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import xxhash

from rtml.columns import SPINE_TIME, TIMESTAMP
from rtml.errors import NotReadyError
from rtml.instants import DAY, HOUR, MINUTE, SECOND, to_datetime, to_instant
from rtml.lake import Lake, features_schema, served_schema
from rtml.plan import PlannedFeature
from rtml_assets.tables.canary import canary
from rtml_assets.tables.delta import open_table, scan
from rtml_assets.tables.drift import drift
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.testing import LocalPlatform
from tests import oracle
from tests.oracle import Event
from tests.serving.conftest import Served
from tests.serving.online import eventually

DEFINITIONS = str(Path(__file__).parent / "meters.py")
LATENESS = 15 * MINUTE
FIRST = to_instant("2024-03-05T10:00:00Z")
METERS = ["busy", "idle", "flat"]


def drawn() -> list[Event]:
    """Readings of nine days: one meter has many, one few, and of one all are the same; the last ones are late."""
    rng = random.Random(5)
    events = []
    for number in range(900):
        meter = rng.choices(METERS, [30, 1, 3])[0]
        ingested = FIRST + number * (9 * DAY // 900) // MINUTE * MINUTE
        time = ingested - rng.choice([0, 0, SECOND, LATENESS, LATENESS + 1])
        watts = None if rng.random() < 0.1 else 0.1 if meter == "flat" else round(rng.lognormvariate(6, 1.5), 2)
        values: dict[str, Any] = {"watts": watts, "phase": rng.randrange(4), "id": f"r{number}"}
        values["mode"] = rng.choice([None, "", "eco", "🛫 é", f"mode {number}"])
        values["high"] = None if watts is None else int(watts > 1000)
        events.append(Event(meter, time, xxhash.xxh64_intdigest(f"r{number}".encode()), ingested, values))
    return events


EVENTS = drawn()
END = EVENTS[-1].ingested


def frame(events: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "reading_id": [event.values["id"] for event in events],
            "at": pl.Series([event.time for event in events], dtype=pl.Int64).cast(TIMESTAMP),
            "meter": [event.key for event in events],
            "watts": pl.Series([event.values["watts"] for event in events], dtype=pl.Float64),
            "phase": [event.values["phase"] for event in events],
            "mode": pl.Series([event.values["mode"] for event in events], dtype=pl.String),
            "stamp": pl.Series([event.ingested for event in events], dtype=pl.Int64).cast(TIMESTAMP),
        }
    )


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    """A platform that has streamed, been asked, crashed, streamed, and compacted."""
    with LocalPlatform(DEFINITIONS) as platform:
        platform.send("readings", frame(EVENTS[:400]), ingested_at="stamp")
        platform.settle()
        assert compare(platform, asked(platform, EVENTS[399].ingested), oracle.counted(EVENTS[:400], LATENESS)) > 100
        platform.crash()
        platform.send("readings", frame(EVENTS[400:]), ingested_at="stamp")
        platform.settle()
        for at in (END, END + 1, END + 59 * SECOND):
            compare(platform, asked(platform, at), oracle.counted(EVENTS, LATENESS))
        platform.compact()
        yield platform


def asked(platform: LocalPlatform, at: int) -> pl.DataFrame:
    entities = [{"meter": meter} for meter in [*METERS, "never seen"]]
    parts = [platform.online(service, entities, at=to_datetime(at)) for service in ("load", "geometry")]
    return parts[0].join(parts[1], on="meter", maintain_order="left").with_columns(at=pl.lit(at))


def compare(platform: LocalPlatform, got: pl.DataFrame, events: list[Event]) -> int:
    """Compare every feature of rows with keys and instants with the oracle's; return how many."""
    compared = 0
    for view, plan in platform.registry.plans.items():
        for feature in plan.features:
            for row in got.to_dicts():
                edges = feature.span.edges(row["at"], plan.tiles.finest)
                window = oracle.window(events, row["meter"], edges[1], edges[1] - edges[0])
                agrees, expected = judged(feature, row[f"{view}__{feature.name}"], window, edges)
                assert agrees, (view, feature, row, expected)
                compared += 1
    return compared


def judged(feature: PlannedFeature, got: Any, window: list[Event], edges: tuple[int, int]) -> tuple[bool, Any]:
    """Return whether a value is the oracle's, and that."""
    if feature.aggregate == "custom":
        logs = [math.log(event.values["watts"]) for event in window if event.values["watts"] is not None]
        if not logs:
            return got is None, None
        mean = math.exp(math.fsum(logs) / len(logs))
        return got is not None and math.isclose(got, mean, rel_tol=1e-9), mean
    told = dict(feature.parameters), edges
    expected = oracle.value(feature.aggregate, window, feature.column, *told)
    return oracle.agree(feature.aggregate, got, expected, window, feature.column, *told), expected


def test_what_is_served_after_compaction_has_the_late_ones(platform: LocalPlatform) -> None:
    compare(platform, asked(platform, END + 1), oracle.counted(EVENTS, LATENESS, late_too=True))


def test_a_training_set_has_lists_and_goes_through_parquet(platform: LocalPlatform, tmp_path: Path) -> None:
    at = [END + 1, END - DAY, FIRST + 5 * HOUR + 7, FIRST - DAY]
    spine = pl.DataFrame({"meter": METERS * 4, SPINE_TIME: pl.Series(sorted(at * 3), dtype=pl.Int64).cast(TIMESTAMP)})
    rows = platform.historical("load", spine, known_at="hindsight")
    geometry = platform.historical("geometry", spine, known_at="hindsight")
    rows = rows.hstack(geometry.drop("meter", SPINE_TIME)).with_columns(at=pl.col(SPINE_TIME).dt.epoch("us"))
    assert rows.schema["meter_load__phase_last_20_3h"] == pl.List(pl.Int64)
    compare(platform, rows, oracle.counted(EVENTS, LATENESS, late_too=True))
    rows.write_parquet(tmp_path / "rows.parquet")
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(rows)


def test_tiles_are_what_their_events_are_worth(platform: LocalPlatform) -> None:
    lake = Lake(platform.lake)
    for view in platform.registry.views.values():
        plan = platform.registry.plans[view.name]
        parity = tiles_versus_events(lake, view, plan, to_datetime(FIRST + DAY).date())
        assert parity.agrees, str(parity)
        assert parity.total("compared") > 50


def test_what_was_served_agrees_with_the_lake(platform: LocalPlatform) -> None:
    registry = platform.registry
    for service in registry.services.values():
        found = canary(Lake(platform.lake), platform.client, service, registry.plans)
        assert found.parity.agrees, str(found.parity)
        assert found.vectors > 0
        assert found.parity.total("compared") == found.vectors * len(service.columns)


def test_tables_keep_lists_as_lists(platform: LocalPlatform) -> None:
    lake, plan = Lake(platform.lake), platform.registry.plans["meter_load"]
    values = scan(open_table(lake.features("meter_load")), features_schema(plan)).collect()
    truth = oracle.counted(EVENTS, LATENESS, late_too=True)
    for feature in plan.features:
        for meter, at, value in values.select("meter", pl.col(SPINE_TIME).dt.epoch("us"), feature.name).iter_rows():
            edges = feature.span.edges(at, plan.tiles.finest)
            window = oracle.window(truth, meter, edges[1], edges[1] - edges[0])
            assert judged(feature, value, window, edges)[0]
    service = platform.registry.service("load")
    columns = [(view.name, name) for view, name in service.columns]
    served = scan(open_table(lake.served("load")), served_schema([plan], columns)).collect()
    assert served.schema["meter_load__watts_first_3_7d"] == pl.List(pl.Float64)
    assert served["meter_load__watts_first_3_7d"].list.len().max() == 3


def test_drift_leaves_lists_out_and_says_so(platform: LocalPlatform) -> None:
    for number in range(40):
        asked(platform, END + number * SECOND)
    platform.compact()
    found = drift(Lake(platform.lake), platform.registry, "load", today=to_datetime(END + 2 * DAY).date())
    assert any(
        words.startswith("Not compared, since they are lists: meter_load__watts_first_3_1m") for words in found.told
    )


def test_a_server_loads_the_definitions_for_a_custom_aggregate_or_says_why_not(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    whole = Served(platform.redis_url, tmp_path / "whole", RTML_FEATURES=DEFINITIONS)
    (tmp_path / "broken.py").write_text("raise ValueError('no such luck')\n")
    broken = Served(platform.redis_url, tmp_path / "broken", RTML_FEATURES=str(tmp_path / "broken.py"))
    try:
        body = {"entities": [{"meter": "busy"}], "at": to_datetime(END + 1).isoformat()}
        eventually(lambda: ask(whole, "geometry", body).raise_for_status(), 30)
        assert ask(whole, "geometry", body).json()["rows"][0][2] > 0
        answer = ask(whole, "load", body).json()
        lists = dict(zip(answer["features"], answer["rows"][0], strict=True))
        assert len(lists["meter_load__phase_last_20_7d"]) == 20
        eventually(lambda: ask(broken, "load", body).raise_for_status(), 30)
        refused = ask(broken, "geometry", body)
        assert refused.status_code == 503
        assert "no custom aggregate 'geometric_mean version 1'" in refused.text
        assert "no such luck" in refused.text
    finally:
        whole.end()
        broken.end()


def test_a_former_version_goes_on_as_long_as_its_definition_is_there(platform: LocalPlatform, tmp_path: Path) -> None:
    text = Path(DEFINITIONS).read_text()
    newer = text.replace('state={"log_sum"', 'version=2, state={"log_sum"')
    former = text[text.index("geometric_mean = rtml") : text.index("WINDOWS =")]
    both = tmp_path / "both.py"
    both.write_text(newer.replace("WINDOWS =", f"former_{former}\nWINDOWS ="))
    alone = tmp_path / "alone.py"
    alone.write_text(newer)
    column, entities = "meter_geometry__watts_geometric_mean_3h", [{"meter": "new"}]
    for number, (features, watts) in enumerate([(both, 9.0), (alone, 900.0)]):
        platform.redefine(str(features))
        values = {"watts": watts, "phase": 1, "mode": None, "id": f"new{number}"}
        at = END + (number + 2) * MINUTE
        platform.send("readings", frame([Event("new", at - SECOND, 0, at, values)]), ingested_at="stamp")
        platform.settle()
        assert platform.online("load", entities, at=to_datetime(at))["meter_load__watts_first_3_3h"][0][-1] == watts
        if features is both:
            assert platform.online("geometry", entities, at=to_datetime(at))[column][0] == pytest.approx(9.0)
    with pytest.raises(NotReadyError, match=r"view 'meter_geometry' must serve .* which is lost"):
        platform.online("geometry", entities, at=to_datetime(END + 4 * MINUTE))


def ask(server: Served, service: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{server.port}/v1/features/{service}", json=body, timeout=20)
