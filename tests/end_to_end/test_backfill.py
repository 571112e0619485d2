"""Backfills that are killed, and backfills beside a stream at full speed: the tables are as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
from dagster import DagsterInstance

from rtml.instants import HOUR
from rtml.lake import Lake, raw_schema, tiles_schema
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.defs.backfill import backfill
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.tables.delta import open_table, rows_by_day, scan
from rtml_assets.tables.land import land
from rtml_assets.testing import LocalPlatform
from streaming.broker import connect
from streaming.versions import Version, live_version
from tests.end_to_end.rides import START, check, define, newest, rides

ROOT = Path(__file__).resolve().parents[2]
BACKFILL = """
import sys
from rtml_assets import cli
from rtml_assets.defs import backfill
backfill.ROWS_A_RUN = 40
print("begun", flush=True)
sys.argv = ["rtml", "backfill", "demand"]
cli.main()
"""


def stored(settings: Settings, features: str) -> dict[str, list[bytes]]:
    """Return the bytes of every day of `events/` and `tiles/`, in the order in which its rows are stored."""
    registry, lake = load(features), Lake(settings.lake_root)
    tables = {
        lake.events("rides"): raw_schema(registry.source("rides")),
        lake.tiles("demand"): tiles_schema(registry.plans["demand"]),
    }
    found = {}
    for uri, schema in tables.items():
        table = open_table(uri)
        days = [scan(table, schema, [day]).collect() for day in rows_by_day(table)]
        found[uri.removeprefix(settings.lake_root)] = [day.write_ipc(None).getvalue() for day in days]
    return found


def settings_at(folder: Path, features: str, url: str) -> Settings:
    return Settings(features=features, home=str(folder), redis_url=url)


def test_a_backfill_killed_anywhere_and_repeated_builds_the_same_bytes(tmp_path: Path) -> None:
    features = define(tmp_path, 1, ["1h", "6h"])
    registry, history = load(features), rides(START, 8 * 24, 1)
    with EmbeddedRedis(tmp_path / "redis") as server, connect(server.url) as client:
        whole = settings_at(tmp_path / "whole", features, server.url)
        land(Lake(whole.lake_root), client, registry.source("rides"), history)
        days = list(rows_by_day(open_table(Lake(whole.lake_root).raw("rides"))))
        with DagsterInstance.ephemeral() as instance:
            summary = backfill(whole, registry, registry.view("demand"), days, instance=instance)
        assert summary.published["demand"]["state"] == "ready"
        client.flushall()
        torn = settings_at(tmp_path / "torn", features, server.url)
        land(Lake(torn.lake_root), client, registry.source("rides"), history)
        rng, deaths = random.Random(3), 0
        for _ in range(5):
            process = begin(torn)
            time.sleep(rng.uniform(0.5, 6))
            deaths += process.poll() is None
            process.kill()
            process.communicate()
        assert deaths >= 3
        last = begin(torn)
        said, _ = last.communicate(timeout=120)
        assert last.returncode == 0, said
        assert "is ready" in said
        assert stored(torn, features) == stored(whole, features)


def begin(settings: Settings) -> subprocess.Popen[str]:
    """Start `rtml backfill`, and return when it has loaded all that it needs."""
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", BACKFILL],
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def has_history(version: Version | None) -> bool:
    return version is not None and version.boundary > START


def test_a_backfill_beside_a_stream_at_full_speed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with LocalPlatform(define(tmp_path, 1, ["1h", "48h"])) as platform:
        before, live = rides(START, 48, 2), rides(START + 51 * HOUR, 30, 3)
        # Landed beside a running stream: history, what follows it from the lake, and a rewind of the stream.
        land(Lake(platform.lake), platform.client, platform.registry.source("rides"), before)

        def stream() -> None:
            for start in range(0, live.height, 10):
                platform.send("rides", live[start : start + 10], ingested_at="ingested_at")

        sender = threading.Thread(target=stream)
        sender.start()
        rounds = 0
        with DagsterInstance.ephemeral() as instance:
            while sender.is_alive() or rounds < 2:
                table = open_table(Lake(platform.lake).raw("rides"))
                view = platform.registry.view("demand")
                backfill(platform.settings, platform.registry, view, list(rows_by_day(table)), instance=instance)
                rounds += 1
        sender.join()
        platform.settle()
        platform.compact()
        fingerprint = platform.registry.plans["demand"].fingerprint
        platform._wait_for(lambda: has_history(live_version(platform.client, "demand", fingerprint)), "the new build")
        everything = pl.concat([before, live])
        check(platform, everything, {"1h": HOUR, "48h": 48 * HOUR}, 1, newest(everything))
        events = pl.read_delta(Lake(platform.lake).events("rides"))
        assert sorted(events["ride_id"]) == sorted(everything["ride_id"])
        top = pl.read_delta(Lake(platform.lake).tiles("demand")).filter(pl.col("level") == 0)
        assert top["rows"].sum() == everything.filter(pl.col("fare") > 1).height
