"""Events per second of one tiles worker, beside a naive consumer: one pipelined `HSET` of three fields an event."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import SOURCE, append, online_store, reached, tiles_flow, wait_for_position, zipf
from benchmarks.rows import Row, more
from benchmarks.sampled import read, sampling, table
from benchmarks.shared import Shared

if TYPE_CHECKING:
    from redis import Redis

EVENTS, KEYS, SKEW = 500_000, 100_000, 1.2
WARM_UP = 100_000
BATCH = 4_096
AIMS = {f"{KEYS:,} uniform keys": 0.6, f"{KEYS:,} keys, Zipf {SKEW}": 1.5, "one key": 2.0}


def run(shared: Shared) -> list[Row]:
    """Measure each distribution of keys on a Redis of its own."""
    rng = np.random.default_rng(1)
    keys = [rng.integers(0, KEYS, EVENTS), zipf(rng, EVENTS, KEYS, SKEW), np.zeros(EVENTS, dtype=np.int64)]
    rows = []
    for (what, aim), cards in zip(AIMS.items(), keys, strict=True):
        with online_store() as (client, settings):
            name = f"throughput, {what}"
            samples = shared.samples(name)
            with tiles_flow(settings, samples=samples):
                drained = drain(client, cards)
                if samples is not None:
                    with sampling(samples):
                        again = drain(client, cards)
                    profile = read(samples)
                    shared.profiles.append((name, table(profile, again * profile.seconds, "event")))
            rows.append(more(f"events of one tiles worker, {what}", "/s", drained, naive(client, len(cards)), aim))
    return rows


def drain(client: Redis, cards: np.ndarray) -> float:
    """Fill the stream while the flow reads it, then time the rest: events a second over whole epochs.

    The first events are a warm-up. The position moves at the end of an epoch: the rate is between the first move behind
    the warm-up and the last one before the end, so that no part of an epoch counts in which there was nothing to do.
    """
    orders = append(client, cards)
    wait_for_position(client, int(orders[WARM_UP]), 120)
    moves = [(time.perf_counter(), reached(client))]
    deadline = moves[0][0] + 300
    while moves[-1][1] < orders[-1]:
        if time.perf_counter() > deadline:
            raise TimeoutError("the tiles flow did not reach the end within 300 s")
        time.sleep(0.002)
        if (position := reached(client)) != moves[-1][1]:
            moves.append((time.perf_counter(), position))
    whole = moves[:-1] if len(moves) > 2 else moves
    (started, first), (ended, last) = whole[0], whole[-1]
    return float(np.searchsorted(orders, last) - np.searchsorted(orders, first)) / (ended - started)


def naive(client: Redis, count: int) -> float:
    """Read the same stream, and write the last value of three fields for each event."""
    offset, done, started = b"0-0", 0, time.perf_counter()
    found: Any
    while done < count:
        found = client.xread({SOURCE: offset}, count=BATCH)
        entries = found[0][1]
        pipeline = client.pipeline(transaction=False)
        for _, fields in entries:
            event = json.loads(fields[b"data"])
            pipeline.hset(f"naive:{event['card']}", mapping={"at": event["at"], "amount": event["amount"], "n": 1})
        pipeline.execute()
        offset, done = entries[-1][0], done + len(entries)
    return done / (time.perf_counter() - started)
