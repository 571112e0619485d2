"""Bodies that are refused, too long or never end: who sent them reads the answer, and the server goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from rtml.settings import Settings
from rtml_assets.runtime.keys import create_key
from serving.app import App
from serving.correlation import Call
from serving.guard import scope_of
from tests.serving.conftest import Filled, Served
from tests.serving.online import PATIENCE_SECONDS, REGISTRY
from tests.serving.test_access import SHOPPING, SPENDING, Guarded

PIECE = 65_536


@pytest.fixture(scope="module")
def guarded(feature_redis: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guarded, str]]:
    home = tmp_path_factory.mktemp("bodies")
    settings = Settings(home=str(home), redis_url=feature_redis.url, auth="on")
    key = create_key(settings, REGISTRY, "reader", ["read:spending"]).splitlines()[0]
    served = Served(feature_redis.url, home, RTML_AUTH="on", RTML_MAX_BODY_BYTES="2000")
    yield Guarded(served, settings), key
    served.end()


def _sent(port: int, key: str | None, path: str, size: int, *, chunked: bool) -> list[int]:
    """Send a body whole before anything is read, as most clients do; then ask again by the same connection."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        if chunked:
            pieces = (b" " * min(PIECE, size - start) for start in range(0, size, PIECE))
            headers["transfer-encoding"] = "chunked"
            connection.request("POST", path, pieces, headers, encode_chunked=True)
        else:
            connection.request("POST", path, b" " * size, headers)
        answer = connection.getresponse()
        answer.read()
        connection.request("GET", "/healthz")
        return [answer.status, connection.getresponse().status]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [200_000, 5_000_000])
def test_a_refused_body_is_answered_and_not_cut_off(guarded: tuple[Guarded, str], size: int, chunked: bool) -> None:
    (server, key), port = guarded, guarded[0].served.port
    for shown, path, status in (
        (None, SPENDING, 401),
        (key, SHOPPING, 403),
        (key, SPENDING, 413),
        (None, "/healthz", 405),
        (key, "/v1/features/", 403),
    ):
        assert _sent(port, shown, path, size, chunked=chunked) == [status, 200], (path, status)
    assert server.status(key) == 200


def test_who_asks_before_sending_is_answered_at_once(guarded: tuple[Guarded, str]) -> None:
    head = b"POST /v1/features/spending HTTP/1.1\r\nhost: x\r\ncontent-length: 300\r\nexpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded[0].served.port), timeout=PATIENCE_SECONDS) as asked:
        asked.sendall(head)
        assert asked.recv(100).startswith(b"HTTP/1.1 401 ")


def test_bodies_that_never_end_hold_neither_connections_nor_the_stop(
    feature_redis: Filled, guarded: tuple[Guarded, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    server, key = guarded
    home = tmp_path_factory.mktemp("stopped")
    served = Served(feature_redis.url, home, RTML_AUTH="on")
    head = b"POST /v1/features/spending HTTP/1.1\r\nhost: x\r\ncontent-length: 300\r\n"
    bearer = f"authorization: Bearer {key}\r\n".encode()
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_SECONDS) as stranger,
        socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_SECONDS) as known,
    ):
        stranger.sendall(head + b"\r\n{")
        known.sendall(head + bearer + b"\r\n{")
        assert stranger.recv(100).startswith(b"HTTP/1.1 401 ")  # after a while, and still sending
        code, said = served.end()
        assert known.recv(100).startswith(b"HTTP/1.1 408 ")
    assert (code, said) == (0, "")
    assert server.status(key) == 200


SPELLINGS = (
    "//v1/features/{}",
    "/v1//features/{}",
    "/v1/features//{}",
    "/v1/features/{}/",
    "/v1/features/{}%2f",
    "/v1/features/./{}",
    "/./v1/features/{}",
    "/v1/features/%2e%2e/features/{}",
    "/healthz/../v1/features/{}",
    "/docs%2f..%2fv1/features/{}",
    "/V1/features/{}",
    "/v1/Features/{}",
    "/v1/features/{};x",
    "/v1/features/{}%00",
    "/v1/features/{}%20",
    "/v1\\features/{}",
    "http://elsewhere/v1/features/{}",
    "/v1/features/{}?x=/v1/features/spending",
    "/v1%2ffeatures%2f{}",
    "/%76%31/features/{}",
    "/v1/features/%2573pending/../{}",
)


def test_no_spelling_of_a_path_reads_what_the_key_may_not(guarded: tuple[Guarded, str]) -> None:
    (server, key) = guarded
    with closing(HTTPConnection("127.0.0.1", server.served.port, timeout=PATIENCE_SECONDS)) as connection:
        for spelling in SPELLINGS:
            for name in ("shopping", "%73hopping", "shoppin%67", "%2573hopping"):
                for method in ("POST", "GET", "HEAD", "PUT"):
                    connection.request(method, spelling.format(name), b"{}", {"x-api-key": key})
                    answer = connection.getresponse()
                    answer.read()
                    # A reader's key: what is no feature service of his is nothing that he may write to.
                    allowed = (403,) if method in ("POST", "PUT") else (403, 404, 405)
                    assert answer.status in allowed, (method, spelling, name)


def test_the_guard_and_the_routes_see_the_same_in_a_path(feature_redis: Filled) -> None:
    app = App(Settings(redis_url=feature_redis.url))
    for spelling in SPELLINGS:
        for name in ("spending", "", "%73pending", "a b", "été", "%2f", "..", "\0"):
            path = spelling.format(name)
            route = app._route(path, Call("1", 0.0, {}, None))
            if route is not None and route.service is not None:
                assert scope_of("POST", path) == scope_of("GET", path) == f"read:{route.service}"
