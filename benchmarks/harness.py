"""A Redis, a tiles flow and a feature server of the benchmarks' own, and events for them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from rtml import instants
from rtml.instants import Instant
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port, is_listening
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.runtime.supervisor import Child, Supervisor
from streaming.broker import connect
from streaming.positions import read_positions

if TYPE_CHECKING:
    from redis import Redis

SOURCE = "payments"
CHUNK = 2_000
PATIENCE = 60.0
SEQUENCES = 2**20
"""So many entries of one millisecond can be told apart by `order`; the stream ids of Redis count them anew in each."""


@contextmanager
def online_store(features: str = "benchmarks.definitions", **others: Any) -> Iterator[tuple[Redis, Settings]]:
    """A real Redis with an append-only file, and the settings to reach it."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        settings = Settings(features, home=folder, redis_url=server.url, port=free_port(), **others)
        with connect(settings) as client:
            yield client, settings


@contextmanager
def process(settings: Settings, name: str, argv: Iterable[str], core: int | None = None) -> Iterator[Supervisor]:
    """Run a program until the end; on one core alone where that is said."""
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": path}
    pinned = () if core is None else (sys.executable, "-m", "benchmarks.pinned", str(core))
    with Supervisor([Child(name, (*pinned, *argv), environment)], settings.home_path / "logs") as supervisor:
        yield supervisor


@contextmanager
def tiles_flow(settings: Settings, core: int | None = None, samples: Path | None = None) -> Iterator[Supervisor]:
    """One worker of the tiles flow, as a process; sampled into a file where there is one."""
    argv = module("streaming", SOURCE, "--flow", "tiles", samples=samples)
    with process(settings, "tiles", argv, core) as supervisor:
        yield supervisor


@contextmanager
def feature_server(settings: Settings, core: int | None = None, samples: Path | None = None) -> Iterator[Supervisor]:
    """One feature server, as a process, when it listens; sampled into a file where there is one."""
    with process(settings, "serving", module("serving", samples=samples), core) as supervisor:
        wait_for_port(settings.port)
        yield supervisor


def module(name: str, *arguments: str, samples: Path | None = None) -> tuple[str, ...]:
    """Return the command that runs a module."""
    sampled = () if samples is None else ("-m", "benchmarks.sampled", str(samples))
    return (sys.executable, *(sampled or ("-m",)), name, *arguments)


def wait_for_port(port: int, seconds: float = PATIENCE) -> None:
    """Return when something listens.

    Raises:
        TimeoutError: nothing did.
    """
    deadline = time.monotonic() + seconds
    while not is_listening("127.0.0.1", port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens at port {port} after {seconds:g} s")
        time.sleep(0.05)


def payment(number: int, card: int) -> bytes:
    """Return one event of now as JSON."""
    event = {"payment_id": f"p{number}", "at": instants.now(), "card": f"c{card}", "amount": float(number % 997)}
    return msgspec.json.encode(event)


def append(client: Redis, cards: np.ndarray, times: np.ndarray | None = None, first: int = 0) -> np.ndarray:
    """Append one event for each card, in order, and return the entries' orders.

    Events are of now, as they arrive, or of given `times` (µs, in order), at which they then arrived as well. Their ids
    are numbers from `first` on.
    """
    connection: Any = client.connection_pool.get_connection()
    orders: list[int] = []
    try:
        for start in range(0, len(cards), CHUNK):
            stop = min(start + CHUNK, len(cards))
            part = zip(range(first + start, first + stop), cards[start:stop].tolist(), strict=True)
            if times is None:
                now = instants.now()
                commands = [_entry(number, card, now) for number, card in part]
            else:
                stamps = times[start:stop].tolist()
                commands = [_entry(number, card, at, at) for (number, card), at in zip(part, stamps, strict=True)]
            connection.send_packed_command([b"".join(commands)])
            orders += [order(connection.read_response()) for _ in commands]
    finally:
        client.connection_pool.release(connection)
    if times is not None:
        client.set(keys.replay_time(SOURCE), 1)
    return np.array(orders)


def _entry(number: int, card: int, at: Instant, stamp: Instant | None = None) -> bytes:
    """Return an `XADD` as Redis reads it: a client's own way to it takes several times as long."""
    data = b'{"payment_id":"p%d","at":%d,"card":"c%d","amount":%d.5}' % (number, at, card, number % 997)
    fields = b"$4\r\ndata\r\n$%d\r\n%b\r\n" % (len(data), data)
    if stamp is not None:
        fields += b"$11\r\ningested_at\r\n$16\r\n%d\r\n" % stamp
    head = b"*%d\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n" % (5 if stamp is None else 7, len(SOURCE), SOURCE.encode())
    return head + fields


def order(offset: bytes) -> int:
    """Return an entry's id as one number that grows with it."""
    milliseconds, sequence = offset.split(b"-")
    return int(milliseconds) * SEQUENCES + int(sequence)


def reached(client: Redis) -> int:
    """Return the order of the last entry that the tiles flow has covered."""
    return order(read_positions(client, keys.position(SOURCE), 1)[0].offset.encode())


def wait_for_position(client: Redis, entry: int, timeout: float) -> None:
    """Return when the tiles flow's position has passed an entry's order.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + timeout
    while (position := reached(client)) < entry:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the tiles flow did not reach {entry} within {timeout} s; it is at {position}")
        time.sleep(0.005)


def last_entry(client: Redis) -> int:
    """Return the order of the stream's last entry."""
    return order(client.xinfo_stream(SOURCE)["last-generated-id"])


def zipf(rng: np.random.Generator, count: int, cards: int, skew: float) -> np.ndarray:
    """Return cards of which the n-th most frequent has a share of `n ** -skew`."""
    shares = np.cumsum(np.arange(1, cards + 1) ** -skew)
    return np.asarray(np.searchsorted(shares, rng.random(count) * shares[-1]))
