"""What happened in the last minute: counts, times of the flow's stages, and the entity that had the most events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from rtml.instants import SECOND, Instant

RECENT = 60 * SECOND
SAMPLES = 5_000
"""The most times of a stage that are remembered."""
PART = 10 * SECOND
KEPT = 256
"""Entities that a summary remembers: a count may be too low by one in 257 of all events."""


FEW = 10
"""Of fewer keys than that none is hot: one of two has half of all by nature."""


class Most(NamedTuple):
    """The most frequent key."""

    key: str
    events: int
    total: int
    """The events of all keys."""
    keys: int
    """How many keys there are, where they are few; else at least this many."""


class Counts:
    """Counts by name, of the last minute."""

    def __init__(self) -> None:
        """Begin with none."""
        self._seconds: deque[tuple[Instant, Counter[str]]] = deque()

    def add(self, now: Instant, counts: Mapping[str, int]) -> None:
        """Count."""
        second = now // SECOND
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1].update(counts)

    def totals(self, now: Instant) -> Counter[str]:
        """Return what was counted in the minute before `now`."""
        while self._seconds and self._seconds[0][0] <= (now - RECENT) // SECOND:
            self._seconds.popleft()
        total: Counter[str] = Counter()
        for _, counts in self._seconds:
            total.update(counts)
        return total


class Times:
    """Milliseconds by stage, of the last minute."""

    def __init__(self) -> None:
        """Begin with none."""
        self._samples: dict[str, deque[tuple[Instant, float]]] = {}

    def add(self, now: Instant, stage: str, milliseconds: float) -> None:
        """Note how long a stage took."""
        self._samples.setdefault(stage, deque(maxlen=SAMPLES)).append((now, milliseconds))

    def quantiles(self, now: Instant) -> dict[str, dict[str, float]]:
        """Return p50, p95 and p99 of each stage that took any time in the minute before `now`."""
        found = {}
        for stage, samples in self._samples.items():
            while samples and samples[0][0] <= now - RECENT:
                samples.popleft()
            if samples:
                p50, p95, p99 = np.percentile([took for _, took in samples], (50, 95, 99)).tolist()
                found[stage] = {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)}
        return found


class Frequent:
    """The most frequent keys of the last minute, in a bounded space: mergeable Misra-Gries summaries of ten seconds.

    A count is never too high, and too low by at most one in `KEPT + 1` of all events (Agarwal et al., Mergeable
    Summaries, 2012).
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: deque[tuple[Instant, dict[str, int], int, int]] = deque()

    def add(self, now: Instant, rows: Mapping[str, Collection[object]]) -> None:
        """Count how many rows each key has."""
        part = now // PART
        total = sum(map(len, rows.values()))
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append((part, {}, 0, 0))
        _, kept, counted, keys = self._parts[-1]
        kept = _merged(kept, {key: len(found) for key, found in rows.items()})
        # Where there are too many to be kept, some are forgotten: so the most that there ever were.
        self._parts[-1] = (part, kept, counted + total, max(keys, len(kept), len(rows)))

    def most(self, now: Instant) -> Most | None:
        """Return the most frequent key of about the minute before `now`."""
        while self._parts and self._parts[0][0] <= (now - RECENT) // PART:
            self._parts.popleft()
        merged: dict[str, int] = {}
        for _, kept, _, _ in self._parts:
            merged = _merged(merged, kept)
        if not merged:
            return None
        key = max(merged, key=merged.__getitem__)
        total, keys = sum(part[2] for part in self._parts), max(part[3] for part in self._parts)
        return Most(key, merged[key], total, max(keys, len(merged)))


def _merged(kept: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    merged = {**more, **{key: count + more.get(key, 0) for key, count in kept.items()}}
    if len(merged) <= KEPT:
        return merged
    counts = np.fromiter(merged.values(), dtype=np.int64, count=len(merged))
    least = int(np.partition(counts, len(counts) - KEPT - 1)[len(counts) - KEPT - 1])
    keys = list(merged)
    above = islice(np.flatnonzero(counts > least).tolist(), KEPT)
    return {keys[place]: int(counts[place]) - least for place in above}
