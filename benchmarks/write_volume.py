"""Bytes that a tiles worker sends to Redis per event."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import append, online_store, tiles_flow, wait_for_position
from benchmarks.rows import Row

EVENTS, KEYS = 100_000, 10_000

VIEWS = {
    "count, mean, max over 1h/24h/7d": "benchmarks.definitions",
    # A view with sketches takes its place here: its module of definitions, with a source like the others'.
}


def run() -> list[Row]:
    """Measure each module of definitions on a Redis of its own."""
    return [
        Row(f"bytes sent to Redis per event, {what}; {KEYS:,} uniform keys", f"{sent(features):,.0f} B")
        for what, features in VIEWS.items()
    ]


def sent(features: str) -> float:
    """Fill the stream first, so that what Redis is sent from then on is the worker's alone but for some questions."""
    with online_store(features) as (client, settings):
        orders = append(client, np.random.default_rng(7).integers(0, KEYS, EVENTS))
        before = client.info("stats")["total_net_input_bytes"]
        with tiles_flow(settings):
            wait_for_position(client, int(orders[-1]), 120)
        return float(client.info("stats")["total_net_input_bytes"] - before) / EVENTS
