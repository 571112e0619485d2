"""Traces of requests, as a real OTLP collector receives them."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from rtml.errors import SettingsError
from rtml.settings import Settings
from serving.correlation import Calls
from tests.serving.collector import Collector, attributes
from tests.serving.conftest import ROOT
from tests.serving.online import OwnRedis, fill

SPENDING = "/v1/features/spending"
STAGES = ["decode", "queue", "redis", "merge", "encode"]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def ask(served, number=1, **headers):
    return served.http.post(SPENDING, json={"entities": [{"user": "ann"}] * number}, headers=headers)


def test_a_request_and_its_stages_are_one_trace(serve, feature_redis, collector):
    served = serve(feature_redis.url, RTML_OTEL_ENDPOINT=collector.url, RTML_LOG_FORMAT="json", RTML_ACCESS_LOG="true")
    answer = ask(served, 2, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    unsampled = ask(served, 1, traceparent=f"00-{TRACE[::-1]}-{PARENT}-00")
    long = ask(served, 100)
    missing = served.http.get("/nowhere")
    code, said = served.end()
    assert code == 0
    assert f'"trace_id":"{TRACE}"' in said

    spans = collector.trace(TRACE)
    (request,) = (span for span in spans if span.name == "POST /v1/features/{service}")
    assert (request.parent_span_id.hex(), request.trace_state, request.kind) == (PARENT, "vendor=1", 2)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    found = attributes(request)
    assert (found["rtml.service"], found["rtml.entities"]) == ("spending", 2)
    assert found.get("rtml.status.fresh", 0) + found.get("rtml.status.stale", 0) == 2
    assert (found["http.response.status_code"], found["http.route"]) == (200, "/v1/features/{service}")
    stages = [span for span in spans if span is not request]
    assert [span.name for span in stages] == STAGES
    for before, after in pairwise(stages):
        assert before.start_time_unix_nano <= before.end_time_unix_nano <= after.start_time_unix_nano
    for span in stages:
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert attributes(stages[2]) == {"db.system.name": "redis"}

    assert unsampled.headers["traceparent"].startswith(f"00-{TRACE[::-1]}-")
    assert unsampled.headers["traceparent"].endswith("-00")
    assert collector.trace(TRACE[::-1]) == []
    assert {span.name for span in collector.trace(long.headers["traceparent"][3:35])} == {
        "POST /v1/features/{service}",
        *STAGES,
    }
    (lost,) = collector.trace(missing.headers["traceparent"][3:35])
    assert (lost.name, attributes(lost)["http.response.status_code"]) == ("GET other", 404)
    assert collector.services == {"rtml-serving"}


def test_requests_that_share_a_round_trip_say_so_and_its_failure_is_in_their_traces(serve, collector):
    own_redis = OwnRedis()
    try:
        fill(own_redis.start())
        served = serve(own_redis.url, RTML_OTEL_ENDPOINT=collector.url, RTML_REDIS_TIMEOUT="400ms")
        assert ask(served).status_code == 200
        own_redis.freeze()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(served), range(8)))
        own_redis.thaw()
        assert {answer.status_code for answer in answers} == {503}
        assert served.end()[0] == 0
    finally:
        own_redis.thaw()
        own_redis.stop()
    traces = [collector.trace(answer.headers["traceparent"][3:35]) for answer in answers]
    failed = [span for spans in traces for span in spans if span.status.code == 2]
    requests = [span for span in failed if span.name.startswith("POST")]
    trips = [span for span in failed if span.name == "redis"]
    assert len(requests) == 8
    assert requests[0].status.message == "answered 503"
    assert trips
    assert all("Redis" in span.status.message for span in trips)
    together = [attributes(span).get("rtml.shared_requests", 1) for span in trips]
    assert sum(1 / number for number in together) == pytest.approx(round(sum(1 / number for number in together)))


def test_a_share_of_traces_is_made_where_callers_do_not_say(serve, feature_redis, collector):
    served = serve(feature_redis.url, RTML_OTEL_ENDPOINT=collector.url, RTML_OTEL_RATIO="0")
    own = ask(served)
    theirs = ask(served, traceparent=f"00-{'ab' * 16}-{PARENT}-01")
    assert served.end()[0] == 0
    assert int(own.headers["traceparent"][-2:], 16) & 1 == 0
    assert collector.trace(own.headers["traceparent"][3:35]) == []
    assert theirs.headers["traceparent"].startswith(f"00-{'ab' * 16}-")
    assert len(collector.trace("ab" * 16)) == 6


def test_a_collector_that_is_away_harms_no_request(serve, feature_redis):
    served = serve(feature_redis.url, RTML_OTEL_ENDPOINT="http://127.0.0.1:1")
    assert ask(served).status_code == 200
    code, said = served.end()
    assert code == 0
    assert "export" in said


def test_without_an_endpoint_nothing_of_it_is_loaded():
    # redis-py loads the API of OpenTelemetry by itself, where that is installed.
    code = (
        "import sys; from rtml.settings import Settings; from serving.app import App; App(Settings());"
        "import serving.run, streaming.flow, streaming.__main__;"
        "ours = ('rtml.tracing', 'serving.tracing', 'streaming.tracing', 'opentelemetry.exporter');"
        "sys.exit(str([name for name in sys.modules if name.startswith(ours)] or ''))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60, capture_output=True, text=True
    )
    assert run.stderr == "\n"


def test_a_wrong_endpoint_and_a_missing_package_are_told(monkeypatch):
    with pytest.raises(
        SettingsError, match=r"RTML_OTEL_ENDPOINT\) must be a URL of http or https; got 'collector:4318'"
    ):
        Calls(Settings(otel_endpoint="collector:4318"))
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"needs OpenTelemetry: pip install 'rtml\[tracing\]'"):
        Calls(Settings(otel_endpoint="http://127.0.0.1:4318"))
