"""The observer over a real platform: flows, server and Redis as processes; what is broken is really broken."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from rtml.define.sla import agreed
from rtml.instants import SECOND, now
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.processes import forget_processes, read_processes, write_processes
from rtml_assets.runtime.supervisor import Status
from rtml_assets.testing import LocalPlatform
from rtml_assets.watch.background import Background
from rtml_assets.watch.conditions import conditions
from rtml_assets.watch.heartbeat import Beat
from rtml_assets.watch.look_platform import ProcessLook, look_at_lake, with_processes
from rtml_assets.watch.look_redis import look_at_source
from rtml_assets.watch.look_server import Series, ServerEyes, quantile
from rtml_assets.watch.observe import Observer
from rtml_assets.watch.report import DagsterLook, Process, Report, decode, encode
from rtml_assets.watch.source_state import SourceState
from streaming.positions import arrived_at, read_positions
from streaming.rewind import request_rewind
from tests.serving.conftest import Served

DEFINITIONS = str(Path(__file__).parent / "sales.py")
LONG_AGO = datetime(2020, 5, 1, 12, tzinfo=UTC)
PATIENCE = 60.0


def events(start: int, count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"s{number}" for number in range(start, start + count)],
            "at": [LONG_AGO + timedelta(seconds=number) for number in range(start, start + count)],
            "shop": ["big" if number % 4 else "small" for number in range(start, start + count)],
            "amount": [None if number % 2 else 1.5 for number in range(start, start + count)],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC"), "amount": pl.Float64},
    )


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform(DEFINITIONS) as platform:
        yield platform


@pytest.fixture(scope="module")
def served(platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(
        platform.redis_url, tmp_path_factory.mktemp("server"), RTML_LAKE=platform.lake, RTML_LOG_EPOCH="200ms"
    )
    yield server
    server.end()


@pytest.fixture(scope="module")
def observer(platform: LocalPlatform, served: Served) -> Iterator[Observer]:
    settings = msgspec.structs.replace(platform.settings, port=served.port, dagster_port=free_port())
    with Observer(settings, platform.registry) as observer:
        yield observer


def until(observer: Observer, holds: Callable[[Report], bool]) -> Report:
    """Return the first look of which something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds(report := observer.look()):
        assert time.monotonic() < deadline, encode(report).decode()
        time.sleep(0.1)
    return report


def test_a_stream_that_nobody_wrote_to_is_left_so(platform: LocalPlatform, observer: Observer) -> None:
    report = observer.look()
    assert {name: source.state for name, source in report.sources.items()} == {
        "sales": "unwritten",
        "idle": "unwritten",
    }
    assert report.views["shop_sales"].age_ms is None
    assert not platform.client.exists("sales", "sales:1", "idle")
    wrong = {found.alert for found in conditions(report)}
    assert wrong <= {"disk_full", "serving_unavailable"}, wrong  # a machine's own disk, a server that just started


def test_a_running_platform_is_seen_whole(platform: LocalPlatform, observer: Observer) -> None:
    platform.send("sales", events(0, 400), ingested_at="at")
    platform.settle()
    until(observer, lambda look: look.sources["sales"].flows["mirror"].worst("heartbeat_ms") is not None)
    report = until(observer, lambda look: look.sources["sales"].flows["tiles"].minute.get("accepted") == 400)
    sales = report.sources["sales"]
    tiles = sales.flows["tiles"]
    assert (sales.state, sales.replayed) == ("flowing", True)
    assert tiles.nulls == {"amount": 0.5}
    assert tiles.hot is not None
    assert (tiles.hot.entity, tiles.hot.share) == ("rtml:{shop|big}", 0.75)
    assert set(tiles.stages) == {"read", "gate", "route", "write"}
    assert tiles.cache["cached_entities"] == 2
    assert tiles.counts["accepted"] == 400
    assert all(part.heartbeat_ms is not None and part.missing_ms == 0 for part in tiles.partitions)
    assert sales.server_heartbeat_ms is not None
    assert sales.server_heartbeat_ms > (tiles.worst("heartbeat_ms") or 0)
    assert sales.last_event_age_ms is not None
    assert report.platform.redis.policy == "noeviction"
    assert report.platform.server.up
    assert report.platform.server.ready
    assert report.platform.lake.writable
    assert report.platform.disks["lake"].total_bytes
    till = report.services["till"]
    assert till.probe_ok, till.words
    assert till.errors == 0
    assert till.latency is None  # nobody but the watch asks
    view = report.views["shop_sales"]
    assert (view.state, view.watermark_at is not None) == ("ready", True)
    assert decode(encode(report)) == report
    judged = {f"{found.target} {found.name}": found.good for found in report.objectives}
    assert judged["source:sales heartbeat"] is True
    assert judged["source:sales nulls:amount"] is False
    assert judged["service:till availability"] is True
    assert [found.alert for found in conditions(report) if found.target != "platform"] == ["nulls"]


def test_heartbeats_change_nothing_but_the_offset(platform: LocalPlatform, observer: Observer) -> None:
    """Time, rows, figures of events and features stay; stamps of the past are still taken."""
    before = read_positions(platform.client, keys.position("sales"), 2)
    counts = observer.look().sources["sales"].flows["tiles"].counts
    newest = max(position.order for position in before)
    report = until(
        observer,
        lambda _: (
            min(position.order for position in read_positions(platform.client, keys.position("sales"), 2)) > newest
        ),
    )
    after = read_positions(platform.client, keys.position("sales"), 2)
    assert [position.ingested_at for position in after] == [position.ingested_at for position in before]
    told = report.sources["sales"].flows["tiles"].counts
    assert {name: told[name] for name in ("accepted", "refused", "duplicates", "late")} == {
        name: counts[name] for name in ("accepted", "refused", "duplicates", "late")
    }
    assert pl.read_delta(Lake(platform.lake).raw("sales")).height == 400
    assert not Path(Lake(platform.lake).quarantine("sales")).exists()
    platform.send("sales", events(400, 100), ingested_at="at")
    platform.settle()
    shown = platform.online("till", [{"shop": "big"}])
    assert shown["shop_sales__count_1h"].to_list() == [374]  # 375, and the last one is at the instant itself


def test_the_watchs_own_questions_are_not_logged(platform: LocalPlatform, served: Served, observer: Observer) -> None:
    served.http.post("/v1/features/till", json={"entities": [{"shop": "big"}]}).raise_for_status()
    observer.look()
    table = Path(Lake(platform.lake).served("till"))
    until(observer, lambda _: table.exists())
    assert pl.read_delta(str(table))["shop"].unique().to_list() == ["big"]


def test_real_traffic_has_its_own_quantiles(served: Served, observer: Observer) -> None:
    observer.look()
    for _ in range(60):
        served.http.post("/v1/features/till", json={"entities": [{"shop": "small"}]}).raise_for_status()
        time.sleep(0.025)  # one answer in 20 ms is looked at for its nulls
    report = until(observer, lambda look: look.services["till"].latency is not None)
    latency = report.services["till"].latency
    assert latency is not None
    assert 0 < latency.p50 <= latency.p95 <= latency.p99
    # Asked for now, years after the last sale: an empty window has a count, and no mean.
    assert report.views["shop_sales"].nulls == {"count_1h": 0.0, "amount_mean_1h": 1.0}


def test_a_quiet_source_is_told_from_a_broken_one(platform: LocalPlatform, observer: Observer) -> None:
    platform.crash()  # a new process has seen no event in its last minute
    quiet = until(observer, lambda look: look.sources["sales"].state == "quiet")
    assert all(part.missing_ms == 0 or part.heartbeat_ms for part in quiet.sources["sales"].flows["tiles"].partitions)
    until(observer, lambda look: look.sources["sales"].flows["tiles"].worst("missing_ms") == 0)
    pid = platform._supervisor.status()["sales:tiles"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = until(observer, lambda look: look.sources["sales"].state == "stalled")
    finally:
        os.kill(pid, signal.SIGCONT)
    found = {(condition.alert, condition.target): condition for condition in conditions(stalled)}
    assert "flow 'tiles' passes nothing on" in found["stream_stalled", "source:sales"].words
    assert stalled.sources["idle"].state == "unwritten"
    judged = {f"{one.target} {one.name}": one.good for one in stalled.objectives}
    assert judged["source:sales heartbeat"] is False
    well = until(observer, lambda look: look.sources["sales"].flows["tiles"].worst("missing_ms") == 0)
    assert well.sources["sales"].state == "quiet"


def test_what_is_read_again_is_no_news(platform: LocalPlatform, observer: Observer) -> None:
    """It is known to the last event, and comes long after it came: neither duplicates nor freshness are told of it."""
    request_rewind(platform.client, platform.registry.source("sales"))
    platform.crash()
    platform.settle()
    report = until(observer, lambda look: look.sources["sales"].flows["tiles"].counts["duplicates"] >= 500)
    until(observer, lambda look: look.sources["sales"].state == "quiet")
    tiles = report.sources["sales"].flows["tiles"]
    assert (tiles.minute.get("duplicates", 0), tiles.freshness_p99_ms, tiles.events_per_second) == (0, None, 0.0)


def test_of_few_answers_no_share_of_nulls_is_told(platform: LocalPlatform) -> None:
    labels = (("feature", "amount_mean_1h"), ("view", "shop_sales"))
    eyes = ServerEyes(platform.settings, platform.registry)
    for values in (19.0, 20.0):
        of: Series = {("rtml_feature_values_total", labels): values, ("rtml_feature_nulls_total", labels): 5.0}
        eyes._scrapes = deque([(0, {}), (SECOND, of)])
        assert eyes._nulls() == ({"shop_sales": {"amount_mean_1h": 0.25}} if values == 20 else {})
    eyes.close()


def test_a_flow_that_reads_its_past_again_is_not_stalled_while_it_lives(platform: LocalPlatform) -> None:
    """A position is never lowered, so it stands still; that a flow is restarted for it would begin it all again."""
    source = platform.registry.source("sales")
    seen = look_at_source(platform.client, source, now())._replace(rewinding=True)
    state = SourceState(agreed("source", source.sla), platform.settings)

    def look(second: int, lives: bool) -> str:
        updated = (second if lives else 100) * SECOND
        flows = {name: msgspec.structs.replace(flow, updated_at=updated) for name, flow in seen.flows.items()}
        missing = Beat(None, 1_000.0 * second)
        beats = {"tiles": dict.fromkeys((0, 1), missing), "mirror": dict.fromkeys((0, 1), Beat(1.0, 0.0))}
        return state.of(seen._replace(flows=flows), beats, None, second * SECOND, "").state

    assert [look(second, lives=True) for second in (10, 50, 100)] == ["replaying"] * 3
    assert [look(second, lives=False) for second in (100, 101, 102)] == ["replaying", "replaying", "stalled"]


def test_a_server_that_is_gone_costs_little(platform: LocalPlatform) -> None:
    settings = msgspec.structs.replace(platform.settings, port=free_port(), dagster_port=free_port())
    with Observer(settings, platform.registry) as alone:
        alone.look()
        report = alone.look()
    assert report.took_ms < 2_000
    assert report.platform.server.up is False
    assert report.sources["sales"].state in ("quiet", "flowing")
    found = {(one.alert, one.target) for one in conditions(report)}
    assert {("serving_unavailable", "platform"), ("serving_unavailable", "service:till")} <= found


def test_a_redis_that_is_gone_costs_little_and_is_all_that_is_said(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), redis_url=f"redis://127.0.0.1:{free_port()}/0", port=free_port())
    with Observer(settings, load(DEFINITIONS)) as observer:
        observer.look()
        report = observer.look()
    assert report.took_ms < 2_000
    assert {source.state for source in report.sources.values()} == {"unseen"}
    assert "Redis does not answer" in report.sources["sales"].words
    found = {one.alert for one in conditions(report)}
    assert "redis_unavailable" in found
    assert found <= {"redis_unavailable", "serving_unavailable", "disk_full"}
    assert {f"{one.target} {one.name}": one.good for one in report.objectives}["source:sales heartbeat"] is False


def test_a_redis_that_hangs_is_told_by_the_server_too(platform: LocalPlatform, observer: Observer) -> None:
    os.kill(platform.redis_pid, signal.SIGSTOP)
    try:
        report = until(observer, lambda look: not look.platform.redis.up and look.platform.server.ready is False)
    finally:
        os.kill(platform.redis_pid, signal.SIGCONT)
    assert report.took_ms < 3_000
    assert report.platform.server.up
    assert "Redis did not answer within" in report.platform.server.words
    found = {(one.alert, one.target) for one in conditions(report)}
    assert {("redis_unavailable", "platform"), ("serving_unavailable", "service:till")} <= found
    until(
        observer,
        lambda look: look.sources["sales"].flows["tiles"].worst("missing_ms") == 0 if look.platform.redis.up else False,
    )


def test_lag_is_of_the_oldest_entry_that_waits(platform: LocalPlatform) -> None:
    source = platform.registry.source("sales")
    seen = look_at_source(platform.client, source, 2**60)
    assert {part.lag_entries for part in seen.flows["tiles"].partitions} <= {0, 1, 2, 3}
    platform.client.hset(keys.position("sales"), "0", "0-1 0")
    part = look_at_source(platform.client, source, 2**60).flows["tiles"].partitions[0]
    assert part.lag_entries is not None
    assert part.lag_entries > 100
    assert part.lag_ms is not None
    first: Any = platform.client.xrange("sales", count=1)
    assert part.lag_ms == pytest.approx((2**60 - arrived_at(first[0][0])) / 1_000)


def test_a_lake_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    assert look_at_lake(str(tmp_path / "lake"), 5).writable
    assert list((tmp_path / "lake").iterdir()) == []
    (tmp_path / "file").touch()
    look = look_at_lake(str(tmp_path / "file" / "lake"), 5)
    assert (look.writable, look.probed_at) == (False, 5)
    assert "cannot be written" in look.words


def test_processes_are_read_from_the_supervisors_file(tmp_path: Path) -> None:
    look = ProcessLook(tmp_path)
    assert look.look(0) == {}
    write_processes(tmp_path, {"serve": Status(7, 1, -9, 1)})
    assert look.look(0) == {"serve": Process(7, 1, 1, 0, -9)}  # what was before the first look is no news
    write_processes(tmp_path, {"serve": Status(None, 3, 1, 3)})
    assert look.look(1_000_000)["serve"].recent_crashes == 2
    assert look.look(10**9)["serve"].recent_crashes == 0
    forget_processes(tmp_path)
    assert read_processes(tmp_path) == {}


def test_dagster_is_missed_only_where_it_runs() -> None:
    seen = DagsterLook(up=False, words="silent")
    daemon = {"dagster-daemon": Process(1, 0)}
    assert with_processes(seen, {"serve": Process(1, 0)}).up is None
    assert with_processes(seen, daemon) == seen
    dead = with_processes(DagsterLook(up=True), {"dagster-daemon": Process(None, 1, 1, 1, -9)})
    assert (dead.up, dead.words) == (False, "Dagster's daemon is dead (exit code -9)")


def test_a_look_that_hangs_is_said_to() -> None:
    go_on = threading.Event()

    def look() -> str:
        go_on.wait()
        return "seen"

    hanging = Background(look, "none", lambda _: "hangs", every=60, patience=0.05)
    assert hanging.latest() == "none"
    time.sleep(0.1)
    assert hanging.latest() == "hangs"
    go_on.set()
    while hanging.latest() == "hangs":
        time.sleep(0.01)
    assert hanging.latest() == "seen"


def test_a_quantile_lies_within_its_bucket() -> None:
    buckets = [(0.1, 50.0), (0.2, 90.0), (0.5, 100.0), (float("inf"), 100.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.7) == pytest.approx(0.15)
    assert quantile(buckets, 0.95) == pytest.approx(0.35)
    assert quantile([(0.1, 0.0), (float("inf"), 10.0)], 0.99) == 0.1
