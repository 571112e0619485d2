"""The server over HTTP: a real process, a real Redis."""

import asyncio
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest

from rtml import instants
from rtml.settings import Settings
from serving.app import App
from streaming.versions import go_live, save_version
from tests.serving.online import REGISTRY, OwnRedis, eventually, fill, version_of

ANN = {"entities": [{"user": "ann"}]}
SPENDING = "/v1/features/spending"
MOST_BYTES = Settings().max_body_bytes
GETS = ["/", "/docs", "/healthz", "/metrics", "/openapi.json", "/readyz", "/v1/services"]


def test_it_says_where_it_is(served):
    url = f"http://127.0.0.1:{served.port}"
    assert served.greeting == f"features at {url}, documented at {url}/docs\n"


def test_features_of_entities_at_an_instant(served, feature_redis):
    present = instants.to_text(feature_redis.present)
    for at in (feature_redis.present, present):
        answer = served.http.post(SPENDING, json={"entities": [{"user": "bob"}, {"user": "nobody"}], "at": at})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert body["rows"] == [[1, 3, 24.0, 12.0, 14.0, 6], [0, 0, None, None, None, None]]
        assert body["features"][0] == "user_purchases__count_30m"
        assert body["status"] == {"user_purchases": ["fresh", "missing"]}
        assert (body["at"], body["watermark"], body["age_ms"]) == (present, present, 0.0)


def test_the_leading_edge_is_now_or_the_watermark(served, feature_redis):
    request = {"entities": [{"user": "ann", "shop": 7}]}
    now = served.http.post("/v1/features/shopping", json=request).json()
    assert now["at"] > now["watermark"]
    assert now["age_ms"] > 0
    edge = served.http.post("/v1/features/shopping", json={**request, "leading_edge": "watermark"}).json()
    assert edge["at"] == edge["watermark"] == instants.to_text(feature_redis.present)
    assert edge["rows"] == [[3, 100]]


def test_many_at_once_get_each_their_own(served, feature_redis):
    def ask(number: int) -> list[list[object]]:
        users = ["ann", "bob", "nobody", "o'hara|{x}"]
        entities = [{"user": users[(number + step) % 4]} for step in range(number % 6)]
        return served.http.post(SPENDING, json={"entities": entities, "at": feature_redis.present}).json()["rows"]

    largest = [7.0, 14.0, None, 21.0]
    with ThreadPoolExecutor(16) as pool:
        for number, rows in enumerate(pool.map(ask, range(200))):
            assert [row[4] for row in rows] == [largest[(number + step) % 4] for step in range(number % 6)]


@pytest.mark.parametrize(
    ("path", "request_", "status", "code", "said"),
    [
        ("/v1/features/spendin", ANN, 404, "unknown_service", "no service 'spendin'. Did you mean 'spending'?"),
        ("/v1/features/%C3%A9t%C3%A9", ANN, 404, "unknown_service", "no service 'été'."),
        (SPENDING, {"entites": []}, 400, "invalid_request", "Did you mean 'entities'?"),
        (SPENDING, {"entities": [{"usr": "ann"}]}, 400, "invalid_request", "Did you mean 'usr'?"),
        (SPENDING, {**ANN, "at": "2024-01-01T00:00:00"}, 400, "invalid_instant", "must carry a time zone"),
        (SPENDING, {**ANN, "at": "2024-01-01T00:00:00Z"}, 400, "invalid_instant", "can be asked from"),
        (SPENDING, {**ANN, "at": 10**30}, 400, "invalid_instant", "an instant must lie between"),
        (SPENDING, {"entities": [{}] * 10_001}, 413, "too_large", "may name 10000 entities"),
        ("/v1/feature/spending", ANN, 404, "not_found", "Did you mean '/v1/features/{service}'?"),
        ("/v1/features/", ANN, 404, "not_found", "no path '/v1/features/'"),
        ("/v1/features/spending/more", ANN, 404, "not_found", "no path"),
        ("/healthz", ANN, 405, "method_not_allowed", "/healthz answers GET, HEAD; got POST"),
    ],
)
def test_what_cannot_be_answered_says_why(served, path, request_, status, code, said):
    answer = served.http.post(path, json=request_)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert said in error["message"]


def test_the_edges_of_windows_are_told_on_request(served, feature_redis):
    plain = served.http.post(SPENDING, json=ANN).json()
    assert "edges" not in plain
    answer = served.http.post(SPENDING, json={**ANN, "at": feature_redis.present, "edges": True}).json()
    assert list(answer["edges"]) == answer["features"]
    assert answer["edges"]["user_purchases__count_3h"] == {
        "start": instants.to_text(feature_redis.present - 3 * instants.HOUR),
        "end": answer["at"],
        "exact": True,
        "bound": None,
    }


def test_a_wrong_method_is_told_the_right_one(served):
    answer = served.http.get(SPENDING)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert served.http.delete("/readyz").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("pieces", [1, 5], ids=["announced", "in pieces"])
def test_too_long_a_body_is_refused_and_the_connection_lives(served, pieces):
    body = b" " * (MOST_BYTES + 1)
    size = -(-len(body) // pieces)
    content = body if pieces == 1 else (body[start : start + size] for start in range(0, len(body), size))
    answer = served.http.post(SPENDING, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert served.http.post(SPENDING, content=json.dumps(ANN).encode().ljust(MOST_BYTES)).status_code == 200


@pytest.mark.parametrize("path", GETS)
def test_head_answers_as_get_without_a_body(served, path):
    get, head = served.http.get(path), served.http.head(path)
    assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_a_connection_is_kept(served):
    request = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(request)
            said = b""
            while not said.endswith(b'{"status":"ok"}'):
                piece = connection.recv(4096)
                assert piece
                said += piece
            assert said.startswith(b"HTTP/1.1 200 OK\r\n")


def test_idle_connections_keep_nobody_out(served):
    idle = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(200)]
    assert httpx.get(f"http://127.0.0.1:{served.port}/healthz").json() == {"status": "ok"}
    for connection in idle:
        connection.close()


def test_the_services_are_listed(served, feature_redis):
    shopping, spending = served.http.get("/v1/services").json()["services"]
    assert (spending["name"], spending["version"], spending["ready"]) == ("spending", 1, True)
    assert spending["description"] == "What a user spends"
    assert shopping["keys"] == {"user": "string", "shop": "integer"}
    plan = REGISTRY.plans["shop_visits"]
    assert shopping["views"][1] == {
        "name": "shop_visits",
        "ready": True,
        "version": f"{plan.fingerprint}.1",
        "expected": plan.fingerprint,
        "entity": "shop",
        "keys": {"shop": "integer"},
        "source": "visits",
        "watermark": instants.to_text(feature_redis.present),
    }
    assert spending["columns"][2] == {
        "name": "user_purchases__amount_sum_3h",
        "view": "user_purchases",
        "type": "float",
        "aggregate": "sum",
        "column": "amount",
        "window": "3h, exact to the microsecond",
        "bound": None,
    }
    assert [column["type"] for column in spending["columns"]] == [*["integer"] * 2, *["float"] * 3, "integer"]


def test_the_figures_are_for_prometheus(served):
    served.http.post(SPENDING, json={"entities": [{"user": "ann"}, {"user": "nobody"}]})
    served.http.get("/nowhere")
    answer = served.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for start in (
        'rtml_requests_total{route="/v1/features/{service}",status="200"}',
        'rtml_requests_total{route="other",status="404"}',
        'rtml_request_seconds_bucket{le="0.001",route="/v1/features/{service}"}',
        'rtml_stage_seconds_count{stage="queue"}',
        'rtml_stage_seconds_count{stage="redis"}',
        'rtml_stage_seconds_count{stage="merge"}',
        'rtml_stage_seconds_count{stage="encode"}',
        'rtml_rows_total{service="spending"}',
        'rtml_row_statuses_total{status="missing",view="user_purchases"}',
        'rtml_watermark_age_seconds{source="purchases"}',
        "rtml_redis_failures_total 0.0",
        "process_resident_memory_bytes",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert "_created" not in answer.text


@pytest.fixture
def own_redis():
    server = OwnRedis()
    yield server
    server.thaw()
    server.stop()


def test_without_redis_it_says_so_until_redis_is_back(serve, own_redis):
    served = serve(own_redis.url)
    ask, ready = (lambda: served.http.post(SPENDING, json=ANN)), (lambda: served.http.get("/readyz"))
    for _ in range(2):
        eventually(lambda: ask().status_code == 503)
        away = ask()
        assert (away.json()["error"]["code"], away.headers["retry-after"]) == ("unavailable", "1")
        assert "Redis does not answer" in away.json()["error"]["message"]
        eventually(lambda: served.http.get("/v1/services").status_code == 503)
        assert served.http.get("/healthz").status_code == served.http.get("/metrics").status_code == 200
        assert (ready().status_code, ready().json()["ready"]) == (503, False)
        assert "Redis does not answer" in ready().json()["reasons"][0]

        fill(own_redis.start())
        eventually(lambda: ask().status_code == 200)
        assert ask().json()["rows"][0][1] == 3
        assert (ready().status_code, ready().json()) == (200, {"ready": True, "reasons": []})
        own_redis.stop()
    code, said = served.end()
    assert code == 0
    assert "Redis answers again" in said


def test_a_frozen_redis_is_given_up_within_the_deadline(serve, own_redis):
    fill(own_redis.start())
    served = serve(own_redis.url, RTML_REDIS_TIMEOUT="1500ms")
    assert served.http.post(SPENDING, json=ANN).status_code == 200
    own_redis.freeze()
    with ThreadPoolExecutor(9) as pool:
        started = time.monotonic()
        asked = [pool.submit(served.http.post, SPENDING, json={"entities": [{"user": "bob"}]}) for _ in range(8)]
        eventually(lambda: "rtml_requests_in_progress 9.0" in served.http.get("/metrics").text)
        assert not any(one.done() for one in asked)
        answers = [one.result() for one in asked]
        assert time.monotonic() - started < 10
    assert {answer.status_code for answer in answers} == {503}
    assert any("within 1500 ms" in answer.json()["error"]["message"] for answer in answers)
    assert "rtml_redis_failures_total 0.0" not in served.http.get("/metrics").text
    own_redis.thaw()
    # No reply to a question that was given up answers a later one.
    eventually(lambda: served.http.post(SPENDING, json=ANN).status_code == 200)
    assert [served.http.post(SPENDING, json=ANN).json()["rows"][0][4] for _ in range(20)] == [7.0] * 20


def test_it_is_ready_when_all_views_are(serve, own_redis):
    client = own_redis.start()
    served = serve(own_redis.url)
    ready = lambda: served.http.get("/readyz").json()  # noqa: E731
    assert ready() == {"ready": False, "reasons": ["no service is known: none was ever registered in this Redis"]}
    fill(client)
    eventually(lambda: ready()["ready"])

    building = msgspec.structs.replace(version_of(REGISTRY.plans["shop_visits"], build=2), state="building")
    save_version(client, building)
    go_live(client, building)
    eventually(lambda: not ready()["ready"])
    (reason,) = ready()["reasons"]
    assert reason.startswith("service 'shopping': view 'shop_visits' must serve")
    assert reason.endswith(f"it serves {building.version}, which is building")
    refused = served.http.post("/v1/features/shopping", json={"entities": [{"user": "ann", "shop": 7}]})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["message"]) == (503, "not_ready", reason)
    assert served.http.post(SPENDING, json=ANN).status_code == 200
    shopping = served.http.get("/v1/services").json()["services"][0]
    assert (shopping["ready"], shopping["columns"][1]["type"]) == (False, None)


def test_an_error_that_nobody_foresaw_has_an_id_that_the_log_has_too(feature_redis, caplog):
    async def ask() -> tuple[int, dict[str, str]]:
        app = App(Settings(redis_url=feature_redis.url))
        app.start()

        async def body() -> bytes:
            raise ZeroDivisionError("of nothing")

        reply = await app.answer("POST", SPENDING, body)
        await app.close()
        return reply.status, json.loads(reply.body)["error"]

    status, error = asyncio.run(ask())
    assert (status, error["code"]) == (500, "internal")
    assert error["request_id"] in error["message"]
    (record,) = caplog.records
    assert error["request_id"] in record.message
    assert record.exc_info is not None
    assert "of nothing" not in json.dumps(error)
