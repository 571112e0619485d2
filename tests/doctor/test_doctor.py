"""`rtml doctor`: what is wrong is caused for real, and found with its evidence."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from rtml.instants import HOUR, MINUTE, now, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import load
from rtml_assets.cli import app
from rtml_assets.doctor import lake_tables, processes, redis_server, replica
from rtml_assets.doctor.examine import ask, examine, examine_project, subject_of
from rtml_assets.doctor.finding import ADVICE, Finding, found
from rtml_assets.doctor.show import rendered
from rtml_assets.doctor.subject import Subject
from rtml_assets.runtime.ports import free_port
from rtml_assets.testing import LocalPlatform
from rtml_assets.watch.catalog import CATALOG
from rtml_assets.watch.conditions import conditions
from rtml_assets.watch.report import DagsterLook, Disk, LakeLook, Platform, Process, RedisLook, ServerLook
from streaming.contracts import runs_by

START = to_instant("2024-03-01T00:00:00Z")
FEATURES = """
import polars as pl
import rtml
from rtml import Count, Entity, EventSource, FeatureService, RedisStream, StreamFeatureView

class Ride(rtml.Event):
    ride_id: str
    at: rtml.Timestamp
    city: str
    fare: {fare}

class Tip(rtml.Event):
    at: rtml.Timestamp
    city: str

rides = EventSource(name="rides", schema=Ride, timestamp="at", event_id="ride_id",
                    stream=RedisStream("rides", partitions=2), starts="2024-01-01", ends="2024-12-31")
tips = EventSource(name="tips", schema=Tip, timestamp="at", stream=RedisStream("tips", partitions=2))
demand = StreamFeatureView(name="demand", source=rides, entity=Entity("city"),
                           features=[Count(windows=["{window}"])])
pricing = FeatureService("pricing", features=[demand])
"""
WITHOUT = {"server_away", "dagster_away", "stamps_accepted"}
"""What is always found here: only the flows run."""


def define(folder: Path, fare: str = "float", window: str = "1h") -> str:
    path = folder / f"features_{fare}_{window}.py"
    path.write_text(FEATURES.format(fare=fare, window=window))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doctor")


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform(define(folder)) as running:
        running.settings = msgspec.structs.replace(running.settings, port=free_port(), dagster_port=free_port())
        send(running, 0)
        running.settle()
        yield running


def send(platform: LocalPlatform, first: int) -> None:
    """Ten rides of one minute in each partition."""
    at = to_datetime(START + first * MINUTE)
    for partition in (0, 1):
        names = [f"r{first}-{partition}-{number}" for number in range(10)]
        rides = pl.DataFrame({"ride_id": names, "at": [at] * 10, "city": "a", "fare": 1.0})
        platform.send("rides", rides, ingested_at=at, partition=partition)


def findings(platform: LocalPlatform, features: str | None = None, **settings: Any) -> dict[str, Finding]:
    chosen = msgspec.structs.replace(platform.settings, **settings)
    registry = platform.registry if features is None else load(features)
    found_ = examine(chosen, registry, between=0.3)
    assert not found_.unseen, found_.unseen
    return {finding.name: finding for finding in found_.findings}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_what_is_well_is_not_found_and_what_was_never_written_is(platform: LocalPlatform) -> None:
    assert set(findings(platform)) == WITHOUT | {"source_never_written"}
    tip = json.dumps({"at": START, "city": "a"})
    platform.client.xadd("tips", {"data": tip, "ingested_at": START})
    platform.settle()
    one = findings(platform)
    assert set(one) == WITHOUT | {"partition_never_written"}
    assert one["partition_never_written"].target == "source:tips"
    assert one["partition_never_written"].evidence == {"partitions": ["1"]}
    assert one["stamps_accepted"].evidence == {"on_replay_time": ["rides", "tips"]}
    platform.send_bytes("tips", [tip.encode()], ingested_at=to_datetime(START), partition=1)
    platform.settle()
    assert set(findings(platform)) == WITHOUT


def test_a_redis_that_evicts_is_full_and_does_not_keep(platform: LocalPlatform) -> None:
    client = platform.client
    client.config_set("maxmemory-policy", "allkeys-lru")  # without maxmemory: it would evict, and does not yet
    client.config_set("appendonly", "no")
    try:
        evicts = findings(platform)
        client.config_set("maxmemory-policy", "noeviction")
        room = int(client.info("memory")["used_memory"]) * 10 // 9
        client.config_set("maxmemory", room)
        full = findings(platform)
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
    assert set(evicts) == WITHOUT | {"redis_evicts", "redis_forgets"}
    assert evicts["redis_evicts"].evidence == {"policy": "allkeys-lru"}
    assert full["redis_full"].evidence["max_bytes"] == room
    assert evicts["redis_evicts"].runbook == "docs/runbooks/redis-memory.md"


def test_a_lake_that_takes_no_writes(platform: LocalPlatform, folder: Path) -> None:
    (folder / "file").write_text("no folder")
    found_ = findings(platform, lake=str(folder / "file" / "lake"))
    assert "Not a directory" in found_["lake_unwritable"].what


def test_a_port_that_somebody_else_has(platform: LocalPlatform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found_ = findings(platform, port=taken.getsockname()[1])
    assert "another program listens" in found_["port_taken"].what
    assert "server_away" not in found_


def test_definitions_that_are_not_served_and_a_contract_that_may_not_be(platform: LocalPlatform, folder: Path) -> None:
    changed = findings(platform, define(folder, window="2h"))
    assert changed["service_not_served"].evidence["views"] == ["demand"]
    assert changed["service_not_served"].todo == "rtml diff pricing; then rtml promote pricing"
    refused, lake = define(folder, fare="pl.Int32"), Lake(platform.lake)
    runs_by(platform.client, lake, "rides", "tiles", refused)
    assert "fare: Float64 → Int32: refused" in str(findings(platform)["contract_held"].evidence["words"])
    with subject_of(platform.settings, platform.registry, 0.0) as subject:
        alerts = {(condition.alert, condition.target) for condition in conditions(subject.second)}
    assert ("check_failed", "source:rides") in alerts
    runs_by(platform.client, lake, "rides", "tiles", define(folder))
    assert "contract_held" not in findings(platform)
    widened = define(folder, fare="float = rtml.Field(nullable=True)")
    runs_by(platform.client, lake, "rides", "mirror", widened)
    assert findings(platform)["contract_behind"].evidence == {"flows": ["tiles"], "version": 2}
    runs_by(platform.client, lake, "rides", "mirror", define(folder))  # null again refused: held


def test_what_no_release_can_read(platform: LocalPlatform) -> None:
    client = platform.client
    client.hset("rtml:{city|zz}:demand@x", "h", b"\xff" * 42)
    client.hset(keys.meta("demand", "x.1"), mapping={"plan": b"{}", "state": b"ready"})
    client.sadd(keys.versions("demand"), "x.1")
    try:
        examined = examine(platform.settings, platform.registry, between=0.1)
    finally:
        client.delete("rtml:{city|zz}:demand@x", keys.meta("demand", "x.1"))
        client.srem(keys.versions("demand"), "x.1")
    words = [finding.what for finding in examined.findings if finding.name == "unreadable"]
    assert len(words) == 2
    assert "version x.1 of view 'demand'" in words[0]
    assert "must be codec 1" in words[1]


def test_refused_events_and_days_that_nobody_builds(platform: LocalPlatform) -> None:
    platform.send_bytes("rides", [b"no json"] * 3, ingested_at=to_datetime(START + HOUR))

    def grows() -> bool:
        return "quarantine_grows" in findings(platform)

    until(grows, "refused events were not seen")
    finding = findings(platform)["quarantine_grows"]
    assert finding.target == "source:rides"
    assert finding.evidence["newest_reasons"] == ["not_json: 3"]
    with subject_of(platform.settings, platform.registry, 0.0) as subject:
        tables = lake_tables.look(subject, "rides")
    assert [str(day) for day in tables.touched] == ["2024-03-01"]
    (late,) = [
        finding for finding in lake_tables.judge_tables(tables, now() + 4 * HOUR) if finding.name == "not_compacted"
    ]
    assert late.severity == "warning"
    assert late.evidence["days"] == 1


def test_a_flow_that_hangs(platform: LocalPlatform) -> None:
    status = platform._supervisor.status()["rides:tiles"]
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    try:
        send(platform, 1_000)
        until(lambda: "position_stuck" in findings(platform), "the flow's position was not seen to be stuck")
        found_ = findings(platform)
    finally:
        os.kill(status.pid, signal.SIGCONT)
    assert found_["position_stuck"].evidence["flow"] == "tiles"
    assert found_["flow_silent"].evidence["flow"] == "tiles"
    platform.settle()
    until(lambda: not {"position_stuck", "flow_silent"} & set(findings(platform)), "the flow did not come back")


# ------------------------------------------------------------------------------------------------ what needs no flow


def names(found_: Any) -> list[str]:
    return [finding.name for finding in found_]


def test_what_cannot_be_caused_here_is_judged() -> None:
    redis_, server = RedisLook(up=True, clock_offset_ms=3_000, clock_error_ms=1), ServerLook(up=True)
    info = {"redis_version": "5.0.7", "aof_enabled": 1, "aof_last_write_status": "err", "rdb_last_bgsave_status": "ok"}
    state = redis_server.RedisState(redis_, server, info, False, [])
    assert names(redis_server.judge(state)) == ["redis_old", "redis_cannot_save", "clock_skew"]
    assert names(redis_server.clocks(RedisLook(up=True, clock_offset_ms=-1_500, clock_error_ms=600), server)) == []
    room = lake_tables.judge_room(LakeLook(), {"home": Disk("/h", 2, 100), "lake": Disk("/l", 5, 100)})
    assert [finding.severity for finding in room] == ["critical", "warning"]


def test_processes_are_judged() -> None:
    from rtml.settings import Settings

    def judged(*, port_used: bool = False, **looks: Any) -> list[str]:
        platform = Platform(**{"redis": RedisLook(up=True), "server": ServerLook(up=True), **looks})
        state = processes.ProcessState(Settings(), platform, port_used, ["compact_rides_hourly"])
        return names(processes.judge(state))

    assert judged(dagster=DagsterLook(up=True)) == ["schedule_stopped"]
    down = DagsterLook(up=False, words="dead", unhealthy=["SENSOR"])
    assert judged(dagster=down, server=ServerLook(up=True, ready=False)) == [
        "server_unready",
        "dagster_down",
        "schedule_stopped",
    ]
    away, unready = RedisLook(up=False, words="away"), ServerLook(up=True, ready=False, words="Redis does not answer")
    assert judged(redis=away, server=unready, dagster=DagsterLook(up=True)) == ["schedule_stopped"]
    silent: dict[str, Any] = {
        "server": ServerLook(up=False, words="timed out"),
        "dagster": DagsterLook(up=True),
        "port_used": True,
    }
    assert judged(**silent, processes={"serve": Process(7, 0)}) == ["server_hangs", "schedule_stopped"]
    assert judged(**silent, processes={"serve": Process(None, 1)}) == ["port_taken", "schedule_stopped"]
    dying = {"rides:tiles": Process(None, 4, crashes=4, exit_code=1)}
    assert judged(processes=dying) == ["schedule_stopped", "process_dies"]


def test_every_finding_says_what_to_do_and_has_a_runbook() -> None:
    assert all(advice.why and advice.todo and advice.alert in CATALOG for advice in ADVICE.values())
    assert found("flow_silent", "x", "source:rides").todo.startswith("rtml up, or rtml stream rides;")


def test_one_probe_that_fails_or_hangs_hides_no_other() -> None:
    wrong = found("redis_old", "old")

    def fails(_: Subject) -> list[Finding]:
        raise ValueError("no such thing")

    def hangs(_: Subject) -> list[Finding]:
        time.sleep(20)
        return []

    subject: Any = None
    started = time.monotonic()
    found_, unseen = ask({"a": fails, "b": hangs, "c": lambda _: [wrong]}, subject, 0.5)
    assert time.monotonic() - started < 10
    assert found_ == [wrong]
    assert unseen == {"a": "ValueError: no such thing", "b": "it did not end within 0.5 s"}


def test_a_replica_follows_its_primary_or_it_is_said() -> None:
    primary = {"role": "master", "master_replid": "ab", "master_repl_offset": 10**9}
    level = {"role": "slave", "master_replid": "ab", "master_link_status": "up", "slave_repl_offset": 10**9}
    for healthy in (level, primary):
        assert names(replica.judge("redis://r", healthy, primary)) == []
    apart = (
        level | {"master_link_status": "down", "master_link_down_since_seconds": 7},
        level | {"slave_repl_offset": 0},
        primary | {"master_replid": "cd"},
    )
    judged = [finding for known in apart for finding in replica.judge("redis://r", known, primary)]
    assert [finding.name for finding in judged] == ["replica_apart"] * 3
    assert [finding.severity for finding in judged] == ["critical", "warning", "critical"]
    assert judged[0].evidence == {"link": "down", "down_seconds": 7}


def test_the_command_without_a_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTML_FEATURES", define(tmp_path))
    for setting, value in {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "PORT": str(free_port())}.items():
        monkeypatch.setenv(f"RTML_{setting}", value)
    monkeypatch.setenv("RTML_DAGSTER_PORT", str(free_port()))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert {one["name"] for one in told["findings"]} == {"redis_away", "server_away", "dagster_away"}
    assert set(told["unseen"]) == {"the stream", "its tables", "versions"}
    monkeypatch.setenv("RTML_FEATURES", str(tmp_path / "none.py"))
    assert examine_project(between=0.0).findings[0].name == "definitions_wrong"
    monkeypatch.setenv("RTML_PROT", "1")
    (finding,) = examine_project().findings
    assert (finding.name, finding.severity) == ("settings_wrong", "critical")
    assert "unknown setting 'RTML_PROT' in the environment" in finding.what
    assert rendered(examine_project())
