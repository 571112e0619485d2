"""A load of HTTP requests from a process of its own: the same one for every server.

`python -m benchmarks.http_load` reads a `Load` as JSON, sends it, and prints a `Loaded` as JSON. One loop over some
keep-alive connections, of which each has one request under way: it takes some ten microseconds a request, so that the
server is what is measured. At a `rate`, requests are due at even times and their latency counts from then, whether or
not a connection was free; without one, the next follows at once.
"""

from __future__ import annotations

import gc
import select
import socket
import subprocess
import sys
import time
from collections import deque

import msgspec
import numpy as np

PATIENCE = 10.0


class Load(msgspec.Struct, frozen=True):
    """What to send where."""

    port: int
    path: str
    bodies: list[str]
    """JSON; taken in turn."""
    connections: int = 16
    seconds: float = 5.0
    warm_up: float = 1.0
    rate: float | None = None
    """Requests a second; as many as will go, by default."""


class Loaded(msgspec.Struct, frozen=True):
    """What came of it, the warm-up left out: latencies in seconds."""

    requests: int
    per_second: float
    p50: float
    p99: float
    worst: float
    statuses: dict[str, int]

    @property
    def failed(self) -> int:
        """How many answers were not 200."""
        return self.requests - self.statuses.get("200", 0)


class LoadError(Exception):
    """The server did not answer as HTTP/1.1 with a `content-length`; says what it did."""


def loaded(load: Load) -> Loaded:
    """Run a load in a process of its own.

    Raises:
        LoadError: it failed, or an answer was not 200.
    """
    argv = [sys.executable, "-m", "benchmarks.http_load"]
    done = subprocess.run(argv, input=msgspec.json.encode(load), capture_output=True, check=False)
    if done.returncode:
        raise LoadError(done.stderr.decode().strip().splitlines()[-1])
    result = msgspec.json.decode(done.stdout, type=Loaded)
    if result.failed:
        raise LoadError(f"of {result.requests} answers some were not 200: {result.statuses}")
    return result


class _Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        self._received = b""
        self._ends: int | None = None

    def send(self, request: bytes, since: float) -> None:
        self.since = since
        self.socket.sendall(request)

    def status(self) -> str | None:
        """Receive, and return the status of the answer once it is whole."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise LoadError("the server closed a connection")
        self._received += received
        if self._ends is None:
            self._ends = _end(self._received)
        if self._ends is None or len(self._received) < self._ends:
            return None
        status = self._received[9:12].decode()
        self._received, self._ends = self._received[self._ends :], None
        return status


def _end(received: bytes) -> int | None:
    """Return where an answer ends, once its headers are there."""
    body = received.find(b"\r\n\r\n")
    if body < 0:
        return None
    headers = received[:body].lower()
    at = headers.find(b"\r\ncontent-length:")
    if at < 0:
        raise LoadError(f"an answer without content-length: {headers[:200]!r}")
    return body + 4 + int(headers[at + 17 :].split(b"\r\n", 1)[0])


class _Sender:
    """The loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = [_request(load, body.encode()) for body in load.bodies]
        self._free = deque(_Connection(load.port) for _ in range(load.connections))
        self._busy: dict[socket.socket, _Connection] = {}
        self._sent = 0
        self._measured: list[float] = []
        self._statuses: dict[str, int] = {}

    def run(self) -> Loaded:
        started = time.perf_counter()
        counts_from, until = started + self._load.warm_up, started + self._load.warm_up + self._load.seconds
        while (now := time.perf_counter()) < until:
            wait = self._send_due(now, started, until)
            ready, _, _ = select.select(list(self._busy), (), (), min(wait, PATIENCE))
            if not ready and wait >= PATIENCE:
                raise LoadError(f"no answer within {PATIENCE:g} s")
            for one in ready:
                self._take(self._busy[one], counts_from)
        p50, p99 = np.percentile(self._measured, (50, 99))
        rate = len(self._measured) / self._load.seconds
        return Loaded(len(self._measured), rate, float(p50), float(p99), max(self._measured), self._statuses)

    def _send_due(self, now: float, started: float, until: float) -> float:
        """Send what is due while connections are free; return the seconds until the next is."""
        rate = self._load.rate
        while self._free:
            due = now if rate is None else started + self._sent / rate
            if due > now:
                return min(due, until) - now
            self._sent += 1
            connection = self._free.popleft()
            connection.send(self._requests[self._sent % len(self._requests)], due)
            self._busy[connection.socket] = connection
        return PATIENCE

    def _take(self, connection: _Connection, counts_from: float) -> None:
        status = connection.status()
        if status is None:
            return
        del self._busy[connection.socket]
        self._free.append(connection)
        now = time.perf_counter()
        if now >= counts_from:
            self._measured.append(now - connection.since)
            self._statuses[status] = self._statuses.get(status, 0) + 1


def _request(load: Load, body: bytes) -> bytes:
    head = f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Read, send, print."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sender = _Sender(load)
    gc.disable()
    try:
        result = sender.run()
    except LoadError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
