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

from rtml import instants
from rtml.instants import SECOND, Instant
from rtml.online import keys
from streaming.contribution import Contribution, Sample, together
from streaming.minute import RECENT, Counts, Frequent, Times
from streaming.place import ALONE, Place

if TYPE_CHECKING:
    from redis import Redis

    from streaming.route import Routed
    from streaming.tracing import MicroBatchTraces

SAMPLES = 20_000
WRITE_EVERY = 1.0
"""Seconds."""
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
        self,
        source: str,
        flow: str,
        now: Callable[[], Instant] = instants.now,
        traces: MicroBatchTraces | None = None,
        place: Place = ALONE,
    ) -> None:
        """Start at nothing; what was counted before this run is in Redis and is added to; `traces` hears of stages."""
        self._traces = traces
        self._place = place
        self._key, self._parts = keys.figures(source, flow), keys.figure_parts(source, flow)
        self._due = 0.0
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

    @property
    def is_again(self) -> bool:
        """Whether some partition's past is read again."""
        return bool(self._again)

    def reads_again(self, partition: int) -> None:
        """Say that a partition's past is read again from now on: it comes years late, and all of it is known."""
        self._again.add(partition)

    def reads_on(self, partition: int) -> None:
        """Say that a partition is where it was before, and all that was read again is written."""
        self._again.discard(partition)

    def recent(self, **counts: int) -> None:
        """Add to the counts of the last minute."""
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
        self._under_way.extend(arrived)

    def servable(self, now: Instant) -> None:
        """Say that all events that were on their way are servable (or durable) now."""
        if self._under_way:
            self._freshness.extend((now, (now - instant) / 1_000) for instant in self._under_way)
            self._events.append((now, len(self._under_way)))
            self._under_way.clear()

    def write_when_due(self, client: Redis) -> None:
        """Write, unless that was done within the last second."""
        if time.monotonic() > self._due:
            self.write(client)
            self._due = time.monotonic() + WRITE_EVERY

    def write(self, client: Redis) -> None:
        """Add to what Redis has; of several processes each adds its counts, and the first one shows what they tell."""
        now = self._now()
        self._forget(now - RECENT)
        pipeline = client.pipeline(transaction=False)
        for name, count in self._counts.items():
            pipeline.hincrby(self._key, name, count)
        part = self._part(now)
        if self._place.count > 1:
            pipeline.hset(self._parts, str(self._place.process), part.encode())
        if self._place.leads:
            self._show(client, pipeline, part, now)
        pipeline.execute()
        self._counts.clear()

    def _show(self, client: Redis, pipeline: Any, part: Contribution, now: Instant) -> None:
        shown = together([part, *self._others(client)])
        # What was true of a busy minute is not of the quiet one after it.
        if gone := FRESHNESS - shown.keys():
            pipeline.hdel(self._key, *gone)
        state_bytes = client.info("memory").get("used_memory_dataset", 0)
        pipeline.hset(self._key, mapping={**shown, "state_bytes": state_bytes, "updated_at": now})

    def _others(self, client: Redis) -> list[Contribution]:
        """Return what the other processes last told."""
        if self._place.count == 1:
            return []
        others = [str(process) for process in range(self._place.count) if process != self._place.process]
        found: list[Any] = client.hmget(self._parts, others)
        return [Contribution.decode(text) for text in found if text is not None]

    def _part(self, now: Instant) -> Contribution:
        since = max((now - self._events[0][0]) / SECOND, 1.0) if self._events else 1.0
        return Contribution(
            gauges=dict(self._gauges),
            waits=Sample.of([wait for _, wait in self._freshness]),
            events_per_second=sum(count for _, count in self._events) / since if self._freshness else 0.0,
            minute=self._minute.totals(now),
            nulls=self._nulls.totals(now),
            hot={entity: frequent.summary(now) for entity, frequent in self._entities.items()},
            stages={name: Sample.of(took) for name, took in self._stages.samples(now).items()},
        )

    def _forget(self, before: Instant) -> None:
        while self._freshness and self._freshness[0][0] < before:
            self._freshness.popleft()
        while self._events and self._events[0][0] < before:
            self._events.popleft()
