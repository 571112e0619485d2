"""What is done by itself: a real supervisor restarts what is stuck, once in a while; a view's backfill is asked for."""

import os
import signal
import sys
import textwrap

import msgspec
import pytest

from rtml.instants import MINUTE, SECOND
from rtml_assets.runtime.supervisor import Child, Supervisor, request_restart, restart_requests
from rtml_assets.watch.agreements import agreements
from rtml_assets.watch.ledger import Alert, Ledger, ledger_file
from rtml_assets.watch.remedy import EVERY, YOUNG, Remedies, remedies, waiting
from rtml_assets.watch.report import Flow, Partition, Platform, Process, RedisLook, Report, ServerLook, Source
from tests.runtime.processes import gone, until
from tests.watch.shops import REGISTRY

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
TILES = "stream:payments:tiles"


@pytest.fixture
def ledger(tmp_path):
    with Ledger(ledger_file(tmp_path)) as ledger:
        yield ledger


@pytest.fixture
def taking(ledger, tmp_path):
    return Remedies(ledger, agreements(REGISTRY), restart_requests(tmp_path), 30 * SECOND)


def alert(name="stream_stalled", target="source:payments"):
    return Alert(name, target, "critical", "x", None, None, 0, 0, 0)


def report(state="stalled", tiles=3_000.0, mirror=3_000.0, *, redis=True):
    flows = {
        name: Flow([Partition(0, missing_ms=0.0), Partition(1, missing_ms=missing)])
        for name, missing in (("tiles", tiles), ("mirror", mirror))
    }
    return Report(
        0, 1.0, Platform(RedisLook(redis), ServerLook(True)), sources={"payments": Source(state, flows=flows)}
    )


def test_a_stopped_child_is_killed_and_started_again(tmp_path):
    """It would sleep through SIGTERM; a child that ends on SIGTERM is asked, and not killed."""
    requests = restart_requests(tmp_path)
    children = [Child(TILES, SLEEP), Child("other", SLEEP)]
    with Supervisor(children, tmp_path / "logs", requests=requests, patience=1.0) as supervisor:
        stuck, other = (supervisor.status()[name].pid for name in (TILES, "other"))
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        request_restart(requests, TILES)
        until(lambda: supervisor.status()[TILES].pid not in (None, stuck), timeout=30)
        assert gone(stuck)
        assert supervisor.status()[TILES].exit_code == -signal.SIGKILL
        assert supervisor.status()["other"].pid == other
        assert list(requests.iterdir()) == []
        request_restart(requests, "other")
        until(lambda: supervisor.status()["other"].pid not in (None, other), timeout=30)
        assert supervisor.status()["other"].exit_code == -signal.SIGTERM
        assert supervisor.status()[TILES].restarts == 1


def test_a_request_of_the_past_is_forgotten(tmp_path):
    requests = restart_requests(tmp_path)
    request_restart(requests, TILES)
    with Supervisor([Child(TILES, SLEEP)], tmp_path / "logs", requests=requests) as supervisor:
        assert not requests.exists()
        assert supervisor.status()[TILES].restarts == 0


@pytest.mark.parametrize(
    ("seen", "children"),
    [
        (report(), ["stream-payments-tiles"]),
        (report(mirror=70_000.0), ["stream-payments-mirror", "stream-payments-tiles"]),
        (report(tiles=100.0, mirror=70_000.0), ["stream-payments-mirror"]),
        (report("flowing"), []),
        (report(redis=False), []),
    ],
)
def test_what_misses_heartbeats_is_restarted(taking, tmp_path, seen, children):
    taking.take([alert()], seen, 0)
    folder = restart_requests(tmp_path)
    assert sorted(file.name for file in (folder.iterdir() if folder.is_dir() else ())) == children


def test_a_child_is_restarted_once_in_five_minutes(taking, ledger, tmp_path):
    assert EVERY["restart"] == 5 * MINUTE
    times = [0, SECOND, 5 * MINUTE - 1, 5 * MINUTE, 6 * MINUTE]
    assert [len(taking.take([alert()], report(), at)) for at in times] == [1, 0, 0, 1, 0]
    first, second = remedies(ledger)[::-1]
    assert (first.what, first.target, first.why) == (TILES, "source:payments", "stream_stalled of source:payments")
    assert str(second) == "restart of stream:payments:tiles: requested of the supervisor at 1970-01-01T00:05:00Z"


def test_a_child_that_was_started_just_now_is_given_its_time(taking):
    """Its heartbeats have been missing since before: it is only beginning."""

    def looked(pid):
        seen = report()
        platform = msgspec.structs.replace(seen.platform, processes={TILES: Process(pid, 0)})
        return msgspec.structs.replace(seen, platform=platform)

    assert taking.take([], looked(1), 0) == []
    assert taking.take([], looked(None), SECOND) == []
    assert taking.take([alert()], looked(2), 2 * SECOND) == []
    assert taking.take([alert()], looked(2), 2 * SECOND + YOUNG - 1) == []
    assert [remedy.what for remedy in taking.take([alert()], looked(2), 2 * SECOND + YOUNG)] == [TILES]


def test_only_what_it_cures_is_treated(taking, ledger):
    for name, target in [
        ("stream_lag", "source:payments"),
        ("stream_stalled", "source:gone"),
        ("refused", "view:spent"),
    ]:
        assert taking.take([alert(name, target)], report(), 0) == []
    assert remedies(ledger) == []


def test_a_backfill_waits_for_dagster(taking, ledger):
    assert len(taking.take([alert("freshness", "view:spent")], report(), 0)) == 1
    assert taking.take([alert("freshness", "view:spent")], report(), MINUTE) == []
    (remedy,) = waiting(ledger, "backfill")
    assert textwrap.shorten(str(remedy), 40) == "backfill of spent: asked for at [...]"
