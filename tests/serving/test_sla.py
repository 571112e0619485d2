"""`/v1/sla`, its history and the files of the page: what they say, and what they say when something is away."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest

from rtml import instants
from rtml.errors import RequestError
from rtml.instants import MINUTE, SECOND
from rtml.online import keys
from rtml.online.commands import Command
from rtml.settings import Settings
from rtml_assets.watch.report import decode
from rtml_assets.watch.shown import KEPT_LOOKS, point, write_file, write_redis
from serving.app import App
from serving.runbooks import runbook, runbooks
from serving.sla import Slas, minutes_of
from serving.sla_files import FILES
from serving.sla_history import SLOTS, thinned
from tests.serving.looks import report_of, write_hour
from tests.serving.online import OwnRedis, eventually, fill

NOW = 1_700_000_000 * SECOND


@pytest.fixture
def clean(feature_redis):
    feature_redis.client.delete(keys.WATCH, keys.WATCH_HISTORY, keys.WATCH_CHECKS)
    return feature_redis.client


def test_it_passes_on_what_the_watch_and_dagster_wrote(serve, feature_redis, clean):
    last = write_hour(clean, instants.now())
    clean.hset(keys.WATCH_CHECKS, "events/visits:contract", b"{broken")
    served = serve(feature_redis.url, RTML_DAGSTER_URL="https://dagster.example/")
    found = served.http.get("/v1/sla").json()
    assert decode(json.dumps(found["report"]).encode()) == last
    assert (found["seen"], found["server"]) == ("redis", {"ready": True, "reasons": [], "redis": True})
    assert 0 <= found["age_ms"] < 60_000
    assert found["at"] - found["report"]["at"] == pytest.approx(1_000 * found["age_ms"])
    assert found["checks"]["served/spending:canary"]["words"] == "200 vectors agree"
    assert "events/visits:contract" not in found["checks"]
    assert found["services"] == {"shopping": ["user_purchases", "shop_visits"], "spending": ["user_purchases"]}
    assert (found["dagster"], found["interval_ms"]) == ("https://dagster.example", 2_000.0)
    _, log = served.end()
    assert "what Redis holds of check b'events/visits:contract' cannot be read" in log


def test_without_a_watch_it_says_so(serve, feature_redis, clean):
    served = serve(feature_redis.url)
    found = served.http.get("/v1/sla").json()
    assert (found["report"], found["age_ms"], found["seen"], found["checks"]) == (None, None, None, {})
    history = served.http.get("/v1/sla/history").json()
    assert history["series"] == {}
    clean.set(keys.WATCH, b'{"at": "yesterday"}')
    eventually(lambda: served.http.get("/v1/sla").json()["report"] is None)


def test_many_askers_cost_redis_one_read(feature_redis, clean, tmp_path):
    last = report_of(instants.now())
    write_redis(clean, last)
    settings = Settings(home=str(tmp_path), redis_url=feature_redis.url)
    reads = 0

    async def ask() -> set[bytes]:
        app = App(settings)
        app.state.refresh()

        async def read(commands: Sequence[Command]) -> list[Any]:
            nonlocal reads
            reads += 1
            return await app._reader.read(commands)

        slas = Slas(settings, read, lambda: app.state.snapshot)
        answers = await asyncio.gather(*(slas.latest() for _ in range(50)))
        await app.close()
        return {answer.body for answer in answers}

    (body,) = asyncio.run(ask())
    assert json.loads(body)["report"]["at"] == last.at
    assert reads == 1


def test_while_redis_is_away_the_watchs_file_is_shown_then_what_was_seen_last(serve, tmp_path):
    own = OwnRedis()
    try:
        client = own.start()
        fill(client)
        first = report_of(instants.now() - MINUTE)
        write_redis(client, first)
        served = serve(own.url)
        assert served.http.get("/v1/sla").json()["seen"] == "redis"
        # Redis answers, but takes no look any more: the newer of both is shown.
        second = report_of(instants.now() - 30 * SECOND)
        write_file(tmp_path, second)
        eventually(lambda: served.http.get("/v1/sla").json()["seen"] == "file")
        own.stop()
        third = report_of(instants.now(), p99=80.0)
        write_file(tmp_path, third)
        eventually(lambda: served.http.get("/v1/sla").json()["report"]["at"] == third.at)
        found = served.http.get("/v1/sla").json()
        assert (found["seen"], found["server"]["redis"], found["server"]["ready"]) == ("file", False, False)
        assert found["server"]["reasons"][0].startswith("Redis does not answer")
        assert found["services"]["spending"] == ["user_purchases"]
        os.remove(tmp_path / "watch" / "report.json")
        eventually(lambda: served.http.get("/v1/sla").json()["seen"] == "memory")
        assert served.http.get("/v1/sla").json()["report"]["at"] == third.at
        history = served.http.get("/v1/sla/history")
        assert (history.status_code, history.json()["error"]["code"]) == (503, "unavailable")
    finally:
        own.stop()


def test_history_is_thinned_to_the_worst_of_each_point():
    looks = [report_of(NOW - second * SECOND) for second in range(0, 3_600, 2)]
    looks[100] = report_of(looks[100].at, p99=900.0)
    points = [json.dumps(point(look)).encode() for look in looks]
    assert len(points) == KEPT_LOOKS
    history = thinned(points, NOW - 60 * MINUTE, NOW)
    assert (len(history.at), history.step_ms) == (SLOTS + 1, 10_000.0)
    assert history.at[-1] <= NOW < history.at[-1] + 10 * SECOND
    p99 = history.series["service:spending"]["p99_ms"]
    (slot,) = [number for number, value in enumerate(p99) if value == 900.0]
    assert history.at[slot] <= NOW - 200 * SECOND < history.at[slot] + 10 * SECOND
    assert p99[slot - 1] == p99[slot + 1] == 4.2
    assert history.series["service:spending"]["left p99"][slot] == -0.2
    assert history.series["source:purchases"]["lag_ms"][5] == 640.0
    assert history.series["platform"]["alerts"][slot] == 1
    assert "state" not in history.series["source:purchases"]
    minute = thinned(points, NOW - MINUTE, NOW)
    assert (len(minute.at), minute.step_ms) == (61, 1_000.0)
    assert minute.series["view:user_purchases"]["age_ms"][:3] == [220.0, None, 220.0]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("minutes=0", "from 1 to 60; got '0'"),
        ("minutes=61", "got '61'"),
        ("minutes=", "got ''"),
        ("minutes=1.5", "got '1.5'"),
        ("minutes=" + "9" * 5_000, "got '9999"),
        ("minute=5", "unknown parameter 'minute'; there is 'minutes'"),
    ],
)
def test_minutes_that_cannot_be_are_refused(query, said):
    with pytest.raises(RequestError, match=said):
        minutes_of(query)


def test_minutes_and_other_parameters(served):
    assert (minutes_of(""), minutes_of("minutes=5"), minutes_of("minutes=60")) == (60, 5, 60)
    refused = served.http.get("/v1/sla/history?minutes=soon")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    assert served.http.get("/v1/sla/history?minutes=5").json()["step_ms"] == 1_000.0


def test_the_pages_files_are_its_own(served):
    for path, (_, kind) in FILES.items():
        answer = served.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    text = "".join(served.http.get(path).text for path in ("/", "/sla.js", "/sla.css"))
    assert "innerHTML" not in text
    assert "https://" not in text.replace("https?:", "")
    assert served.http.get("/vendor/uPlot.iife.js").status_code == 404


def test_a_runbook_is_at_hand_or_it_is_said_where_it_is(served):
    for name in runbooks():
        assert runbook(name).body.startswith(b"# ")
    for name in ("no-such", "../../README", "%2e%2e/parity", ""):
        assert served.http.get(f"/runbooks/{name}").status_code == 404
    assert "docs/runbooks/" in served.http.get("/runbooks/no-such").json()["error"]["message"]
