"""Freshness: from `XADD` to servable, by a probe that reads features until its event counts, under a steady load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import (
    SOURCE,
    append,
    last_entry,
    module,
    online_store,
    payment,
    process,
    tiles_flow,
    wait_for_position,
)
from benchmarks.rows import Row, milliseconds, within
from benchmarks.shared import SERVICE
from benchmarks.steady_load import CARDS
from rtml import instants
from serving.client import FeatureClient

if TYPE_CHECKING:
    from redis import Redis

    from rtml.settings import Settings

SECONDS = 15.0
AIMS = {1_000: 0.015, 20_000: 0.100}
"""By events a second: the 99th percentile of freshness, in seconds."""
PROBE_EVERY, POLL, PATIENCE = 0.03, 0.0002, 10.0
PROBE_CARD = 10**9
SETTLING = 2.0


def run() -> list[Row]:
    """Measure at each rate, beside a plain write and read of Redis."""
    rows = []
    with online_store() as (client, settings), tiles_flow(settings), FeatureClient(settings) as features:
        append(client, np.arange(CARDS))
        wait_for_position(client, last_entry(client), PATIENCE * 6)
        for rate, aim in AIMS.items():
            rows += probed(client, settings, features, rate, aim)
    return rows


def probed(client: Redis, settings: Settings, features: FeatureClient, rate: int, aim: float) -> list[Row]:
    """Probe while a load runs, until a worker that falls behind is given up."""
    waits, floor = [], []
    with process(settings, f"load-{rate}", module("benchmarks.steady_load", str(rate))):
        time.sleep(SETTLING)
        started, before = time.perf_counter(), client.xlen(SOURCE)
        while time.perf_counter() - started < SECONDS:
            waits.append(probe(client, features))
            if waits[-1] >= PATIENCE:
                break
            floor.append(naive_probe(client))
            time.sleep(PROBE_EVERY)
        sent = (client.xlen(SOURCE) - before) / (time.perf_counter() - started)
    floor = floor or [naive_probe(client)]
    (p50, p99), (plain, plain_p99) = (np.percentile(found, (50, 99)) for found in (waits, floor))
    what = f"freshness at {rate:,} events/s ({sent:,.0f} sent), p99 of {len(waits)} probes; beside HSET and HGETALL"
    return [
        within(what, p99, aim, milliseconds(plain_p99)),
        Row("  p50", milliseconds(p50), milliseconds(plain), f"{p50 / plain:.1f}×"),
    ]


def probe(client: Redis, features: FeatureClient) -> float:
    """Append one event of a new card, and return the seconds until it is served, or `PATIENCE` is over."""
    card = PROBE_CARD + time.perf_counter_ns()
    data = payment(card, card)
    started = time.perf_counter()
    client.xadd(SOURCE, {"data": data})
    # An event counts from the microsecond after its own: reads ask for the instant that a client would ask for, now.
    while features.get(SERVICE, [{"card": f"c{card}"}], at=instants.now() + 1).rows[0][0] != 1:
        if time.perf_counter() - started > PATIENCE:
            break
        time.sleep(POLL)
    return time.perf_counter() - started


def naive_probe(client: Redis) -> float:
    """The floor: write one hash, and read it back."""
    key = f"naive:{time.perf_counter_ns()}"
    started = time.perf_counter()
    client.hset(key, mapping={"at": 1, "amount": 2, "n": 1})
    client.hgetall(key)
    return time.perf_counter() - started
