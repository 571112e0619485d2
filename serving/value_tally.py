"""How many served values are null, by feature: counted in a sample of the answers."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from prometheus_client import CollectorRegistry, Counter

from serving.features import FeatureVectors

EVERY_SECONDS = 0.02
"""At most one answer in so long is looked at, and of it the first rows."""
MOST_ROWS = 20


class ValueTally:
    """Values and nulls by feature, of entities that are known: a window of a new entity is empty, not null."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = monotonic) -> None:
        """Start from zero."""
        labels = ["view", "feature"]
        self._values = Counter("rtml_feature_values", "Served values, of a sample", labels, registry=registry)
        self._nulls = Counter("rtml_feature_nulls", "Of them, those that were null", labels, registry=registry)
        self._children: dict[str, tuple[str, Counter, Counter]] = {}
        self._clock = clock
        self._next = float("-inf")

    def take(self, vectors: FeatureVectors) -> None:
        """Count the values of some rows, unless that was just done."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        rows = vectors.rows[:MOST_ROWS]
        for place, column in enumerate(vectors.features):
            view, values, nulls = self._child(column)
            known = [row[place] for row, status in zip(rows, vectors.status[view], strict=False) if status != "missing"]
            if known:
                values.inc(len(known))
                nulls.inc(known.count(None))

    def _child(self, column: str) -> tuple[str, Counter, Counter]:
        child = self._children.get(column)
        if child is None:
            view, _, feature = column.partition("__")
            child = self._children[column] = (
                view,
                self._values.labels(view, feature),
                self._nulls.labels(view, feature),
            )
        return child
