"""How a request is found again: its id in the answer, in errors and in the log."""

import asyncio
import json
import re

import pytest

from rtml.settings import Settings
from serving.app import App

SPENDING = "/v1/features/spending"
ANN = {"entities": [{"user": "ann"}]}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_every_answer_has_an_id_of_its_own(served):
    answers = [served.http.post(SPENDING, json=ANN), served.http.get("/metrics"), served.http.get("/nowhere")]
    answers += [served.http.head("/docs"), served.http.post(SPENDING, content=b"{")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", one) for one in ids)
    for answer in (answers[2], answers[4]):
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    assert not any("traceparent" in answer.headers for answer in answers)


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("order-7/retry:2", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ('x"', False), ("", False)],
)
def test_a_caller_s_id_is_kept_where_it_is_fit_for_a_log(served, given, is_kept):
    answer = served.http.get("/nowhere", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) == is_kept
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


def test_the_access_log_has_a_line_a_request_without_query_or_body(serve, feature_redis):
    served = serve(feature_redis.url, RTML_ACCESS_LOG="true", RTML_LOG_FORMAT="json")
    served.http.post(f"{SPENDING}?token=hidden", json=ANN, headers={"x-request-id": "r1", "traceparent": TRACEPARENT})
    served.http.get("/no%0Awhere", headers={"x-request-id": "r2", "traceparent": "00-" + "0" * 32 + "-1-01"})
    code, said = served.end()
    assert code == 0
    lines = [json.loads(line) for line in (served.greeting + said).splitlines()]
    assert lines[0]["message"].startswith("features at http://127.0.0.1:")
    first, second = (line for line in lines if line["logger"] == "rtml.access")
    assert first.pop("milliseconds") > 0
    assert first.pop("bytes") > 0
    del first["ts"]
    common = {"level": "info", "logger": "rtml.access", "process": "serving"}
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert first == {**common, "message": f"POST '{SPENDING}'", "status": 200, "request_id": "r1", "trace_id": trace}
    assert second["message"] == r"GET '/no\nwhere'"
    assert (second["status"], second["request_id"], "trace_id" in second) == (404, "r2", False)
    assert "hidden" not in said
    assert "ann" not in said


def test_an_error_that_nobody_foresaw_is_logged_with_its_ids(feature_redis, caplog):
    async def ask():
        app = App(Settings(redis_url=feature_redis.url))

        async def body() -> bytes:
            raise ZeroDivisionError

        reply = await app.answer("POST", SPENDING, body, {"x-request-id": "r3", "traceparent": TRACEPARENT})
        await app.close()
        return reply

    reply = asyncio.run(ask())
    assert ("x-request-id", "r3") in reply.headers
    (record,) = caplog.records
    assert (vars(record)["request_id"], vars(record)["trace_id"]) == ("r3", "4bf92f3577b34da6a3ce929d0e0e4736")
