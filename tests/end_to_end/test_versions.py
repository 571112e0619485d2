"""From edit to promoted and back: a changed definition beside the one that is served, over real streams and history."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from rtml.define.contract import TIMESTAMP
from rtml.errors import NotReadyError, RequestError
from rtml.instants import DAY, HOUR, MINUTE, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.runtime.diff import diff
from rtml_assets.tables.land import land
from rtml_assets.testing import LocalPlatform
from streaming.services import read_services
from streaming.versions import live_names, version_names

START = to_instant("2024-03-01T00:00:00Z")
FEATURES = """
import msgspec
import polars as pl
import rtml
from rtml import Count, Entity, EventSource, FeatureService, RedisStream, StreamFeatureView, Sum

class Ride(rtml.Event):
    ride_id: str
    at: rtml.Timestamp
    city: str
    fare: float

rides = EventSource(name="rides", schema=Ride, timestamp="at", event_id="ride_id",
                    stream=RedisStream("rides", partitions=2), lateness="15m", starts="2024-01-01", ends="2024-12-31")
demand = StreamFeatureView(name="demand", source=rides, entity=Entity("city"), where=pl.col("fare") > {least},
                           features=[Count(windows={windows}), Sum("fare", windows={windows})])
pricing = FeatureService("pricing", features=[demand], version={version})
"""
CITIES = [{"city": name} for name in ("a", "b")]


def define(folder: Path, least: int, windows: list[str], version: int = 1) -> str:
    path = folder / f"features_{version}_{least}.py"
    path.write_text(FEATURES.format(least=least, windows=windows, version=version))
    return str(path)


def rides(start: int, hours: int, seed: int) -> pl.DataFrame:
    """Rides over some hours, one in ten late; in the order in which they arrive."""
    rng = random.Random(seed)
    rows = []
    for number in range(hours * 6):
        time = start + rng.randrange(hours * HOUR)
        delay = rng.randrange(16 * MINUTE, 3 * HOUR) if rng.random() < 0.1 else rng.randrange(15 * MINUTE)
        rows.append((f"{seed}-{number}", time, rng.choice("ab"), float(rng.randrange(20)), time + delay))
    columns = ["ride_id", "at", "city", "fare", "ingested_at"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.with_columns(pl.col("at", "ingested_at").cast(TIMESTAMP)).sort("ingested_at")


def expected(frame: pl.DataFrame, city: str, at: int, window: int, least: int, late_to: int) -> tuple[int, float]:
    """Count and sum by brute force; late ones as far as they were published."""
    late = pl.col("ingested_at") - pl.col("at") > pl.duration(minutes=15)
    kept = frame.filter(
        pl.col("city") == city,
        pl.col("fare") > least,
        pl.col("at") >= to_datetime(at - window),
        pl.col("at") < to_datetime(at),
        ~late | (pl.col("ingested_at") <= to_datetime(late_to)),
    )
    return kept.height, float(kept["fare"].sum())


def check(platform: LocalPlatform, frame: pl.DataFrame, windows: dict[str, int], least: int, late_to: int) -> None:
    at = platform.store.watermark("pricing")
    got = platform.online("pricing", CITIES, at=to_datetime(at))
    for row, city in enumerate(got["city"]):
        for label, window in windows.items():
            count, total = expected(frame, city, at, window, least, late_to)
            assert got[f"demand__count_{label}"][row] == count, (city, label)
            assert (got[f"demand__fare_sum_{label}"][row] or 0.0) == pytest.approx(total, rel=1e-9), (city, label)


def newest(frame: pl.DataFrame) -> int:
    return to_instant(frame["ingested_at"].max())


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform(define(tmp_path, 1, ["1h", "6h"])) as platform:
        yield platform


def test_a_changed_view_lives_beside_the_old_one_until_it_is_promoted(platform, tmp_path):
    first = rides(START, 30, 1)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    check(platform, first, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(first))

    platform.redefine(define(tmp_path, 5, ["1h", "12h"], version=2))
    found = diff(platform.client, Lake(platform.lake), platform.registry)
    told = {(one.kind, one.what): (one.old, one.new) for one in found.differences}
    assert told["changed", "version"] == ("1", "2")
    assert told["changed", "demand: where"] == ('[(col("fare")) > (dyn int: 1)]', '[(col("fare")) > (dyn int: 5)]')
    assert told["added", "demand: count_12h"][1].startswith("count over 12h")
    assert told["removed", "demand: count_6h"][0].startswith("count over 6h")
    assert len(found.costs["demand"].days) == 2
    with pytest.raises(
        NotReadyError, match=r"(?s)cannot be promoted.*tiles/demand: 2 days are not built.*rtml backfill"
    ):
        platform.promote("pricing")

    # What is served goes on, for events that come after the change, too.
    second = rides(START + 32 * HOUR, 6, 2)
    platform.send("rides", second, ingested_at="ingested_at")
    platform.settle()
    both = pl.concat([first, second])
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(first))

    platform.compact()
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
    before = read_services(platform.client)["pricing"]
    assert platform.promote("pricing").before == before
    check(platform, both, {"1h": HOUR, "12h": 12 * HOUR}, 5, newest(both))
    assert diff(platform.client, Lake(platform.lake), platform.registry).differences == []
    assert not platform.promote("pricing").changed

    third = rides(START + 40 * HOUR, 6, 3)
    platform.send("rides", third, ingested_at="ingested_at")
    platform.settle()
    assert platform.rollback("pricing").service == before
    everything = pl.concat([both, third])
    check(platform, everything, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
    platform.promote("pricing")
    check(platform, everything, {"1h": HOUR, "12h": 12 * HOUR}, 5, newest(both))


def test_a_view_over_landed_history_is_exact_within_one_run(platform, tmp_path):
    """What followed the boundary comes from the lake, what is new from the stream; a second change does the same."""
    history = rides(START, 50, 4)
    until = newest(history) - 5 * HOUR
    lake = Lake(platform.lake)
    landed = history.filter(pl.col("ingested_at") < to_datetime(until))
    platform.redefine(define(tmp_path, 2, ["1h"], version=3))
    source = platform.registry.source("rides")
    land(lake, platform.client, source, landed, until=to_datetime(until))
    platform.redefine(define(tmp_path, 2, ["1h", "12h"], version=3))
    rest = history.filter(pl.col("ingested_at") >= to_datetime(until))
    platform.send("rides", rest, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    eventually_live(platform, lambda: platform.promote("pricing"))
    check(platform, history, {"1h": HOUR, "12h": 12 * HOUR}, 2, newest(history))


def eventually_live(platform: LocalPlatform, what: Any) -> None:
    """The flow adopts what publish has made, and catches up, within seconds."""
    platform._wait_for(lambda: not platform.client.exists(keys.rewinding("rides")), "the rewind's end")
    what()


def test_versions_that_nobody_reads_are_pruned(platform, tmp_path):
    first = rides(START, 10, 5)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    (old,) = version_names(platform.client, "demand")
    with pytest.raises(RequestError, match="was never promoted over anything"):
        platform.rollback("pricing")
    platform.redefine(define(tmp_path, 5, ["1h"], version=2))
    platform.settle()
    platform.compact()
    platform.promote("pricing")
    platform.compact()
    assert old in version_names(platform.client, "demand")
    platform.settings = msgspec.structs.replace(platform.settings, version_grace="1us")
    platform.redefine(define(tmp_path, 5, ["1h"], version=2))
    platform.compact()
    assert old not in version_names(platform.client, "demand")
    assert old not in live_names(platform.client, "demand").values()
    assert not list(platform.client.scan_iter(f"rtml:{{*}}:demand@{old}*"))
    with pytest.raises(NotReadyError, match="given up when its grace"):
        platform.rollback("pricing")
    check(platform, first, {"1h": HOUR}, 5, newest(first) + DAY)


def test_a_redis_that_lost_everything_is_filled_from_the_lake(platform, tmp_path):
    first = rides(START, 30, 6)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform._supervisor.stop()
    platform.client.flushall()
    platform.redefine(define(tmp_path, 1, ["1h", "6h"]))
    with pytest.raises(NotReadyError, match="serves nothing yet"):
        platform.online("pricing", CITIES)
    second = rides(START + 33 * HOUR, 5, 7)
    platform.send("rides", second, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    eventually_live(platform, lambda: None)
    both = pl.concat([first, second])
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
