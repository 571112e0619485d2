"""Bytes in Redis per event, for a window of 30 days: cards with one payment a day, and with a thousand an hour.

A card that pays once a day on average, at random, has days with three payments and days with none. Beside one hash per
event, with the same card, time and amount. All is what `MEMORY USAGE` says of whole keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import append, online_store, tiles_flow, wait_for_position
from benchmarks.rows import Row, at_most
from rtml import instants
from rtml.instants import DAY, Instant
from serving.client import FeatureClient

if TYPE_CHECKING:
    from redis import Redis

DAYS = 30
SPARSE_CARDS, DENSE_AN_HOUR = 2_000, 1_000
AIM_SPARSE, AIM_DENSE = 0.5, 0.15
HASHES = 10_000
CHUNK = 2_000


def run() -> list[Row]:
    """Measure each kind on a Redis of its own."""
    count = SPARSE_CARDS * DAYS
    each_day, at_random = once_a_day(instants.now()), np.random.default_rng(6).integers(0, SPARSE_CARDS, count)
    dense = DENSE_AN_HOUR * 24 * DAYS
    return [
        compared("sparse: 1 event a day", *each_day, AIM_SPARSE),
        compared("  1 a day on average, at random", evenly(count), at_random),
        compared(f"dense: {DENSE_AN_HOUR:,} events an hour", evenly(dense), np.zeros(dense, dtype=np.int64), AIM_DENSE),
    ]


def compared(what: str, times: np.ndarray, cards: np.ndarray, aim: float | None = None) -> Row:
    """Send payments through the stream, on a Redis of its own, and measure."""
    with online_store("benchmarks.month", accept_stamps=True) as (client, settings):
        with tiles_flow(settings):
            wait_for_position(client, int(append(client, cards, times)[-1]), 400)
        with FeatureClient(settings) as features:
            served = features.get("month", [{"card": f"c{card}"} for card in np.unique(cards).tolist()])
        counted = sum(row[0] for row in served.rows if isinstance(row[0], int))
        # What has left the window while it was sent is little.
        if not 0.99 * len(times) <= counted <= len(times):
            raise ValueError(f"{what}: of {len(times):,} events {counted:,} are served")
        ours = used(client, "rtml:{*") / len(times)
        peer = hashes(client, times[:HASHES], cards[:HASHES])
    if aim is None:
        return Row(what, f"{ours:.1f} B", f"{peer:.1f} B", f"{ours / peer:.2f}×")
    what = f"bytes in Redis per event, {DAYS}d, {what}; beside a hash per event"
    return at_most(what, f"{ours:.1f} B", ours / peer, aim, f"{peer:.1f} B")


def once_a_day(now: Instant) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of payments in order, and whose they are: each card's at an hour of its own."""
    hours = np.random.default_rng(6).integers(0, DAY, SPARSE_CARDS)
    times = (now - DAYS * DAY + np.arange(DAYS)[:, None] * DAY + hours).ravel()
    order = np.argsort(times, kind="stable")
    return times[order], np.tile(np.arange(SPARSE_CARDS), DAYS)[order]


def evenly(count: int) -> np.ndarray:
    """Return times in order, at random over all of the window."""
    now = instants.now()
    return np.sort(np.random.default_rng(8).integers(now - DAYS * DAY, now, count))


def used(client: Redis, pattern: str) -> int:
    """Return the bytes of all keys of a pattern."""
    total, keys = 0, list(client.scan_iter(pattern, count=CHUNK))
    for start in range(0, len(keys), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + CHUNK]:
            pipeline.memory_usage(key, samples=0)
        total += sum(pipeline.execute())
    return total


def hashes(client: Redis, times: np.ndarray, cards: np.ndarray) -> float:
    """Return the bytes of an event that is a hash of its own."""
    pipeline = client.pipeline(transaction=False)
    for number, (at, card) in enumerate(zip(times.tolist(), cards.tolist(), strict=True)):
        fields: dict[Any, Any] = {"card": f"c{card}", "at": at, "amount": f"{number % 997}.5"}
        pipeline.hset(f"payment:p{number}", mapping=fields)
    pipeline.execute()
    return used(client, "payment:*") / len(times)
