"""How many served values are null, by feature: counted in a sample of the answers."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from prometheus_client import CollectorRegistry, Counter

from rtml.instants import BEGINNING
from rtml.staleness import REPLACED
from serving.features import FeatureVectors

EVERY_SECONDS = 0.02
"""At most one answer in so long is looked at, and of it the first rows."""
MOST_ROWS = 20


class ValueTally:
    """Values and nulls by feature, of entities that are known: a window of a new entity is empty, not null.

    What was given instead of a value that was too old is no value of the feature.
    """

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
        counted = {view: _counted(vectors, view) for view in vectors.status}
        for place, column in enumerate(vectors.features):
            view, values, nulls = self._child(column)
            known = [row[place] for row, counts in zip(rows, counted[view], strict=False) if counts]
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


def _counted(vectors: FeatureVectors, view: str) -> list[bool]:
    """Return which of the first rows count: under these statuses an entity of which the stream has brought nothing may
    be one that was never seen."""
    statuses, instead = vectors.status[view][:MOST_ROWS], REPLACED[vectors.on_stale]
    seen = vectors.last_ingested.get(view, ())
    return [
        status != "missing" and status not in instead and not (status in ("stale", "partial") and newest == BEGINNING)
        for status, newest in zip(statuses, seen, strict=False)
    ]
