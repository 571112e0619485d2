"""The watch: what it makes of a look, and as a process beside real flows."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from rtml.instants import MINUTE, SECOND, now
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.project import Project
from rtml_assets.watch import report as reports
from rtml_assets.watch.channels import Webhook
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.ledger import Ledger, ledger_file
from rtml_assets.watch.process import GRACE_LOOKS, Watch
from rtml_assets.watch.report import (
    DagsterLook,
    Flow,
    LakeLook,
    Objective,
    Partition,
    Platform,
    RedisLook,
    Report,
    ServerLook,
    Source,
)
from rtml_assets.watch.shown import KEPT_LOOKS, read_file
from streaming.broker import connect
from streaming.producer import Producer
from tests.runtime.processes import gone, until
from tests.watch.receivers import Hook
from tests.watch.shops import REGISTRY, payments

START = 1_700_000_000 * SECOND
KINDS = {"check_failed"}
STALLED = Source("stalled", "flow 'tiles' passes nothing on", {"tiles": Flow([Partition(0, missing_ms=9_000.0)])})
BROKEN = Objective("source:payments", "lag", 9_000.0, 5_000.0, "ms", False, 0.99, 30 * 24 * 60 * MINUTE, True, bad=1)


class Looks:
    """What the watch sees, and when: look by look, 2 s apart."""

    def __init__(self, watch_of: Any):
        self.now, self.seen = START, Report(START, 1.0, Platform(RedisLook(True), ServerLook(True)))
        self.watch = watch_of(lambda: self.seen, lambda: self.now)

    def look(self, seen: Report, count: int = 1) -> Report:
        self.seen = seen
        for _ in range(count):
            self.now += 2 * SECOND
            self.watch.once()
        return self.watch.report


def seen(*, redis: bool = True, lake: bool = True, **others: Any) -> Report:
    platform = Platform(
        RedisLook(redis, "" if redis else "refused"), ServerLook(True), lake=LakeLook(lake, "" if lake else "read-only")
    )
    return Report(START, 1.0, msgspec.structs.replace(platform, **others.pop("platform", {})), **others)


@pytest.fixture
def settings(redis_url, tmp_path):
    with connect(redis_url) as client:
        client.delete(keys.WATCH, keys.WATCH_HISTORY)
    return Settings(home=str(tmp_path), redis_url=redis_url)


@pytest.fixture(scope="module")
def hook():
    with Hook().running() as running:
        yield running


@pytest.fixture
def looks(settings, hook):
    hook.got.clear()
    channels = [Webhook(hook.url())]
    looks = Looks(lambda look, clock: Watch(settings, REGISTRY, look, channels, clock))
    yield looks
    looks.watch.ledger.close()


def names(report: Report) -> list[str]:
    return [f"{alert.alert} {alert.target}" for alert in report.alerts]


def test_what_is_still_starting_wakes_nobody(looks):
    down = {"dagster": DagsterLook(False, "dead")}
    starting = seen(lake=False, platform=down)
    assert names(looks.look(starting, GRACE_LOOKS)) == []
    assert names(looks.look(starting)) == ["lake_unwritable platform"]
    assert names(looks.look(starting, 45)) == ["dagster_down platform", "lake_unwritable platform"]
    assert names(looks.look(seen(), 2)) == []


def test_a_clock_that_is_set_back_at_the_start_silences_nobody(looks):
    looks.look(seen(), GRACE_LOOKS)
    looks.now -= 24 * 60 * MINUTE
    assert names(looks.look(seen(lake=False), 2)) == ["lake_unwritable platform"]


def test_a_contract_that_is_held_is_told_and_checks_are_left_to_dagster(looks):
    """Both settle `check_failed`: each its own targets."""
    looks.look(seen(), GRACE_LOOKS)
    looks.watch.ledger.settle([Condition("check_failed", "check:tiles/spent:rows", "critical", "bad")], START, KINDS, 1)
    held = seen(sources={"payments": Source("flowing", held="narrower than version 1")})
    both = {"check_failed check:tiles/spent:rows", "check_failed source:payments"}
    assert set(names(looks.look(held, 2))) == both
    assert names(looks.look(seen(), 2)) == ["check_failed check:tiles/spent:rows"]


def test_of_redis_one_alert_is_told_and_not_all_that_follows(looks):
    looks.look(seen(), GRACE_LOOKS)
    ill = seen(sources={"payments": STALLED}, objectives=[BROKEN])
    slow = seen(sources={"payments": Source("flowing")}, objectives=[BROKEN])
    assert names(looks.look(slow, 2)) == ["stream_lag source:payments"]
    assert names(looks.look(ill, 2)) == ["stream_stalled source:payments", "stream_lag source:payments"]
    away = seen(redis=False, lake=False, sources={"payments": Source("unseen", "refused")}, objectives=[BROKEN])
    shown = looks.look(away, 30)
    new = {"redis_unavailable platform", "lake_unwritable platform"}
    assert set(names(shown)) == {"stream_lag source:payments", "stream_stalled source:payments"} | new
    assert looks.watch.ledger.recent(0) == []
    looks.look(seen(), 2)
    looks.watch.outbox.deliver_all()


def test_of_a_source_that_hangs_one_alert_is_told_and_not_all_that_grows_old(looks):
    looks.look(seen(), GRACE_LOOKS)
    old = [
        msgspec.structs.replace(BROKEN, target=target, name="freshness") for target in ("view:spent", "service:fraud")
    ]
    ill = seen(sources={"payments": STALLED}, objectives=[BROKEN, *old])
    assert names(looks.look(ill, 5)) == ["stream_stalled source:payments"]
    flowing = seen(sources={"payments": Source("flowing")}, objectives=old)
    assert set(names(looks.look(flowing, 2))) == {"freshness service:fraud", "freshness view:spent"}


def test_what_grows_old_waits_until_its_source_is_judged(looks):
    looks.look(seen(), GRACE_LOOKS)
    old = msgspec.structs.replace(BROKEN, target="view:spent", name="freshness")

    def missing(seconds: float) -> Report:
        beat = msgspec.structs.replace(BROKEN, name="heartbeat", value=seconds * 1_000, bound=120_000.0, good=True)
        return seen(sources={"payments": Source("flowing")}, objectives=[beat, old])

    assert names(looks.look(missing(15), 5)) == []
    assert names(looks.look(missing(31), 2)) == ["freshness view:spent"], "but not for ever"
    looks.look(seen(), 2)
    assert names(looks.look(missing(0.2), 2)) == ["freshness view:spent"]


def test_the_report_says_what_is_wrong_what_was_done_and_what_is_left(looks, settings, redis_url, tmp_path):
    looks.look(seen(), GRACE_LOOKS)
    shown = looks.look(seen(sources={"payments": STALLED}, objectives=[BROKEN]), 3)
    stalled = next(alert for alert in shown.alerts if alert.alert == "stream_stalled")
    assert (stalled.runbook, stalled.link) == (
        "docs/runbooks/stream-stalled.md",
        "http://127.0.0.1:3000/assets/stream/payments",
    )
    assert stalled.remedy.startswith("restart of stream:payments:tiles: requested of the supervisor at ")
    assert (tmp_path / "watch" / "restart" / "stream-payments-tiles").exists()
    (lag,) = shown.objectives
    assert lag.left == pytest.approx(1 - 3 / 12_960)
    assert lag.burn["1h"] == pytest.approx(3 / 18, abs=1e-4)
    assert read_file(tmp_path) == shown
    with connect(redis_url) as client:
        assert reports.decode(client.get(keys.WATCH)) == shown
        point = json.loads(client.lindex(keys.WATCH_HISTORY, 0))
        assert client.llen(keys.WATCH_HISTORY) == GRACE_LOOKS + 3 < KEPT_LOOKS
    assert (point["at"], point["alerts"]) == (START, 1)
    assert point["sources"]["payments"]["state"] == "stalled"


def test_a_budget_that_burns_is_told(looks):
    looks.look(seen(), GRACE_LOOKS)
    good = msgspec.structs.replace(BROKEN, good=True, bad=0, value=1.0)
    assert "error_budget source:payments" not in names(looks.look(seen(objectives=[BROKEN]), 250))
    shown = looks.look(seen(objectives=[BROKEN]), 11)
    (budget,) = [alert for alert in shown.alerts if alert.alert == "error_budget"]
    assert budget.severity == "critical"
    assert "source:payments lag: " in budget.words
    assert names(looks.look(seen(objectives=[good]), 150)) == []


def test_where_nothing_can_be_written_that_is_told_once(looks, hook, monkeypatch):
    """SQLite really refuses here: its file may only be read."""
    hook.got.clear()
    looks.look(seen(), 1)
    looks.watch.ledger.rows("PRAGMA query_only = ON")
    for _ in range(3):
        looks.watch._once_or_told()
    assert [(said["alert"], said["kind"]) for said in hook.got] == [("disk_full", "fired")]
    assert "cannot write" in hook.got[0]["words"]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        looks.watch.once()
    looks.watch.ledger.rows("PRAGMA query_only = OFF")
    looks.watch._once_or_told()
    looks.watch.ledger.rows("PRAGMA query_only = ON")
    looks.watch._once_or_told()
    assert len(hook.got) == 2, "a new failure is told again"


def event(number: int) -> pl.DataFrame:
    frame = pl.DataFrame({"event_id": [str(number)], "event_time": [now() - SECOND], "card": [1], "amount": [2.0]})
    return frame.with_columns(pl.col("event_time").cast(pl.Datetime("us", "UTC")))


def test_a_flow_that_hangs_is_told_once_restarted_and_told_to_be_well(hook, tmp_path, monkeypatch):
    """The real thing: Redis, flows, supervisor and watch are processes, and the webhook is a server."""
    hook.got.clear()
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    settings = Settings(
        features="tests.watch.shops",
        home=str(tmp_path),
        tile_epoch="200ms",
        mirror_epoch="200ms",
        watch_interval="300ms",
        watch_port=free_port(),
        alert_webhook=hook.url(),
        port=free_port(),
        auth="on",
    )
    with Project(settings, ["payments"], embedded=True, dagster=False) as project:
        project.start_redis()
        project.start()
        with connect(project.settings.redis_url) as client:
            until(lambda: client.hexists(keys.figures("payments", "tiles"), "updated_at"), timeout=60)
            Producer(client, payments).send(event(1))

            def last() -> Report:
                body = client.get(keys.WATCH)
                return reports.decode(body) if isinstance(body, bytes) else Looks(lambda *_: None).seen

            def state() -> str:
                found = last().sources
                return found["payments"].state if found else "unseen"

            until(lambda: state() == "flowing", timeout=60)
            # The server asks for keys: the watch has the run's own.
            until(lambda: last().sources["payments"].server_heartbeat_ms is not None, timeout=60)
            assert last().services["fraud"].probe_ok
            time.sleep(GRACE_LOOKS * 0.3)
            hung = project.status()["stream:payments:tiles"].pid
            assert hung is not None
            os.kill(hung, signal.SIGSTOP)
            until(lambda: any(said["kind"] == "resolved" for said in hook.got), timeout=90)
            assert gone(hung)
            assert [(said["kind"], said["alert"]) for said in hook.got if said["target"] == "source:payments"] == [
                ("fired", "stream_stalled"),
                ("resolved", "stream_stalled"),
            ]
            until(lambda: state() in ("flowing", "quiet"), timeout=30)
            assert client.llen(keys.WATCH_HISTORY) > GRACE_LOOKS
        place = f"http://127.0.0.1:{settings.watch_port}"
        shown = {"x-api-key": project.settings.key}
        assert "rtml_watch_look_seconds" in httpx.get(f"{place}/metrics", headers=shown).text
        for path, sent, status in (("/metrics", {}, 401), ("/", {}, 404), ("/x", shown, 404), ("//metrics", {}, 401)):
            assert httpx.get(f"{place}{path}", headers=sent).status_code == status
        assert httpx.post(f"{place}/metrics", headers=shown).status_code == 403
        watch = project.status()["watch"].pid
        assert watch is not None
        os.kill(watch, signal.SIGTERM)
        until(lambda: project.status()["watch"].pid not in (None, watch), timeout=30)
        assert project.status()["watch"].exit_code == 0
        lines = [json.loads(line) for line in project.log("watch").splitlines() if line.startswith("{")]
    assert [line["kind"] for line in lines if line["alert"] == "stream_stalled"] == ["fired", "resolved"]
    with Ledger(ledger_file(tmp_path)) as ledger:
        assert "stream_stalled" in [alert.alert for alert in ledger.recent(0)]
