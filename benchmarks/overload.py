"""Overload: what a feature server answers, and how fast, when more is asked of it than it can do.

Its capacity is measured first, by connections that each ask again as soon as they are answered. Then requests come at
multiples of it whether or not earlier ones were answered, each on a connection of its own while it lasts; its latency
counts from when it was due. The same is asked of a server that takes on whatever comes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import uvloop

from benchmarks.harness import SOURCE
from rtml import instants, registry
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.probes import server_is_up
from rtml_assets.runtime.redis_server import EmbeddedRedis
from streaming.broker import connect
from streaming.positions import Position, raise_position
from streaming.services import Service, write_services
from streaming.versions import Version, create_version, go_live

DEFINITIONS = "benchmarks.definitions"
CONNECTIONS = 800
"""As many requests may be on their way at once; those due beyond them wait here, which counts as their latency."""
BUSY = 32
"""So many that ask again at once keep the server busy, and none of them is refused."""
TIMES = (0.5, 1.0, 2.0, 3.0)
SERVERS = {"refuses": {}, "takes on all": {"RTML_QUEUE_TARGET": "0s", "RTML_MAX_IN_FLIGHT": "0"}}
ENTITIES = 20
"""Of each request: what comes is to keep the server busy, and not who sends it."""
IN_TIME_MS = 500.0
"""An answer after that is none to its caller."""
WARMING_SECONDS = 1.0
"""So much of each run is not counted."""


@dataclass
class Result:
    """What came of a run's requests: status and latency in seconds of each."""

    seconds: float
    statuses: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def told(self) -> dict[str, float]:
        """Return the figures of a run."""
        status, latency = np.array(self.statuses), np.array(self.latencies) * 1e3
        good = latency[status == 200]
        shed = latency[status == 503]
        quantiles = np.percentile(good, [50, 99]) if len(good) else (np.nan, np.nan)
        return {
            "asked/s": len(status) / self.seconds,
            "in time/s": float(np.sum(good <= IN_TIME_MS)) / self.seconds,
            "p50 ms": float(quantiles[0]),
            "p99 ms": float(quantiles[1]),
            "refused/s": len(shed) / self.seconds,
            "refused p99 ms": float(np.percentile(shed, 99)) if len(shed) else 0.0,
            "late": float(np.sum(status == 504)),
            "lost": float(np.sum(status == 0)),
        }


class Connection(asyncio.Protocol):
    """One connection to the server: a request at a time."""

    def __init__(self, load: Load) -> None:
        """Take whose it is."""
        self._load, self._read, self._length = load, b"", 0
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be free."""
        # Its class is uvloop's own, and no subclass of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def ask(self, due: float) -> None:
        """Send a request that was due then."""
        self.due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, once it is whole."""
        self._read += data
        head, ended, body = self._read.partition(b"\r\n\r\n")
        if not ended:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._read = b""
            self._load.answered(self, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Count it, where the server closed it."""
        del error
        self._load.lost()


class Load:
    """Requests over a bounded number of connections."""

    def __init__(self, port: int, request: bytes) -> None:
        """Take what to ask where."""
        self.port, self.request = port, request
        self._free: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._result = Result(0.0)
        self._counted_from = self._until = 0.0
        self._closed = False

    async def connect(self, count: int) -> None:
        """Open connections."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
            self._free.append(connection)

    async def closed(self, seconds: float) -> Result:
        """Ask again on each connection as soon as it is answered."""
        self._begin(seconds, closed=True)
        now = time.perf_counter()
        while self._free:
            self._free.pop().ask(now)
        await asyncio.sleep(seconds + WARMING_SECONDS + 1)
        return self._result

    async def open(self, rate: float, seconds: float) -> Result:
        """Ask at a rate, whatever becomes of it, at random distances."""
        self._begin(seconds, closed=False)
        gaps = np.random.default_rng(7).exponential(1 / rate, int(rate * (seconds + WARMING_SECONDS) * 1.2))
        due = deque((time.perf_counter() + np.cumsum(gaps)).tolist())
        while (now := time.perf_counter()) < self._until:
            while due and due[0] <= now:
                self._ask(due.popleft())
            await asyncio.sleep(0.001)
        while self._waiting or len(self._free) < CONNECTIONS:
            if time.perf_counter() > self._until + 30:
                raise TimeoutError("requests were not answered within 30 s")
            await asyncio.sleep(0.01)
        return self._result

    def _begin(self, seconds: float, *, closed: bool) -> None:
        self._counted_from = time.perf_counter() + WARMING_SECONDS
        self._until = self._counted_from + seconds
        self._result, self._closed = Result(seconds), closed

    def _ask(self, due: float) -> None:
        if self._free:
            self._free.pop().ask(due)
        else:
            self._waiting.append(due)

    def answered(self, connection: Connection, status: int) -> None:
        """Note an answer, and go on."""
        now = time.perf_counter()
        if self._counted_from <= (now if self._closed else connection.due) < self._until:
            self._result.statuses.append(status)
            self._result.latencies.append(now - connection.due)
        if self._closed:
            if now < self._until:
                connection.ask(now)
            else:
                self._free.append(connection)
        elif self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self) -> None:
        """Note a connection that the server closed."""
        self._result.statuses.append(0)
        self._result.latencies.append(0.0)


@contextmanager
def server(**given: str) -> Iterator[Settings]:
    """A feature server over a Redis with one version of the benchmarks' view, and no events yet."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as redis, connect(redis.url) as client:
        found = registry.load(DEFINITIONS)
        for plan in found.plans.values():
            go_live(client, create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready")))
        raise_position(client, keys.position(SOURCE), 0, Position("5-0", instants.now()))
        write_services(client, [Service.of(service, found.plans) for service in found.services.values()])
        settings = Settings(DEFINITIONS, home=folder, redis_url=redis.url, port=free_port())
        environment = {
            **os.environ,
            **settings.environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **given,
        }
        process = subprocess.Popen([sys.executable, "-m", "serving"], env=environment, stdout=subprocess.DEVNULL)
        try:
            while not server_is_up(settings):
                time.sleep(0.05)
            yield settings
        finally:
            process.terminate()
            process.wait(30)


def request(service: str, key: str) -> bytes:
    """Return a request for some entities."""
    body = msgspec.json.encode({"entities": [{key: f"c{number}"} for number in range(ENTITIES)]})
    head = f"POST /v1/features/{service} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def measure(port: int, seconds: float, rates: list[float]) -> tuple[float, list[Result]]:
    """Return a server's capacity in requests per second, and what comes of rates; without any, of multiples of it."""
    load = Load(port, request("fraud", "card"))
    await load.connect(BUSY)
    full = await load.closed(seconds)
    capacity = full.statuses.count(200) / full.seconds
    await load.connect(CONNECTIONS - BUSY)
    return capacity, [await load.open(rate, seconds) for rate in rates or [capacity * factor for factor in TIMES]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    rates: list[float] = []
    for name, given in SERVERS.items():
        with server(**given) as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            capacity, results = runner.run(measure(settings.port, seconds, rates))
        rates = rates or [capacity * factor for factor in TIMES]
        print(f"{name}: capacity {capacity:,.0f} requests/s")
        for factor, result in zip(TIMES, results, strict=True):
            print(f"  {factor:3g} x ", "  ".join(f"{what} {value:,.1f}" for what, value in result.told().items()))


if __name__ == "__main__":
    main()
