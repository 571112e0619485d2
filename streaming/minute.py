"""What happened in the last minute: counts, times of the flow's stages, and the entity that had the most events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

import msgspec
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

    def samples(self, now: Instant) -> dict[str, list[float]]:
        """Return what each stage took that took any time in the minute before `now`."""
        found = {}
        for stage, samples in self._samples.items():
            while samples and samples[0][0] <= now - RECENT:
                samples.popleft()
            if samples:
                found[stage] = [took for _, took in samples]
        return found


class Summary(msgspec.Struct, frozen=True):
    """A summary of which keys were the most frequent."""

    kept: dict[str, int]
    total: int
    """The events of all keys."""
    keys: int

    @classmethod
    def of(cls, summaries: Iterable[Summary]) -> Summary:
        """Return one of all that these are of."""
        merged: dict[str, int] = {}
        total = keys = 0
        for summary in summaries:
            merged = _merged(merged, summary.kept)
            total, keys = total + summary.total, max(keys, summary.keys)
        return cls(merged, total, max(keys, len(merged)))

    @property
    def most(self) -> Most | None:
        """The most frequent key."""
        if not self.kept:
            return None
        key = max(self.kept, key=self.kept.__getitem__)
        return Most(key, self.kept[key], self.total, self.keys)


class Frequent:
    """The most frequent keys of the last minute, in a bounded space: mergeable Misra-Gries summaries of ten seconds.

    A count is never too high, and too low by at most one in `KEPT + 1` of all events (Agarwal et al., Mergeable
    Summaries, 2012).
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: deque[tuple[Instant, Summary]] = deque()

    def add(self, now: Instant, rows: Mapping[str, Collection[object]]) -> None:
        """Count how many rows each key has."""
        part = now // PART
        total = sum(map(len, rows.values()))
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append((part, Summary({}, 0, 0)))
        # Where there are too many to be kept, some are forgotten: so the most that there ever were.
        batch = Summary({key: len(found) for key, found in rows.items()}, total, len(rows))
        self._parts[-1] = (part, Summary.of([self._parts[-1][1], batch]))

    def summary(self, now: Instant) -> Summary:
        """Return a summary of about the minute before `now`."""
        while self._parts and self._parts[0][0] <= (now - RECENT) // PART:
            self._parts.popleft()
        return Summary.of(summary for _, summary in self._parts)


def _merged(kept: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    merged = {**more, **{key: count + more.get(key, 0) for key, count in kept.items()}}
    if len(merged) <= KEPT:
        return merged
    counts = np.fromiter(merged.values(), dtype=np.int64, count=len(merged))
    least = int(np.partition(counts, len(counts) - KEPT - 1)[len(counts) - KEPT - 1])
    keys = list(merged)
    above = islice(np.flatnonzero(counts > least).tolist(), KEPT)
    return {keys[place]: int(counts[place]) - least for place in above}
