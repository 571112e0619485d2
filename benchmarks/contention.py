"""Serving while a tiles worker runs at full speed, beside serving with the worker idle.

The worker is kept on one core; server, load and Redis run where they like. Requests are due at even times, at a rate
well below what the server can do.
"""

from __future__ import annotations

import os
import time

import numpy as np

from benchmarks import http_serving
from benchmarks.harness import append, feature_server, reached, tiles_flow, wait_for_position
from benchmarks.http_load import Load, LoadError, loaded
from benchmarks.rows import Row, at_most, milliseconds
from benchmarks.shared import CARDS, SERVICE, Shared
from serving.paths import FEATURES

RATE, SECONDS, AIM = 500.0, 10.0, 2.0
IDLE_P50 = 0.02
"""A server that is not up to the load with the worker idle has nothing to lose, and no ratio."""
EVENTS, WARM_UP = 500_000, 10_000


def run(shared: Shared) -> list[Row]:
    """Measure both."""
    client, settings, _ = shared.cards
    load = Load(settings.port, f"{FEATURES}{SERVICE}", http_serving.bodies(shared), rate=RATE, seconds=SECONDS)
    cores = sorted(os.sched_getaffinity(0))
    with feature_server(settings):
        with tiles_flow(settings, core=cores[-1]):
            wait_for_position(client, int(append(client, np.arange(CARDS))[-1]), 60)
            idle = loaded(load)
        if idle.p50 > IDLE_P50:
            raise LoadError(f"at {RATE:g} requests/s the server is too slow while idle: p50 {milliseconds(idle.p50)}")
        # While no flow runs, so that there is enough to do for all of the measurement.
        orders = append(client, np.random.default_rng(5).integers(0, CARDS, EVENTS))
        with tiles_flow(settings, core=cores[-1]):
            wait_for_position(client, int(orders[WARM_UP]), 60)
            before, started = reached(client), time.perf_counter()
            busy = loaded(load)
            after, seconds = reached(client), time.perf_counter() - started
    if after >= orders[-1]:
        raise TimeoutError(f"the worker was through with {EVENTS:,} events before the measurement was")
    done = float(np.searchsorted(orders, after) - np.searchsorted(orders, before)) / seconds
    what = f"HTTP p99 at {RATE:,.0f} requests/s while a worker writes {done:,.0f} events/s; beside idle"
    return [
        at_most(what, milliseconds(busy.p99), busy.p99 / idle.p99, AIM, milliseconds(idle.p99)),
        Row("  p50", milliseconds(busy.p50), milliseconds(idle.p50), f"{busy.p50 / idle.p50:.2f}×"),
    ]
