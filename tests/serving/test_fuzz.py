"""No request, however strange, makes the server fail, hang or say what it did not promise.

`RTML_FUZZ` multiplies the examples, for a run by hand: `RTML_FUZZ=40 pytest tests/serving/test_fuzz.py`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rtml import instants
from rtml.lake import Lake
from rtml.settings import Settings
from rtml_assets.runtime.keys import create_key
from serving.openapi import openapi as described
from streaming.contracts import runs_by
from tests.serving.conftest import Filled, Served
from tests.serving.online import REGISTRY, eventually

DEFINITIONS = str(Path(__file__).parent / "definitions.py")
FEATURES, EVENTS = "/v1/features/spending", "/v1/events/purchases"
NAMES = {"service": ["spending", "shopping"], "source": ["purchases", "visits"]}
TIMES = int(os.environ.get("RTML_FUZZ", "1"))
DEADLINE_SECONDS = 20.0
MOST_BYTES = 100_000
ANN = {"entities": [{"user": "ann"}]}
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


class Fuzzed:
    """A server with keys and one without, over the same features, whose sources take events."""

    def __init__(self, filled: Filled, home: Path) -> None:
        for source in REGISTRY.sources:
            runs_by(filled.client, Lake(str(home / "lake")), source, "tiles", DEFINITIONS)
        small = {"RTML_MAX_BODY_BYTES": str(MOST_BYTES), "RTML_MAX_EVENTS": "50"}
        self.open = Served(filled.url, home, **small)
        self.guarded = Served(filled.url, home, RTML_AUTH="on", **small)
        made = create_key(Settings(home=str(home), redis_url=filled.url), REGISTRY, "all", ["read:*", "push:*"])
        self.key = {"authorization": f"Bearer {made.splitlines()[0]}"}
        eventually(lambda: self.guarded.http.post(FEATURES, json=ANN, headers=self.key).status_code == 200)

    def still_answers(self) -> None:
        assert self.open.http.post(FEATURES, json=ANN).json()["rows"]
        now = {"event_id": "1", "event_time": instants.now(), "user": "ann", "amount": None, "quantity": 1}
        assert self.open.http.post(EVENTS, json=now).json()["accepted"] == 1


@pytest.fixture(scope="module")
def fuzzed(feature_redis: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(feature_redis, tmp_path_factory.mktemp("fuzzed"))
    yield made
    made.still_answers()
    for served in (made.open, made.guarded):
        code, said = served.end()
        assert (code, said) == (0, "")


OPERATIONS: dict[str, Any] = {
    found.ok().label: found.ok()  # type: ignore[union-attr]
    for found in openapi.from_dict(described()).get_all_operations()
}
TAKING = [label for label, one in OPERATIONS.items() if one.body or any(one.path_parameters) or any(one.query)]


@pytest.mark.parametrize(
    ("label", "mode"),
    [(label, GenerationMode.POSITIVE) for label in OPERATIONS] + [(label, GenerationMode.NEGATIVE) for label in TAKING],
    ids=lambda given: given.name.lower() if isinstance(given, GenerationMode) else given,
)
def test_answers_are_as_the_description_has_them(fuzzed: Fuzzed, label: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[label]

    @given(data=st.data())
    @fuzz(25 if label.startswith("POST /v1") else 8 if label in TAKING else 2)
    def ask(data: st.DataObject) -> None:
        case: Case = data.draw(operation.as_strategy(generation_mode=mode))
        for name, known in NAMES.items():
            if name in case.path_parameters and data.draw(st.booleans(), label="known"):
                case.path_parameters[name] = data.draw(st.sampled_from(known))
        with_key = data.draw(st.sampled_from([None, fuzzed.key, {"authorization": "Bearer rtml_no_key"}]))
        served = fuzzed.open if with_key is None else fuzzed.guarded
        answer = case.call(base_url=str(served.http.base_url), headers=with_key, timeout=DEADLINE_SECONDS)
        assert answer.status_code < 500 or answer.status_code == 503, answer.content
        case.validate_response(answer, checks=CHECKS)

    ask()


def sent(fuzzed: Fuzzed, path: str, body: bytes) -> int:
    answer = fuzzed.open.http.post(path, content=body, timeout=DEADLINE_SECONDS)
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, (body[:200], answer.text)
        error = answer.json()["error"]
        assert error["code"]
        assert 0 < len(error["message"]) < 3_000
    return answer.status_code


NOW = instants.to_text(instants.now()).encode()
EVENT = b'{"event_id": "1", "event_time": "' + NOW + b'", "user": "ann", "amount": 1.5, "quantity": 1}'
STRANGE = {
    "nothing": b"",
    "zeros": b"\0" * 1_000,
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"events":[{"a":' * 6_000,
    "deep entities": b'{"entities":[{"user":' + b"[" * 40_000 + b"]" * 40_000 + b"}]}",
    "deep events": b'{"events":[{"user":' + b"[" * 40_000 + b"]" * 40_000 + b"}]}",
    "many entities": b'{"entities":[' + b",".join([b"{}"] * 30_000) + b"]}",
    "many events": b'{"events":[' + b",".join([b"{}"] * 30_000) + b"]}",
    "many keys": b"{" + b",".join(b'"k%d":1' % n for n in range(8_000)) + b"}",
    "a long key": b'{"' + b"k" * 90_000 + b'":1}',
    "a long name": b'{"entities":[{"user":"' + b"u" * 90_000 + b'"}]}',
    "a long instant": b'{"entities":[],"at":"' + b"9" * 90_000 + b'"}',
    "a long edge": b'{"entities":[],"leading_edge":"' + b"e" * 90_000 + b'"}',
    "beyond floats": b'{"entities":[{"user":1e400}],"at":-1e400}',
    "an event beyond floats": EVENT.replace(b"1.5", b"1e400"),
    "beyond integers": b'{"entities":[{"user":' + b"9" * 10_000 + b'}],"at":' + b"9" * 10_000 + b"}",
    "an event beyond integers": EVENT.replace(b'": 1}', b'": ' + b"9" * 10_000 + b"}"),
    "a time beyond integers": EVENT.replace(b'"' + NOW + b'"', b"9" * 10_000),
    "no number": b'{"entities":[{"user":NaN}],"at":Infinity}',
    "an event without a number": EVENT.replace(b"1.5", b"NaN"),
    "half a pair": b'{"entities":[{"user":"\\ud800"}]}',
    "an event of half a pair": EVENT.replace(b"ann", b"\\udfff"),
    "a field of half a pair": EVENT.replace(b"user", b"\\ud800 x"),
    "no text": b'{"entities":[{"user":"\xff\xfe"}],"\xff":1}',
    "an event that is no text": EVENT.replace(b"ann", b"\xff"),
    "a field that is no text": EVENT.replace(b"user", b"\xc3"),
    "an event in utf-16": EVENT.decode().encode("utf-16"),
    "a mark before it": b"\xef\xbb\xbf" + EVENT,
    "the same key twice": b'{"events":[],"events":[7],"entities":[],"entities":[{"user":{},"user":[]}]}',
    "the wrong types": b'{"events":[0,null,[],"x",true,{}]}',
    "the first year": EVENT.replace(NOW, b"0001-01-01T00:00:00+23:59"),
    "the last year": EVENT.replace(NOW, b"9999-12-31T23:59:59-23:59"),
    "too long": b" " * (MOST_BYTES + 1),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_bodies_are_told_what_is_wrong(fuzzed: Fuzzed, name: str) -> None:
    statuses = {sent(fuzzed, path, STRANGE[name]) for path in (FEATURES, EVENTS, "/v1/events/nowhere", "/login")}
    assert statuses <= {200, 400, 404, 413, 422}
    assert statuses & {400, 413, 422} or name == "a long name"


def test_bodies_beyond_the_default_bound(fuzzed: Fuzzed, serve: Any, feature_redis: Filled) -> None:
    served = serve(feature_redis.url)
    many = b",".join([b"{}"] * 1_000_000)
    for path, field in ((FEATURES, b"entities"), (EVENTS, b"events")):
        answer = served.http.post(path, content=b'{"' + field + b'":[' + many + b"]}", timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ann", "wall_clock", "2024-01-01T00:00:00Z", 10**400, -(2**63), 1e308, "\ud800", "9" * 400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"entities": st.lists(st.dictionaries(st.sampled_from(["user", "shop", "x"]), VALUES)) | VALUES,
                  "at": VALUES, "leading_edge": VALUES, "events": st.lists(VALUES) | VALUES, "x": VALUES}
)  # fmt: skip
EVENT_FIELDS = ("event_id", "event_time", "user", "amount", "quantity")
PUSHED = st.dictionaries(st.sampled_from([*EVENT_FIELDS, "more"]), VALUES)


@given(body=BODIES | PUSHED | st.builds(lambda events: {"events": events}, st.lists(PUSHED, max_size=5)))
@fuzz(80)
def test_any_json_is_answered(fuzzed: Fuzzed, body: Any) -> None:
    for path in (FEATURES, EVENTS):
        sent(fuzzed, path, json.dumps(body).encode())


@given(data=st.data())
@fuzz(80)
def test_any_bytes_are_answered(fuzzed: Fuzzed, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([b"", EVENT, b'{"events": [' + EVENT + b"]}", json.dumps(ANN).encode()]))
    start = data.draw(st.integers(0, len(whole)))
    stop = min(len(whole), start + data.draw(st.integers(0, 8)))
    body = whole[:start] + data.draw(st.binary(max_size=40)) + whole[stop:]
    for path in (FEATURES, EVENTS):
        sent(fuzzed, path, body)


def spoken(port: int, message: bytes) -> bytes:
    """Say something that need not be HTTP; return what was answered, which may be nothing but the end."""
    said = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)) as connection:
        try:
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                said += piece
        except TimeoutError:
            raise
        except OSError:  # cut off: who speaks no HTTP need not be told so in HTTP
            pass
    return said


LINES = st.sampled_from(
    [
        b"POST /v1/features/spending HTTP/1.1", b"POST /v1/events/purchases HTTP/1.1", b"GET /healthz HTTP/1.1",
        b"POST  /v1/events/purchases HTTP/9.9", b"get / http/1.1", b"PRI * HTTP/2.0", b"\x16\x03\x01\x02\x00",
        b"POST http://[::1/v1/events/x HTTP/1.1", b"POST /v1/events/%ff%00%zz HTTP/1.1", b"CONNECT x:1 HTTP/1.1",
        b"POST /v1/events/purchases", b"", b"OPTIONS * HTTP/1.1", b"POST /" + b"x" * 70_000 + b" HTTP/1.1",
    ]
)  # fmt: skip
HEADERS = st.lists(
    st.sampled_from(
        [
            b"host: x", b"content-length: 5", b"content-length: -1", b"content-length: 99999999999999999999",
            b"content-length: 5, 6", b"transfer-encoding: chunked", b"transfer-encoding: gzip", b"connection: close",
            b"connection: upgrade\r\nupgrade: websocket", b"expect: 100-continue", b"expect: x",
            b"x-request-id: \xff\x01",
            b"authorization: Bearer \xff", b"origin: \xff", b"cookie: rtml_key=\xff", b"traceparent: 00-zz",
            b"accept-encoding: br", b": empty", b"no colon", b"x: " + b"y" * 10_000, b"content-type: x/\x7f",
        ]
    ),
    max_size=6,
)  # fmt: skip
RESTS = st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\nx", EVENT]) | (
    st.binary(max_size=50)
)


@given(line=LINES | st.binary(max_size=60), headers=HEADERS, rest=RESTS)
@fuzz(80)
def test_what_is_no_http_is_answered_or_cut_off(fuzzed: Fuzzed, line: bytes, headers: list[bytes], rest: bytes) -> None:
    message = b"\r\n".join([line, *headers, b"connection: close", b"", rest])
    for served in (fuzzed.open, fuzzed.guarded):
        said = spoken(served.port, message)
        if said:
            assert said.startswith(b"HTTP/1.")
            first, _, _ = said.partition(b"\r\n")
            assert int(first.split()[1]) < 500, said[:500]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
    ],
    ids=["a long header", "many headers", "a long path", "two lengths"],
)
def test_heads_beyond_all_bounds_are_refused(fuzzed: Fuzzed, message: bytes, status: int) -> None:
    said = spoken(fuzzed.open.port, message)
    assert said == b"" or int(said.split()[1]) == status


def test_a_body_without_end_is_answered(fuzzed: Fuzzed) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b'{"events": ' + b" " * 10_000

    for path in (FEATURES, EVENTS):
        try:
            status = httpx.post(f"{fuzzed.open.http.base_url}{path}", content=pieces(), timeout=60).status_code
        except httpx.WriteError:  # it reads sixteen of the longest bodies, and no more
            continue
        assert status == 413
    fuzzed.still_answers()
