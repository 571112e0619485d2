"""The load that all servers get: it counts every answer, from when its request was due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from benchmarks.http_load import Load, LoadError, loaded


class Handler(BaseHTTPRequestHandler):
    """Answers `{"fail": …}` by 503, `{"slow": …}` late, and everything else at once and in two pieces."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if b"slow" in body:
            time.sleep(0.2)
        answer = b"x" * 100_000
        self.send_response(503 if b"fail" in body else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[:1_000])
        self.wfile.write(answer[1_000:])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_answers_are_counted_however_they_arrive():
    with served() as port:
        result = loaded(Load(port, "/", ["{}"], connections=2, seconds=0.5, warm_up=0))
    assert result.statuses == {"200": result.requests}
    assert result.per_second == result.requests / 0.5
    assert 0 < result.p50 <= result.p99 <= result.worst


def test_latency_counts_from_when_a_request_was_due():
    with served() as port:
        result = loaded(Load(port, "/", ['{"slow": 1}'], connections=1, seconds=1.5, warm_up=0, rate=20))
    # Of one connection, each request waits for all before it: the third was due 0.1 s in and is answered after 0.6 s.
    assert result.requests <= 8
    assert result.worst > 0.5


def test_an_answer_that_is_none_is_no_figure():
    with served() as port, pytest.raises(LoadError, match="'503': "):
        loaded(Load(port, "/", ["{}", '{"fail": 1}'], connections=1, seconds=0.3, warm_up=0))
