"""A month of payments: what the offline benchmarks compute, and events and instants for it."""

from __future__ import annotations

import numpy as np
import polars as pl

import rtml
from rtml import Count, Entity, EventSource, First, Last, Max, Mean, Min, RedisStream, Stddev, StreamFeatureView, Sum
from rtml.compile import compile_view
from rtml.instants import DAY, SECOND
from rtml.projection import project

START = 1_767_225_600 * SECOND
"""The first instant: 2026-01-01."""
KEYS, SKEW = 100_000, 1.1
WINDOWS = ["1h", "24h", "7d"]
LAST_INSTANT = 2**63 - 1


class CardPayment(rtml.Event):
    payment_id: str
    at: rtml.Timestamp
    card: int
    amount: float = rtml.Field(ge=0)


card_payments = EventSource(
    name="card_payments", schema=CardPayment, timestamp="at", event_id="payment_id", stream=RedisStream("card_payments")
)
card = Entity("card")
moments = StreamFeatureView(
    name="moments",
    source=card_payments,
    entity=card,
    features=[
        Count(windows=WINDOWS),
        Sum("amount", windows=WINDOWS),
        Mean("amount", windows=WINDOWS),
        Stddev("amount", windows=WINDOWS),
    ],
    tail="exact",
)
ends = StreamFeatureView(
    name="ends",
    source=card_payments,
    entity=card,
    features=[
        Min("amount", windows=WINDOWS),
        Max("amount", windows=WINDOWS),
        First("amount", windows=WINDOWS),
        Last("amount", windows=WINDOWS),
    ],
    tail="exact",
)
tiled = StreamFeatureView(
    name="tiled",
    source=card_payments,
    entity=card,
    features=[
        Count(windows=["1h", "24h"]),
        Sum("amount", windows=["1h", "24h"]),
        Mean("amount", windows=["1h", "24h"]),
        Min("amount", windows=["1h", "24h"]),
        Max("amount", windows=["1h", "24h"]),
        Stddev("amount", windows=["1h", "24h"]),
    ],
)


def events(count: int, keys: int, days: int) -> pl.DataFrame:
    """Return payments as `events/` keeps them, by time: Zipf keys, even times, delays below two seconds."""
    rng = np.random.default_rng(1)
    times = START + rng.integers(0, days * DAY, count)
    frame = pl.DataFrame(
        {
            "card": _zipf(rng, count, keys),
            "at": times,
            "ingested_at": times + rng.integers(0, 2 * SECOND, count),
            "id64": rng.integers(0, 2**64, count, dtype=np.uint64),
            "amount": rng.gamma(2.0, 30.0, count),
        }
    )
    return frame.sort("at", "id64").with_columns(pl.col("at", "ingested_at").cast(pl.Datetime("us", "UTC")))


def known_events(view: StreamFeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what the point-in-time engine takes."""
    projected = project(view, compile_view(view), rows.lazy())
    return projected.rename({"ingested_at": "known_at"}).with_columns(late=pl.lit(False)).collect()


def with_late(rows: pl.DataFrame, share: float, delay: int) -> pl.DataFrame:
    """Make a share of events late, which become known a delay (µs) after their event time; of each n-th one."""
    late = pl.int_range(pl.len()) % round(1 / share) == 0
    known = pl.when(late).then(pl.col("event_time") + delay).otherwise("known_at")
    return rows.with_columns(known_at=known, late=late)


def spine(count: int, keys: int, days: int, *, hindsight: bool) -> pl.DataFrame:
    """Return rows of the same keys at even times, which know what had come by then, or all."""
    rng = np.random.default_rng(2)
    at = START + rng.integers(0, days * DAY, count)
    seen = np.full(count, LAST_INSTANT) if hindsight else at
    return pl.DataFrame({"card": _zipf(rng, count, keys), "at": at, "seen": seen, "seen_late": seen})


def _zipf(rng: np.random.Generator, count: int, keys: int) -> np.ndarray:
    """Return keys of which the n-th most frequent has a share of `n ** -SKEW`."""
    shares = np.cumsum(np.arange(1, keys + 1) ** -SKEW)
    ranks = np.searchsorted(shares, rng.random(count) * shares[-1])
    return np.asarray(np.random.default_rng(0).permutation(keys)[ranks])
