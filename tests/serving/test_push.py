"""Pushes to a server whose Redis is full, away or cut off, and to sources whose contract changes; a real Redis."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from rtml import instants
from rtml.define.written import Kept
from rtml.errors import RequestError
from rtml.lake import Lake
from rtml.online import keys
from serving.appender import PIECE
from serving.push import events_of
from streaming.contracts import runs_by
from tests.serving.conftest import ROOT, Served
from tests.serving.online import OwnRedis, eventually, fill

BEFORE = (Path(__file__).parent / "definitions.py").read_text()
EVENTS = "/v1/events/purchases"
MOST = 2_000


class Pushed:
    """A server, its Redis, and the contracts in it as a flow that starts puts them there."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.redis = OwnRedis()
        self.client: Any = self.redis.start()
        fill(self.client)
        self._lake, self._features = Lake(str(folder / "lake")), folder / "definitions.py"
        self.define(BEFORE)
        self.served = Served(self.redis.url, folder, RTML_MAX_EVENTS=str(MOST), **settings)

    def define(self, text: str) -> None:
        self._features.write_text(text)
        for source in ("purchases", "visits"):
            runs_by(self.client, self._lake, source, "tiles", str(self._features))

    def push(self, body: Any, path: str = EVENTS, **headers: str) -> httpx.Response:
        return self.served.http.post(path, content=json.dumps(body).encode(), headers=headers)

    def appended(self) -> list[str]:
        return [
            json.loads(fields[b"data"])["event_id"]
            for _, fields in self.client.xrange("purchases")
            if b"data" in fields
        ]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    made = Pushed(tmp_path_factory.mktemp("pushed"))
    yield made
    code, _ = made.served.end()
    made.client.close()
    made.redis.stop()
    assert code == 0


def purchase(number: int | str, **changes: Any) -> dict[str, Any]:
    now = instants.to_text(instants.now())
    return {"event_id": str(number), "event_time": now, "user": "ann", "amount": 1.5, "quantity": 1, **changes}


def batch(count: int, first: int = 0) -> dict[str, Any]:
    return {"events": [purchase(number) for number in range(first, first + count)]}


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"[]", 400, "invalid_request", 'must be one event, as a JSON object, or {"events": […]}'),
        (b"7", 400, "invalid_request", "must be one event"),
        (b'{"events": [', 400, "invalid_request", "must be JSON"),
        (b"", 400, "invalid_request", "must be JSON"),
        (b'{"events": [], "event": 1}', 400, "invalid_request", "unknown field 'event' beside 'events'"),
        (b'{"events": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_request", "recursion depth"),
        (b'{"events": [%s]}' % b",".join([b"1"] * (MOST + 1)), 413, "too_large", "2000 events (RTML_MAX_EVENTS); got"),
        (b"{}", 422, "refused", "field 'event_id' is missing"),
        (b'{"events": [1, [], null, "x"]}', 422, "refused", "none of 4 events was accepted; event 0: expected a JSON"),
    ],
)  # fmt: skip
def test_what_is_no_push_says_why(pushed: Pushed, body: bytes, status: int, code: str, said: str) -> None:
    answer = pushed.served.http.post(EVENTS, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert said in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


def test_no_events_are_none(pushed: Pushed) -> None:
    assert pushed.push({"events": []}).json() == {
        "accepted": 0, "refused": [], "late": [], "idempotent": True, "ingested_at": None
    }  # fmt: skip


def test_an_unknown_source_is_told_the_nearest(pushed: Pushed) -> None:
    answer = pushed.push(purchase(1), "/v1/events/purchase")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_source")
    assert answer.json()["error"]["message"] == "no source 'purchase' that a flow runs for. Did you mean 'purchases'?"
    get = pushed.served.http.get(EVENTS)
    assert (get.status_code, get.headers["allow"]) == (405, "POST")


def test_pages_of_other_sites_push_nothing(pushed: Pushed) -> None:
    for origin in ("http://elsewhere.example", "null"):
        assert pushed.push(purchase("x"), origin=origin).status_code == 403
    own = f"http://127.0.0.1:{pushed.served.port}"
    assert pushed.push(purchase("own"), origin=own).status_code == 200
    assert "x" not in pushed.appended()


def test_events_are_appended_as_they_were_sent(pushed: Pushed) -> None:
    text = b' {"quantity" : 2, "event_id":"\\u00e9", "event_time":%d, "user":"a", "more":[{"1":1e5}]} ' % instants.now()
    assert pushed.served.http.post(EVENTS, content=b'{"events":[' + text + b"]}").json()["accepted"] == 1
    (_, fields), *_ = pushed.client.xrevrange("purchases", count=1)
    assert fields == {b"data": text.strip()}


def test_a_new_contract_counts_at_once(pushed: Pushed) -> None:
    wide = purchase("wide", quantity=None)
    assert pushed.push(wide).json()["error"]["pushed"]["refused"][0]["reason"] == "null_value"
    pushed.define(BEFORE.replace("quantity: int\n", "quantity: int = rtml.Field(nullable=True)\n"))
    assert pushed.push(wide).json()["accepted"] == 1


def test_events_are_judged_by_what_the_flows_run_by_and_not_by_what_may_not_be(pushed: Pushed) -> None:
    pushed.define(BEFORE.replace("    quantity: int\n", "    quantity: str\n"))  # refused: the flows go on as before
    assert b"goes on as before" in pushed.client.hget(keys.contract("purchases"), keys.HELD)
    assert pushed.push(purchase("still")).json()["accepted"] == 1
    kept = msgspec.json.decode(pushed.client.hget(keys.contract("purchases"), keys.KEPT), type=Kept)
    assert kept.key == ("user",)
    pushed.define(BEFORE.replace("quantity: int\n", "quantity: int = rtml.Field(nullable=True)\n"))


def test_the_figures_say_what_came_of_them(pushed: Pushed) -> None:
    long_ago = purchase("late", event_time="2026-01-01T00:00:00Z")
    told = pushed.push({"events": [long_ago, purchase("on time"), 1, 2]}, "/v1/events/purchases").json()
    assert (told["accepted"], told["late"], len(told["refused"])) == (2, [0], 2)
    figures = pushed.served.http.get("/metrics").text
    for outcome in ("accepted", "late", "refused"):
        assert f'rtml_pushed_events_total{{outcome="{outcome}",source="purchases"}}' in figures
    assert 'source="purchase"' not in figures  # what nobody has counts for none


def test_a_full_redis_takes_all_or_nothing_and_is_tried_again(pushed: Pushed) -> None:
    before = len(pushed.appended())
    pushed.client.config_set("maxmemory", 1)
    try:
        full = pushed.push(batch(3, 100))
    finally:
        pushed.client.config_set("maxmemory", 0)
    error = full.json()["error"]
    assert (full.status_code, error["code"], full.headers["retry-after"]) == (503, "unavailable", "1")
    assert "used memory > 'maxmemory'" in error["message"]
    assert "push all of them again" in error["message"]
    assert len(pushed.appended()) == before
    assert pushed.push(batch(3, 100)).json()["accepted"] == 3


class Cut:
    """Stands between a server and Redis, and cuts their connections after so many bytes of what is sent."""

    def __init__(self, port: int) -> None:
        self._redis, self.left = port, -1
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._redis))
            threading.Thread(target=self._forward, args=(one, other, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(other, one, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(65_536):
                # The state is refreshed by small messages; only a push has this many bytes.
                if counted and self.left >= 0 and len(data) > 8_192:
                    data, self.left = data[: self.left], max(0, self.left - len(data))
                    sink.sendall(data)
                    if not self.left:
                        break
                else:
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def close(self) -> None:
        self._listening.close()


def test_a_connection_that_is_cut_in_a_push_says_nothing_by_halves(
    pushed: Pushed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with closing(Cut(pushed.redis.port)) as cut:
        served = Served(f"redis://127.0.0.1:{cut.port}/0", tmp_path_factory.mktemp("cut"))
        events = batch(1_800, 10_000)
        wanted = {event["event_id"] for event in events["events"]}
        for left, whole in ((9_000, 0), (150_000, 1)):
            cut.left = left
            answer = served.http.post(EVENTS, json=events)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "push all of them again" in answer.json()["error"]["message"]
            cut.left = -1
            pieces, rest = divmod(len(wanted & set(pushed.appended())), PIECE)
            assert (pieces >= whole, pieces * PIECE < 1_800, rest) == (True, True, 0)  # each in one transaction
        again = served.http.post(EVENTS, json=events)
        assert (again.status_code, again.json()["accepted"]) == (200, 1_800)
        assert wanted <= set(pushed.appended())
        assert served.end()[0] == 0


def test_without_redis_a_push_hears_so_until_it_is_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Pushed(tmp_path_factory.mktemp("away"), RTML_MAX_BODY_BYTES="2000", RTML_REDIS_TIMEOUT="2s")
    assert made.push(purchase(1)).json()["accepted"] == 1
    made.redis.stop()
    away = made.push(purchase(2))
    assert (away.status_code, away.json()["error"]["code"], away.headers["retry-after"]) == (503, "unavailable", "1")
    assert "no event was appended" in away.json()["error"]["message"]
    made.client = made.redis.start()
    made.define(BEFORE)
    eventually(lambda: made.push(purchase(2)).status_code == 200)
    made.redis.freeze()
    started = time.monotonic()
    with ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(made.push, purchase(number, more="x" * 1_700)) for number in range(30)]
        assert made.served.http.get("/healthz").status_code == 200
        assert not all(one.done() for one in asked)  # the loop waits for none of them
    assert time.monotonic() - started < 20
    assert {one.result().status_code for one in asked} == {503}
    said = [one.result().json()["error"]["message"] for one in asked]
    # Bodies of sixteen are held, and no more; what waits behind one that Redis does not take need not try.
    for start in ("Redis does not answer: Timeout", "Redis did not take what was pushed before", "pushes of"):
        assert any(words.startswith(start) for words in said), (start, said)
    made.redis.thaw()
    eventually(lambda: made.push(purchase(3)).status_code == 200)
    assert made.served.end()[0] == 0
    made.client.close()
    made.redis.stop()


def test_what_appends_is_loaded_by_the_first_push_alone() -> None:
    code = "import serving.app, sys; print('streaming.gate' in sys.modules, 'pandera' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["False", "False"]


def test_one_event_whose_column_is_called_events_is_one() -> None:
    assert events_of(b'{"events": 3, "id": 1}', 1) == [b'{"events": 3, "id": 1}']
    with pytest.raises(RequestError, match="beside"):
        events_of(b'{"events": [], "id": 1}', 1)
