"""31 daily partitions of real flights through Dagster: events and the tiles of four views, then published."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from benchmarks.rows import Row, verdict
from examples.flights import data
from rtml.lake import Lake
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.runtime.dagster_home import prepare
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.tables.land import land
from streaming.broker import connect

FEATURES = "examples.flights.features"
FIRST, DAYS = datetime(2013, 1, 1, tzinfo=UTC), 31
AIM_SECONDS = 60.0


def run() -> list[Row]:
    """Time a backfill, with Dagster's notes as durable as they are by default."""
    registry = load(FEATURES)
    end = FIRST + timedelta(days=DAYS)
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server, connect(server.url) as client:
        settings = Settings(FEATURES, home=folder, redis_url=server.url)
        events = {"departures": data.departures(end=end), "arrivals": data.arrivals(end=end)}
        rows = 0
        for name, frame in events.items():
            history = frame.filter(pl.col("event_time") < end)
            rows += land(Lake(settings.lake_root), client, registry.source(name), history)
        with dg.DagsterInstance.from_config(str(prepare(settings.home_path))) as instance:
            started = time.perf_counter()
            summary = materialize_days(settings, registry, instance=instance)
            seconds = time.perf_counter() - started
    days = max(len(built) for built in summary.days.values())
    what = f"backfill of {days} days of flights through Dagster: {rows:,} events, {len(registry.views)} views"
    return [Row(what, f"{seconds:.1f} s", aim=f"< {AIM_SECONDS:g} s", verdict=verdict(seconds < AIM_SECONDS))]
