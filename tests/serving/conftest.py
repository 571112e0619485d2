"""What the tests of the server share: a filled Redis, and a real server over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from rtml.instants import Instant
from rtml_assets.runtime.ports import free_port
from tests.serving.online import PATIENCE_SECONDS, OwnRedis, fill

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Filled:
    """A Redis with features, and the instant up to which they are servable."""

    server: OwnRedis
    client: redis.Redis
    present: Instant

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="module")
def feature_redis() -> Iterator[Filled]:
    server = OwnRedis()
    try:
        client = server.start()
        yield Filled(server, client, fill(client))
        client.close()
    finally:
        server.stop()


class Served:
    """A feature server as a process of its own."""

    def __init__(self, url: str, home: Path, **settings: str) -> None:
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RTML_")}
        given = {"RTML_REDIS_URL": url, "RTML_PORT": str(self.port), "RTML_HOME": str(home), "RTML_DRAIN": "0s"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            cwd=ROOT,
            env=inherited | given | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.log = ""
        while (line := self.process.stdout.readline()) and "features at" not in line:
            self.log += line
        self.greeting = line
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_SECONDS)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Stop it; return its exit code and all that it said but its greeting."""
        stdout = self.process.stdout
        assert stdout is not None
        if not stdout.closed:
            self.http.close()
            self.process.send_signal(number)
            self.log += self.process.communicate(timeout=PATIENCE_SECONDS)[0]
        return self.process.returncode, self.log


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers that end with the test."""
    running: list[Served] = []

    def start(url: str, **settings: str) -> Served:
        running.append(Served(url, tmp_path, **settings))
        return running[-1]

    yield start
    for served in running:
        served.end()


@pytest.fixture(scope="module")
def served(feature_redis: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests that leave it as it is."""
    running = Served(feature_redis.url, tmp_path_factory.mktemp("home"))
    yield running
    code, said = running.end()
    assert (code, said) == (0, "")
