"""Rides of two cities: definitions that a test may change, random events, and the truth about them."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from rtml.columns import TIMESTAMP
from rtml.instants import HOUR, MINUTE, to_datetime, to_instant
from rtml_assets.testing import LocalPlatform

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
