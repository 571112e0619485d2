"""A flow's own figures, kept in Redis for whoever shows them.

The fields of the hash `keys.figures(source, flow)`: counters since the beginning (`accepted`, `late`, `duplicates`,
`refused`, `future`, `conflicting`, `fenced`, `damaged`, `cache_hits`, `cache_misses`); `freshness_p50_ms`,
`freshness_p99_ms` and `events_per_second` of the last minute; `lag_ms`, `state_bytes`, `cached_entities`,
`last_event_at`, `updated_at`; and as JSON, of the last minute, `minute` (counts by kind), `nulls` (share by column),
`hot` (the most frequent entity) and `stages` (p50, p95, p99 in milliseconds).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sized
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from rtml import instants
from rtml.instants import SECOND, Instant
from rtml.online import keys
from streaming.minute import FEW, KEPT, RECENT, Counts, Frequent, Times

if TYPE_CHECKING:
    from redis import Redis

    from streaming.route import Routed
    from streaming.tracing import MicroBatchTraces

SAMPLES = 20_000
FRESHNESS = frozenset({"freshness_p50_ms", "freshness_p99_ms"})
BY_KIND = ("accepted", "late", "refused", "future", "duplicates")
"""What is counted of the last minute, too."""

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")


class Figures:
    """Counters since the beginning, figures of the last minute, and the bytes that Redis holds in all.

    A replay counts again: counters say what a flow did, not what there is. The figures of the last minute say how the
    stream is, so what is read again is no part of them.
    """

    def __init__(
        self, source: str, flow: str, now: Callable[[], Instant] = instants.now, traces: MicroBatchTraces | None = None
    ) -> None:
        """Start at nothing; what was counted before this run is in Redis and is added to; `traces` hears of stages."""
        self._traces = traces
        self._key = keys.figures(source, flow)
        self._now = now
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, float] = {}
        self._freshness: deque[tuple[Instant, float]] = deque(maxlen=SAMPLES)
        self._under_way: list[Instant] = []
        self._events: deque[tuple[Instant, int]] = deque()
        self._minute, self._nulls = Counts(), Counts()
        self._stages = Times()
        self._entities: dict[str, Frequent] = {}
        self._again: set[int] = set()

    def count(self, **counts: int) -> None:
        """Add to counters."""
        self._counts.update(counts)

    def gauge(self, **values: float) -> None:
        """Set figures that are not counted."""
        self._gauges.update(values)

    def reads_again(self, partition: int) -> None:
        """Say that a partition's past is read again from now on: it comes years late, and all of it is known."""
        self._again.add(partition)

    def reads_on(self, partition: int) -> None:
        """Say that a partition is where it was before, and all that was read again is written."""
        self._again.discard(partition)

    def recent(self, **counts: int) -> None:
        """Add to the counts of the last minute."""
        if not self._again:
            self._minute.add(self._now(), counts)

    def stage(self, name: str, seconds: float, events: int = 0) -> None:
        """Note how long a stage took for a micro-batch."""
        self._stages.add(self._now(), name, seconds * 1_000)
        if self._traces is not None:
            self._traces.note(name, seconds, events)

    def timed(self, name: str, step: Callable[[In], Out]) -> Callable[[In], Out]:
        """Return a step that notes how long it takes, but for what has no events."""

        def timed(batch: In) -> Out:
            started = time.perf_counter()
            result = step(batch)
            if len(batch):
                self.stage(name, time.perf_counter() - started, len(batch))
            return result

        return timed

    def seen(self, routed: Routed) -> None:
        """Note, of the last minute, what came by: events by kind, nulls by column, and the entities of each kind."""
        if self._again:
            return
        now = self._now()
        self._minute.add(now, {name: routed.counts[name] for name in BY_KIND if name in routed.counts})
        self._nulls.add(now, routed.nulls)
        batch = routed.micro_batch
        done: set[str] = set()
        for number, view in enumerate(batch.views):
            entity = view.plan.entity
            if entity in done:
                continue
            done.add(entity)
            self._entities.setdefault(entity, Frequent()).add(now, batch.of_entities(number))

    def sent(self, arrived: Iterable[Instant]) -> None:
        """Note events that are on their way, by when the broker took them."""
        if not self._again:
            self._under_way.extend(arrived)

    def servable(self, now: Instant) -> None:
        """Say that all events that were on their way are servable (or durable) now."""
        if self._under_way:
            self._freshness.extend((now, (now - instant) / 1_000) for instant in self._under_way)
            self._events.append((now, len(self._under_way)))
            self._under_way.clear()

    def write(self, client: Redis) -> None:
        """Add to what Redis has."""
        now = self._now()
        self._forget(now - RECENT)
        pipeline = client.pipeline(transaction=False)
        for name, count in self._counts.items():
            pipeline.hincrby(self._key, name, count)
        state_bytes = client.info("memory").get("used_memory_dataset", 0)
        minute = {name: msgspec.json.encode(found) for name, found in self._last_minute(now).items()}
        shown: dict[Any, Any] = {**self._gauges, **self._recent(now), **minute}
        # What was true of a busy minute is not of the quiet one after it.
        if gone := FRESHNESS - shown.keys():
            pipeline.hdel(self._key, *gone)
        pipeline.hset(self._key, mapping={**shown, "state_bytes": state_bytes, "updated_at": now})
        pipeline.execute()
        self._counts.clear()

    def _last_minute(self, now: Instant) -> dict[str, Any]:
        counts, nulls = self._minute.totals(now), self._nulls.totals(now)
        accepted = counts["accepted"]
        return {
            "minute": counts,
            "nulls": {name: round(count / accepted, 6) for name, count in nulls.items()} if accepted else {},
            "hot": self._hottest(now),
            "stages": self._stages.quantiles(now),
        }

    def _hottest(self, now: Instant) -> dict[str, Any] | None:
        """Return the entity with the greatest share, one of many before one of few; it may be too low by `error`."""
        found = [most for frequent in self._entities.values() if (most := frequent.most(now))]
        if not found:
            return None
        most = max(found, key=lambda most: (most.keys >= FEW, most.events / most.total))
        share, error = round(most.events / most.total, 4), round(1 / (KEPT + 1), 4)
        return {"entity": most.key, "share": share, "error": error, "keys": most.keys}

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
