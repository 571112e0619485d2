"""Freshness: from `XADD` to servable, by a probe that reads features until its event counts, under a steady load."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import SOURCE, fill, last_entry, online_store, payment, tiles_flow, wait_for_position
from rtml import instants
from serving.client import FeatureClient
from streaming.broker import connect

if TYPE_CHECKING:
    from redis import Redis

RATE, SECONDS = 1_000, 30
PROBE_EVERY = 0.04
PROBE_CARD = 10**9


class Load(threading.Thread):
    """Appends `RATE` events a second, in bursts of five milliseconds."""

    def __init__(self, url: str) -> None:
        """Take where to."""
        super().__init__(daemon=True)
        self._client = connect(url)
        self._stopped = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Send until stopped."""
        cards = np.random.default_rng(2).integers(0, 10_000, RATE * SECONDS * 4).tolist()
        started = time.perf_counter()
        while not self._stopped.wait(0.005):
            due = int((time.perf_counter() - started) * RATE)
            pipeline = self._client.pipeline(transaction=False)
            for number in range(self.sent, due):
                pipeline.xadd(SOURCE, {"data": payment(number, cards[number % len(cards)])})
            pipeline.execute()
            self.sent = due

    def stop(self) -> None:
        """Stop sending."""
        self._stopped.set()
        self.join()


def probe(client: Redis, features: FeatureClient, number: int) -> float:
    """Append one event of a card that no other has, and return the milliseconds until it is served."""
    card = PROBE_CARD + number
    data = payment(card, card)
    started = time.perf_counter()
    client.xadd(SOURCE, {"data": data})
    # An event counts from the microsecond after its own: reads ask for the instant that a client would ask for, now.
    while features.get("fraud", [{"card": f"c{card}"}], at=instants.now() + 1).rows[0][0] != 1:
        if time.perf_counter() - started > 5:
            raise TimeoutError("a probe was not served within 5 s")
    return (time.perf_counter() - started) * 1_000


def naive_probe(client: Redis, number: int) -> float:
    """The floor: write one hash, and read it back."""
    started = time.perf_counter()
    client.hset(f"naive:{number}", mapping={"at": 1, "amount": 2, "n": 1})
    client.hgetall(f"naive:{number}")
    return (time.perf_counter() - started) * 1_000


def run() -> list[tuple[str, str]]:
    """Return rows to print: what, figure."""
    with online_store() as (client, settings), tiles_flow(settings):
        fill(client, np.arange(10_000))
        wait_for_position(client, last_entry(client), 60)
        load = Load(settings.redis_url)
        with FeatureClient(settings) as features:
            load.start()
            waits, floor = [], []
            until = time.perf_counter() + SECONDS
            number = 0
            while time.perf_counter() < until:
                waits.append(probe(client, features, number))
                floor.append(naive_probe(client, number))
                number += 1
                time.sleep(PROBE_EVERY)
            load.stop()
    p50, p99 = np.percentile(waits, (50, 99))
    floor50, floor99 = np.percentile(floor, (50, 99))
    return [
        (
            f"freshness, {len(waits)} probes at {load.sent / SECONDS:,.0f} events/s",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        ),
        ("naive: HSET and HGETALL, no stream", f"p50 {floor50:.1f} ms, p99 {floor99:.1f} ms"),
        ("ratio at p50 (aim: p99 under 25 ms)", f"{p50 / floor50:.1f}×"),
    ]
