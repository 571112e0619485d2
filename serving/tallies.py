"""Counters and histograms for one thread: what a request adds to on its way, at a tenth of what a lock costs each time.

Prometheus' client locks at every step, since any thread may count; all of a request is counted by the loop's own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally:
    """A number that grows, or goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Start from zero."""
        self.value = 0

    def inc(self, more: int = 1) -> None:
        """Add."""
        self.value += more

    def dec(self) -> None:
        """Take one away."""
        self.value -= 1


class Distribution:
    """How many values lie between the bounds of buckets, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start with none; the last bucket has no upper bound."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Child = TypeVar("Child", Tally, Distribution)


class _Labelled(Collector, Generic[Child]):
    """The children of one metric, by the values of its labels."""

    def __init__(self, name: str, words: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name, self.words, self.names = name, words, labels
        self.children: dict[tuple[str, ...], Child] = {}
        registry.register(self)

    def labels(self, *values: str) -> Child:
        """Return the child of these values."""
        child = self.children.get(values)
        if child is None:
            child = self.children[values] = self.new()
        return child

    def new(self) -> Child:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        return list(self.collect())


class Tallies(_Labelled[Tally]):
    """A counter with labels."""

    def new(self) -> Tally:
        """Return a child."""
        return Tally()

    def collect(self) -> Iterator[Metric]:
        """Return what was counted."""
        family = CounterMetricFamily(self.name, self.words, labels=self.names)
        for values, child in list(self.children.items()):
            family.add_metric(values, child.value)
        yield family


class Distributions(_Labelled[Distribution]):
    """A histogram with labels."""

    def __init__(
        self, name: str, words: str, labels: Sequence[str], buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """Take the buckets' upper bounds."""
        self.buckets = buckets
        super().__init__(name, words, labels, registry)

    def new(self) -> Distribution:
        """Return a child."""
        return Distribution(self.buckets)

    def collect(self) -> Iterator[Metric]:
        """Return what was counted, each bucket with all below it."""
        family = HistogramMetricFamily(self.name, self.words, labels=self.names)
        bounds = [*map(str, self.buckets), "+Inf"]
        for values, child in list(self.children.items()):
            below = list(zip(bounds, accumulate(child.counts), strict=True))
            family.add_metric(values, below, child.total)
        yield family
