"""Drift: how far the features that are served now lie from a reference; pure, frames in, measures out.

A feature has drifted when a measure is over its bound, and neither usual nor chance. Effects decide, since of large
samples every difference is significant; but of many features some effect is always large: what the reference's own days
show as well, one against the others, is usual, and what samples of these sizes make likely is chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from quality.bins import FEW, NOTHING, Histogram, Values, counted, histogram, psi
from quality.chance import alike, as_many, js_distance, ks
from quality.usual import usual
from rtml.define.drift import MEASURES, Bounds, Severity

CHANCE = 0.01
"""How likely chance may make any of all measures of a comparison seem drift, where rows are independent."""
MARGIN = 2
"""How often what is usual a distance may be."""


class Measure(NamedTuple):
    """One distance between now and the reference."""

    name: str
    value: float
    p: float
    """How likely chance alone makes it so large."""
    bound: float
    usual: float | None
    """The largest distance of any of the reference's days from the others; None where it has too few."""
    broken: bool

    @property
    def allowed(self) -> float:
        """How large it may be: its bound, or twice what is usual, if that is more.

        A distance that cannot be above 1 has so much less room above what is usual: 0.1 allows 0.19, and 0.7 0.91.
        """
        if self.usual is None:
            return self.bound
        unusual = MARGIN * self.usual if self.name == "psi" else 1 - (1 - min(self.usual, 1.0)) ** MARGIN
        return max(self.bound, unusual)

    def __str__(self) -> str:
        """Return the distance and what it may be."""
        return f"{self.name} {self.value:.3g} {'>' if self.value > self.allowed else '≤'} {self.allowed:.3g}"


@dataclass(frozen=True)
class FeatureDrift:
    """One feature, now and in a reference."""

    feature: str
    reference: str
    now: int
    then: int
    """Rows of both, with those that are null."""
    nulls_now: float
    nulls_then: float
    """Shares."""
    measures: tuple[Measure, ...] = ()
    """What could be told; nothing where there were too few rows."""
    unseen: float | None = None
    """Which share of the values now the reference does not have; None where every value is new, as of measurements."""
    severity: Severity = "warning"
    note: str = ""
    """Why there is no verdict, or less of one."""
    bars: Histogram = field(default=NOTHING, repr=False)

    @property
    def broken(self) -> tuple[Measure, ...]:
        """The measures that broke their bounds."""
        return tuple(measure for measure in self.measures if measure.broken)

    @property
    def drifted(self) -> bool:
        """Whether any measure broke its bound."""
        return bool(self.broken)

    @property
    def worst(self) -> tuple[bool, float]:
        """What sorts features: whether it drifted, and how often the largest measure holds what is allowed."""
        return self.drifted, max((measure.value / measure.allowed for measure in self.measures), default=0.0)

    def of(self, name: str) -> float | None:
        """Return a measure by name, where it could be told."""
        return next((measure.value for measure in self.measures if measure.name == name), None)

    def __str__(self) -> str:
        """Return what broke, in words."""
        told = ", ".join(str(measure) for measure in self.broken) or self.note or "within its bounds"
        return f"{self.feature} against {self.reference}: {told}"


def compare(
    now: pl.DataFrame,
    then: pl.DataFrame,
    bounds: Mapping[str, Bounds],
    reference: str,
    comparisons: int | None = None,
    days: pl.Series | None = None,
) -> list[FeatureDrift]:
    """Compare the columns that `bounds` names, each by itself.

    Args:
        now, then: the rows served now, and those of the reference; numbers, booleans or text.
        bounds: what each feature is held to.
        reference: the reference's name.
        comparisons: how many features are compared in all, with those against other references; chance is shared
            among them.
        days: of which day each row of the reference is; without them nothing is usual.
    """
    level = CHANCE / (len(MEASURES) * max(comparisons or len(bounds), 1))
    numbered = None if days is None else (days.rank("dense") - 1).cast(pl.Int64)
    against = _Against(reference, level, numbered)
    return [_compare(name, now[name], then[name], held, against) for name, held in bounds.items()]


class _Against(NamedTuple):
    """What is the same for all features of a comparison."""

    reference: str
    level: float
    """A measure that chance makes so large with less than this probability is not chance."""
    days: pl.Series | None
    """The number of the day of each row of the reference."""


def _compare(feature: str, now: pl.Series, then: pl.Series, held: Bounds, against: _Against) -> FeatureDrift:
    now, then = _without_holes(now), _without_holes(then)
    values = _values(now), _values(then)
    rows: dict[str, Any] = {
        "feature": feature,
        "reference": against.reference,
        "now": len(now),
        "then": len(then),
        "nulls_now": now.null_count() / max(len(now), 1),
        "nulls_then": then.null_count() / max(len(then), 1),
        "severity": held.severity,
        "bars": histogram(*values),
    }
    if (least := min(len(now), len(then))) < held.minimum:
        return FeatureDrift(**rows, note=f"too few rows: {least:,} of the {held.minimum:,} that a verdict takes")
    nulls = [np.array([side.null_count(), len(side) - side.null_count()]) for side in (now, then)]
    common = _usual(then, values[1], against.days, min(held.minimum, len(now) // 2))
    moved = abs(rows["nulls_now"] - rows["nulls_then"])
    found = [("nulls", moved, alike(*nulls))]
    if (least := min(len(side) for side in values)) < held.minimum:
        note = f"too few values: {least:,} of the {held.minimum:,} that a verdict takes; the other rows are null"
        return FeatureDrift(**rows, measures=_held(found, held, against.level, common), note=note)
    unseen = _unseen(*values) if _is_category(then, values[1]) else None
    found = [*_distances(*values), *([] if unseen is None else [unseen[1]]), *found]
    return FeatureDrift(**rows, measures=_held(found, held, against.level, common), unseen=unseen and unseen[0])


Found = tuple[str, float, float]
"""A measure's name, the distance, and how likely chance alone makes it so large."""


def _distances(now: Values, then: Values) -> list[Found]:
    bins = counted(now, then)
    chance = alike(*bins)
    found: list[Found] = [("psi", psi(*bins), chance)]
    if now.dtype.kind not in "US":
        found.append(("ks", *ks(now, then)))
    return [*found, ("js", js_distance(*bins), chance)]


def _unseen(now: Values, then: Values) -> tuple[float, Found]:
    """Return the share of values that the reference does not have, and what of it is more than was to be expected.

    The share of the reference's values that are there just once is how likely its next value is a new one (Good and
    Turing): sums that never repeat are no news, a ninth carrier where there were eight is.
    """
    values, counts = np.unique(then, return_counts=True)
    new = int(np.isin(now, values, invert=True).sum())
    once = int((counts == 1).sum())
    share = new / len(now)
    return share, ("unseen", max(0.0, share - once / len(then)), as_many(new, len(now), (once + 1) / (len(then) + 1)))


def _held(found: Sequence[Found], held: Bounds, level: float, common: Mapping[str, float]) -> tuple[Measure, ...]:
    return tuple(_judged(measure, held.of(measure[0]), level, common.get(measure[0])) for measure in found)


def _judged(found: Found, bound: float, level: float, common: float | None) -> Measure:
    measure = Measure(*found, bound, common, broken=False)
    return measure._replace(broken=measure.value > measure.allowed and measure.p < level)


def _usual(then: pl.Series, values: Values, days: pl.Series | None, least: int) -> dict[str, float]:
    if days is None:
        return {}
    rows = np.bincount(days.to_numpy())
    return usual(values, days.filter(then.is_not_null()).to_numpy(), rows, least)


def _is_category(then: pl.Series, values: Values) -> bool:
    return not then.dtype.is_float() or len(np.unique(values)) <= FEW


def _values(column: pl.Series) -> Values:
    values = column.drop_nulls()
    return np.array(values.to_list(), dtype=np.str_) if values.dtype == pl.String else values.to_numpy()


def _without_holes(column: pl.Series) -> pl.Series:
    """Return a column that NumPy can sort: NaN and infinities, which no feature has, as nulls; booleans as 0 and 1."""
    if column.dtype.is_float():
        return column.to_frame().select(pl.when(column.is_finite()).then(column).alias("value")).to_series()
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return column.cast(pl.Int64)
