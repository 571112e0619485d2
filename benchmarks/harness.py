"""A Redis and a tiles flow of the benchmarks' own, and events for them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rtml import instants
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.runtime.supervisor import Child, Supervisor
from streaming.broker import connect
from streaming.positions import Position, read_positions

if TYPE_CHECKING:
    from redis import Redis

SOURCE = "payments"
CHUNK = 2_000


@contextmanager
def online_store() -> Iterator[tuple[Redis, Settings]]:
    """A real Redis with an append-only file, and the settings to reach it."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        yield connect(server.url), Settings("benchmarks.definitions", home=folder, redis_url=server.url)


@contextmanager
def tiles_flow(settings: Settings) -> Iterator[None]:
    """One worker of the tiles flow, as a process."""
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = (sys.executable, "-m", "streaming", SOURCE, "--flow", "tiles")
    with Supervisor([Child("tiles", argv, environment)], settings.home_path / "logs"):
        yield


def payment(number: int, card: int) -> bytes:
    """Return one event of now as JSON."""
    event = {"payment_id": f"p{number}", "at": instants.now(), "card": f"c{card}", "amount": float(number % 997)}
    return msgspec.json.encode(event)


def fill(client: Redis, cards: np.ndarray) -> None:
    """Append one event for each card, in order."""
    for start in range(0, len(cards), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for number, card in enumerate(cards[start : start + CHUNK].tolist(), start):
            pipeline.xadd(SOURCE, {"data": payment(number, card)})
        pipeline.execute()


def wait_for_position(client: Redis, order: tuple[int, int], timeout: float) -> None:
    """Return when the tiles flow's position has passed an offset."""
    deadline = time.monotonic() + timeout
    while read_positions(client, keys.position(SOURCE), 1)[0].order < order:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the tiles flow did not reach {order} within {timeout} s")
        time.sleep(0.005)


def last_entry(client: Redis) -> tuple[int, int]:
    """Return the stream's last offset."""
    return Position(client.xinfo_stream(SOURCE)["last-generated-id"].decode()).order
