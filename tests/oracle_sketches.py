"""The brute-force truth of sets, ranks and frequencies, and how far an approximate answer may be from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import xxhash

from rtml.algebra import catalog
from rtml.algebra.binned import Histogram
from rtml.algebra.distinct import CountDistinct
from rtml.algebra.family import Aggregate, Parameters
from rtml.algebra.frequent import ApproxTopK
from rtml.algebra.quantiles import SURE, ApproxPercentile, ApproxPercentiles, Percentiles
from rtml.algebra.uniques import ApproxCountDistinct

SIX_SIGMA = 6


def knows(name: str) -> bool:
    """Whether an aggregate is one of these."""
    return catalog.AGGREGATES[name] in _TRUTHS


def value(name: str, values: Sequence[Any], parameters: Parameters = ()) -> Any:
    """The exact value."""
    aggregate = catalog.aggregate(name, parameters)
    return _TRUTHS[type(aggregate)](aggregate, values)


def agree(name: str, got: Any, values: Sequence[Any], parameters: Parameters = ()) -> bool:
    """Whether an answer is the exact value, or as near to it as is promised of so many values."""
    aggregate = catalog.aggregate(name, parameters)
    exact = _TRUTHS[type(aggregate)](aggregate, values)
    if got == exact or got is None:
        return bool(got == exact)
    if isinstance(aggregate, ApproxCountDistinct):
        few = 2**aggregate.lg_k // 16
        return exact > few and abs(got - exact) <= SIX_SIGMA * 1.04 / math.sqrt(2**aggregate.lg_k) * exact
    if isinstance(aggregate, Percentiles) and len(values) > aggregate.k:
        found = got if isinstance(got, list) else [got]
        return all(_near(aggregate, v, q, values) for v, q in zip(found, aggregate.ranks, strict=True))
    return isinstance(aggregate, ApproxTopK) and _frequent(aggregate, got, values)


def _near(aggregate: Percentiles, found: float, q: float, values: Sequence[Any]) -> bool:
    """Whether the ranks that a value has among others come near one."""
    slack = SURE * aggregate.rank_error + 1 / len(values)
    below = sum(float(value) < found for value in values) / len(values)
    up_to = sum(float(value) <= found for value in values) / len(values)
    return below - slack <= q <= up_to + slack and found in map(float, values)


def _frequent(aggregate: ApproxTopK, got: list[Any], values: Sequence[Any]) -> bool:
    """Whether none that comes later, or not at all, is more frequent by more than is promised."""
    counts = Counter(values)
    if len(counts) <= aggregate.most or len(set(got)) != len(got) or len(got) > aggregate.k:
        return False
    short = len(values) // (aggregate.most + 1)
    left = [count for value, count in counts.items() if value not in set(got)]
    ranked = [*(counts[value] for value in got), max(left)]
    if len(got) < aggregate.k and max(left) > short:
        return False
    return all(ranked[j] <= ranked[i] + short for i in range(len(got)) for j in range(i + 1, len(ranked)))


def _percentile(values: Sequence[Any], q: float) -> float:
    ordered = sorted(map(float, values))
    return ordered[max(math.ceil(Fraction(repr(float(q))) * len(ordered)), 1) - 1]


def _count_distinct(aggregate: Any, values: Sequence[Any]) -> int:
    return min(len(set(values)), aggregate.most)


def _distinct(aggregate: Any, values: Sequence[Any]) -> int:
    del aggregate
    return len(set(values))


def _one(aggregate: Any, values: Sequence[Any]) -> float | None:
    return _percentile(values, aggregate.q) if values else None


def _several(aggregate: Any, values: Sequence[Any]) -> list[float] | None:
    return [_percentile(values, q) for q in aggregate.qs] if values else None


def _top(aggregate: Any, values: Sequence[Any]) -> list[Any]:
    counts = Counter(values)
    # Of strings that are equally frequent, the one with the lesser hash.
    order = {one: xxhash.xxh64_intdigest(one.encode()) if isinstance(one, str) else one for one in counts}
    return sorted(counts, key=lambda value: (-counts[value], order[value]))[: aggregate.k]


def _bins(aggregate: Any, values: Sequence[Any]) -> list[int]:
    edges = [-math.inf, *aggregate.edges, math.inf]
    return [sum(low <= float(value) < high for value in values) for low, high in pairwise(edges)]


_TRUTHS: dict[type[Aggregate], Callable[[Any, Sequence[Any]], Any]] = {
    CountDistinct: _count_distinct,
    ApproxCountDistinct: _distinct,
    ApproxPercentile: _one,
    ApproxPercentiles: _several,
    ApproxTopK: _top,
    Histogram: _bins,
}
