"""A flow's own figures, kept in Redis for whoever shows them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rtml.instants import SECOND, Instant
from rtml.online import keys

if TYPE_CHECKING:
    from redis import Redis

RECENT = 60 * SECOND
SAMPLES = 20_000


class Figures:
    """Counters since the beginning, freshness and rate over the last minute, and the bytes that Redis holds in all.

    A replay counts again: counters say what a flow did, not what there is.
    """

    def __init__(self, source: str, flow: str) -> None:
        """Start at nothing; what was counted before this run is in Redis and is added to."""
        self._key = keys.figures(source, flow)
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, float] = {}
        self._freshness: deque[tuple[Instant, float]] = deque(maxlen=SAMPLES)
        self._under_way: list[Instant] = []
        self._events: deque[tuple[Instant, int]] = deque()

    def count(self, **counts: int) -> None:
        """Add to counters."""
        self._counts.update(counts)

    def gauge(self, **values: float) -> None:
        """Set figures that are not counted."""
        self._gauges.update(values)

    def sent(self, arrived: Iterable[Instant]) -> None:
        """Note events that are on their way, by when the broker took them."""
        self._under_way.extend(arrived)

    def servable(self, now: Instant) -> None:
        """Say that all events that were on their way are servable (or durable) now."""
        if self._under_way:
            self._freshness.extend((now, (now - instant) / 1_000) for instant in self._under_way)
            self._events.append((now, len(self._under_way)))
            self._under_way.clear()

    def write(self, client: Redis) -> None:
        """Add to what Redis has."""
        now = time.time_ns() // 1_000
        self._forget(now - RECENT)
        pipeline = client.pipeline(transaction=False)
        for name, count in self._counts.items():
            pipeline.hincrby(self._key, name, count)
        state_bytes = client.info("memory").get("used_memory_dataset", 0)
        shown: dict[Any, Any] = {**self._gauges, **self._recent(now), "state_bytes": state_bytes, "updated_at": now}
        pipeline.hset(self._key, mapping=shown)
        pipeline.execute()
        self._counts.clear()

    def _recent(self, now: Instant) -> dict[str, float]:
        if not self._freshness:
            return {"events_per_second": 0.0}
        waits = np.array([wait for _, wait in self._freshness])
        since = max((now - self._events[0][0]) / SECOND, 1.0)
        p50, p99 = np.percentile(waits, (50, 99))
        rate = sum(count for _, count in self._events) / since
        return {
            "freshness_p50_ms": round(float(p50), 3),
            "freshness_p99_ms": round(float(p99), 3),
            "events_per_second": round(rate, 1),
        }

    def _forget(self, before: Instant) -> None:
        while self._freshness and self._freshness[0][0] < before:
            self._freshness.popleft()
        while self._events and self._events[0][0] < before:
            self._events.popleft()
