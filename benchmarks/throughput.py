"""Events per second of one tiles worker, beside a naive consumer: one pipelined `HSET` of three fields an event."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import SOURCE, fill, last_entry, online_store, tiles_flow, wait_for_position
from rtml.online import keys
from streaming.positions import read_positions

if TYPE_CHECKING:
    from redis import Redis

EVENTS, KEYS = 600_000, 100_000
WARM_UP = 100_000
BATCH = 4_096


def ours(client: Redis, cards: np.ndarray) -> float:
    """Drain the stream by the tiles flow: events per second, position to position, behind a warm-up."""
    fill(client, cards[:WARM_UP])
    middle = last_entry(client)
    fill(client, cards[WARM_UP:])
    wait_for_position(client, middle, 120)
    reached, started = _events_before_position(client), time.perf_counter()
    wait_for_position(client, last_entry(client), 300)
    return (len(cards) - reached) / (time.perf_counter() - started)


def _events_before_position(client: Redis) -> int:
    """Return how many entries the flow has covered."""
    offset = read_positions(client, keys.position(SOURCE), 1)[0].offset
    before, start = 0, "-"
    while True:
        entries: Any = client.xrange(SOURCE, start, offset, count=50_000)
        if not entries:
            return before
        before += len(entries)
        start = f"({entries[-1][0].decode()}"


def naive(client: Redis, cards: np.ndarray) -> float:
    """Read the same stream, and write the last value of three fields for each event."""
    offset, done, started = b"0-0", 0, time.perf_counter()
    found: Any
    while done < len(cards):
        found = client.xread({SOURCE: offset}, count=BATCH)
        entries = found[0][1]
        pipeline = client.pipeline(transaction=False)
        for _, fields in entries:
            event = json.loads(fields[b"data"])
            pipeline.hset(f"naive:{event['card']}", mapping={"at": event["at"], "amount": event["amount"], "n": 1})
        pipeline.execute()
        offset, done = entries[-1][0], done + len(entries)
    return done / (time.perf_counter() - started)


def run() -> list[tuple[str, str]]:
    """Return rows to print: what, figure."""
    cards = np.random.default_rng(1).integers(0, KEYS, EVENTS)
    with online_store() as (client, settings):
        with tiles_flow(settings):
            drained = ours(client, cards)
        simple = naive(client, cards)
    return [
        (f"one tiles worker, {KEYS:,} uniform keys, {EVENTS:,} events", f"{drained:,.0f} events/s"),
        ("naive pipelined HSET of the same stream", f"{simple:,.0f} events/s"),
        ("ratio (aim: 50,000 events/s)", f"{drained / simple:.2f}×"),
    ]
