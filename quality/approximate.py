"""Approximate answers: whether they are as near to the truth as is promised, since no two roads give the same.

What a sketch of percentiles says depends on coins that it tosses, and counters on the order in which they were merged.
So both roads are held against a reference over the same events: exact up to some thousand values, and beyond it far
finer than what it judges. Answers that are a matter of the events alone, distinct counts among them, must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from rtml.algebra.family import Array, Values
from rtml.algebra.frequent import ApproxTopK
from rtml.algebra.quantiles import Percentiles
from rtml.algebra.references import DISTINCT, PAIRS, SHORT, TOTAL, PercentileBounds, TopCounts
from rtml.plan import PlannedFeature


def reference(feature: PlannedFeature) -> PlannedFeature | None:
    """Return what a feature is judged by; `None` where roads must agree."""
    aggregate = feature.definition
    named = f"{feature.name}|truth"
    if isinstance(aggregate, Percentiles):
        parameters = (("k", aggregate.k), ("qs", aggregate.ranks))
        return msgspec.structs.replace(feature, name=named, aggregate=PercentileBounds.name, parameters=parameters)
    if isinstance(aggregate, ApproxTopK):
        return msgspec.structs.replace(feature, name=named, aggregate=TopCounts.name, parameters=(("k", aggregate.k),))
    return None


def judged(feature: PlannedFeature, roads: Sequence[Values], truth: Values) -> Array:
    """Return the rows in which all roads are as near to the truth as is promised."""
    aggregate = feature.definition
    if isinstance(aggregate, ApproxTopK):
        return _all([_frequent(aggregate, values, truth) for values in roads])
    low, high = truth.values[:, 0::2], truth.values[:, 1::2]
    found = [values.values if values.values.ndim > 1 else values.values[:, None] for values in roads]
    return _all([np.all((low <= values) & (values <= high), axis=1) for values in found])


def _all(roads: Sequence[Array]) -> Array:
    return np.asarray(np.logical_and.reduce(roads))


def _frequent(aggregate: ApproxTopK, got: Values, truth: Values) -> Array:
    lengths = np.zeros(len(got.values), dtype=np.int64) if got.lengths is None else got.lengths
    rows = zip(got.values.view(np.int64), lengths.tolist(), truth.values, _pairs(truth), strict=True)
    return np.array(
        [_in_order(aggregate, row[:length].tolist(), told.tolist(), pairs) for row, length, told, pairs in rows],
        dtype=bool,
    )


def _pairs(truth: Values) -> list[dict[int, int]]:
    lengths = [0] * len(truth.values) if truth.lengths is None else truth.lengths.tolist()
    pairs = [row[PAIRS:length].tolist() for row, length in zip(truth.values, lengths, strict=True)]
    return [dict(zip(row[0::2], row[1::2], strict=True)) for row in pairs]


def _in_order(aggregate: ApproxTopK, got: list[int], told: list[int], counts: dict[int, int]) -> bool:
    """Whether no value that comes later, or is left out, is more frequent by more than is promised."""
    if told[DISTINCT] <= aggregate.most and not told[SHORT]:
        return got == list(counts)[: aggregate.k]
    slack = told[TOTAL] // (aggregate.most + 1) + told[SHORT]
    whole = told[DISTINCT] == len(counts) and not told[SHORT]
    least = 0 if whole else min(counts.values(), default=0)
    given = set(got)
    missed = max((count for value, count in counts.items() if value not in given), default=0)
    ranked = [counts.get(value, least) for value in got] + [missed]
    known = len(given) == len(got) and all(ranked[:-1])
    highest = np.maximum.accumulate(ranked[::-1])[::-1]
    in_order = bool(np.all(highest[1:] <= np.array(ranked[:-1]) + slack))
    return known and in_order and (len(got) == aggregate.k or missed <= slack)
