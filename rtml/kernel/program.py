"""What the compiled merge must know of a plan: where its states and records have what, and what its features are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rtml.algebra.counting import Count, Rows, Tally
from rtml.algebra.extremes import Greatest, Least, Max, Min
from rtml.algebra.family import Aggregate, Family
from rtml.algebra.moments import Mean, Spread, Stddev, Sum, Total, Variance
from rtml.algebra.rates import Rate, Share, SumRate
from rtml.algebra.recent import Earliest, First, Last, Latest, Recent
from rtml.online.codec import Records
from rtml.plan import Plan

if TYPE_CHECKING:
    from rtml.kernel._merge import Merger

# The numbers of `_merge.c`.
_FLOAT: dict[type[Family], int] = {Rows: 0, Total: 1, Spread: 3, Least: 4, Greatest: 6, Earliest: 8, Latest: 9}
_INTEGER: dict[type[Family], int] = _FLOAT | {Total: 2, Least: 5, Greatest: 7}
_FEATURES: dict[type[Aggregate], int] = {
    Count: 0,
    Rate: 1,
    Sum: 2,
    SumRate: 3,
    Mean: 4,
    Share: 4,
    Variance: 5,
    Stddev: 6,
    Min: 7,
    Max: 7,
    First: 8,
    Last: 8,
}
_KINDS = {"f64": 0, "i64": 1, "str": 2}


def is_built() -> bool:
    """Whether the merge was compiled when this package was installed."""
    try:
        importlib.import_module("rtml.kernel._merge")
    except ImportError:
        return False
    return True


def merger_of(plan: Plan) -> Merger | None:
    """Return the compiled merge of a plan, made once; `None` where there is none, or not for such a plan."""
    known = plan.__dict__
    if "_merger" not in known:
        known["_merger"] = _made(plan) if is_built() and _is_known(plan) else None
    found: Merger | None = known["_merger"]
    return found


def _is_known(plan: Plan) -> bool:
    """Whether all of a plan can be merged by `_merge`, which is built."""
    from rtml.kernel import _merge  # noqa: PLC0415

    families = plan.states.families
    return (
        not plan.lifetime
        and not plan.tailed
        and not plan.states.ragged
        and all(type(family) in _FLOAT or isinstance(family, Tally) for family in families)
        and all(type(feature.definition) in _FEATURES for feature in plan.features)
        and len(families) <= _merge.MOST_FAMILIES
        and len(plan.windows) <= _merge.MOST_WINDOWS
        and len(plan.features) <= _merge.MOST_FEATURES
        and len(plan.lanes) <= _merge.MOST_LANES
    )


def _made(plan: Plan) -> Merger:
    from rtml.kernel._merge import Merger  # noqa: PLC0415  # which may not be built

    families = [family for family in plan.states.families if not isinstance(family, Tally)]
    features = [
        (_FEATURES[type(feature.definition)], window, families.index(family))
        for feature, window in plan.numbered
        for family in feature.families  # each has one
    ]
    narrow_time = Records.of(plan).narrow["time"].itemsize
    described = [_described(plan, family) for family in families]
    return Merger(described, features, len(plan.windows), plan.states.dtype.itemsize, narrow_time, len(plan.lanes))


def _described(plan: Plan, family: Family) -> tuple[int, int, int, int, int]:
    """Return a family's kind, where its columns begin in a state and where its weight is, its lane and its type."""
    offsets = {name: offset for name, (_, offset, *_) in (plan.states.dtype.fields or {}).items()}
    kinds = _FLOAT if family.kind == "f64" else _INTEGER
    first = offsets[next(iter(family.columns))]
    if isinstance(family, Rows):
        return kinds[Rows], first, 0, 0, _KINDS[family.kind]
    weight = 0 if isinstance(family, Recent) else offsets[f"{family.column}.n"]
    return kinds[type(family)], first, weight, list(plan.lanes).index(family.column), _KINDS[family.kind]
