"""What each process of a flow contributes to its figures of the last minute, and the figures that these make together.

Counts add up, and samples are drawn from all. A process tells the others its samples by their quantiles, which is 101
numbers of thousands; so the figures of one process alone are exact, and those of several within one in a hundred ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from streaming.minute import FEW, KEPT, Summary

POINTS = 101
SUMMED = frozenset({"cached_entities"})
"""Of the other gauges the greatest counts."""


class Sample(msgspec.Struct, frozen=True):
    """Values in milliseconds, or as many quantiles of them as there are; `count` says of how many."""

    count: int = 0
    values: Sequence[float] = ()

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Return all values."""
        return cls(len(values), values)

    @property
    def reduced(self) -> Sample:
        """The same as quantiles, if that is less."""
        if len(self.values) <= POINTS:
            return Sample(self.count, list(self.values))
        return Sample(self.count, np.quantile(self.values, np.linspace(0, 1, POINTS)).round(4).tolist())


class Contribution(msgspec.Struct, frozen=True):
    """One process's part."""

    gauges: dict[str, float]
    waits: Sample
    """Milliseconds that events took to be servable."""
    events_per_second: float
    minute: dict[str, int]
    nulls: dict[str, int]
    hot: dict[str, Summary]
    """The most frequent keys, by entity."""
    stages: dict[str, Sample]

    def encode(self) -> bytes:
        """Return it as JSON, short."""
        stages = {name: sample.reduced for name, sample in self.stages.items()}
        return msgspec.json.encode(msgspec.structs.replace(self, waits=self.waits.reduced, stages=stages))

    @staticmethod
    def decode(text: bytes) -> Contribution:
        """Return what was encoded."""
        return msgspec.json.decode(text, type=Contribution)


def together(parts: Collection[Contribution]) -> dict[str, Any]:
    """Return the figures of a flow, by the names that they have in Redis; JSON where they are no numbers."""
    minute: Counter[str] = Counter()
    nulls: Counter[str] = Counter()
    for part in parts:
        minute.update(part.minute)
        nulls.update(part.nulls)
    accepted = minute["accepted"]
    told = {
        "minute": minute,
        "nulls": {name: round(count / accepted, 6) for name, count in nulls.items()} if accepted else {},
        "hot": _hottest(parts),
        "stages": _stages(parts),
    }
    rate = round(sum(part.events_per_second for part in parts), 1)
    shown: dict[str, Any] = {**_gauges(parts), "events_per_second": rate}
    if found := quantiles([part.waits for part in parts], 50, 99):
        shown |= {"freshness_p50_ms": round(found[0], 3), "freshness_p99_ms": round(found[1], 3)}
    return shown | {name: msgspec.json.encode(found) for name, found in told.items()}


def quantiles(samples: Collection[Sample], *percents: float) -> list[float]:
    """Return percentiles of all samples together; nothing where they are empty."""
    samples = [sample for sample in samples if sample.count]
    if not samples:
        return []
    if len(samples) == 1:
        exact: list[float] = np.percentile(samples[0].values, percents).tolist()
        return exact
    values = np.concatenate([sample.values for sample in samples])
    weights = np.concatenate([np.full(len(sample.values), sample.count / len(sample.values)) for sample in samples])
    order = np.argsort(values)
    ranks = np.cumsum(weights[order]) - weights[order] / 2
    found: list[float] = np.interp(np.array(percents) / 100 * weights.sum(), ranks, values[order]).tolist()
    return found


def _gauges(parts: Collection[Contribution]) -> dict[str, float]:
    names = {name for part in parts for name in part.gauges}
    found = {name: [part.gauges[name] for part in parts if name in part.gauges] for name in names}
    return {name: sum(values) if name in SUMMED else max(values) for name, values in found.items()}


def _hottest(parts: Collection[Contribution]) -> dict[str, Any] | None:
    """Return the entity with the greatest share, one of many before one of few; it may be too low by `error`."""
    entities = {entity for part in parts for entity in part.hot}
    merged = [Summary.of([part.hot[entity] for part in parts if entity in part.hot]) for entity in entities]
    found = [most for summary in merged if (most := summary.most)]
    if not found:
        return None
    most = max(found, key=lambda most: (most.keys >= FEW, most.events / most.total))
    share, error = round(most.events / most.total, 4), round(1 / (KEPT + 1), 4)
    return {"entity": most.key, "share": share, "error": error, "keys": most.keys}


def _stages(parts: Collection[Contribution]) -> dict[str, dict[str, float]]:
    shown = {}
    for name in dict.fromkeys(name for part in parts for name in part.stages):
        p50, p95, p99 = quantiles([part.stages[name] for part in parts if name in part.stages], 50, 95, 99)
        shown[name] = {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)}
    return shown
