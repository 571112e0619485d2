"""Whether two roads agree, feature by feature: values in, verdict out (design §7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from quality.approximate import reference
from rtml.algebra import catalog
from rtml.algebra.custom import Custom
from rtml.algebra.family import Array, Kind, Parameters, Values
from rtml.plan import Plan, PlannedFeature

WORST = 20
"""How many of the worst rows a verdict keeps; of every feature at least one."""
EXAMPLES = 3
"""How many of them it puts into words."""
SUM_TOLERANCE, VARIANCE_TOLERANCE = 1e-9, 1e-6
NOISE = 8 * 2.0**-53
"""By what part of |x| the mean of some x, and so each distance from it, may be off: a few roundings of float64."""
LEAST = float(np.finfo(np.float64).smallest_normal)
"""The least number that has all digits of a float64: what decays goes on below it, and loses them one by one."""
_GREATEST = float(np.finfo(np.float64).max)

MAGNITUDE = {
    **{name: name for name in ("sum", "mean", "sum_rate", "decayed_count", "decayed_sum", "decayed_mean")},
    "share": "mean",
    **dict.fromkeys(("variance", "stddev"), "max"),
    **dict.fromkeys(("skew", "kurtosis"), "reach"),
    "custom": "custom",
}
"""The aggregate of |x| by which a tolerance is judged: what is not here is exact."""
OF_VALUES = ("reach", "decayed_count", "custom")
"""Of these, the aggregate is that of the values themselves."""

_WORST_COLUMNS = {"got": pl.Float64(), "expected": pl.Float64(), "difference": pl.Float64(), "why": pl.String()}


def is_exact(aggregate: str, kind: Kind) -> bool:
    """Whether an aggregate of a column must be the same to the last bit."""
    return aggregate not in MAGNITUDE or (aggregate == "sum" and kind == "i64")


def allowed(aggregate: str, kind: Kind, expected: Array, magnitude: Array, parameters: Parameters = ()) -> Array:
    """Return by how much each value may differ: a finite number, since finite values are never infinitely apart.

    Sums by 1e-9 · Σ|x|, means by that over their count, and both by `LEAST` more. Variances and standard deviations by
    1e-6 of themselves, and by what numbers of size |x| cannot tell: distances from a mean that is off by `noise` =
    8 · 2⁻⁵³ · max|x| give a variance that is off by noise² + 2 · noise · σ, and a σ that is off by noise. Skewness and
    kurtosis are of distances in σ: by their powers, each of them off by r = noise / σ. Custom aggregates by the part of
    themselves that they declare. `magnitude` is the aggregate `MAGNITUDE` of |x|.
    """
    if is_exact(aggregate, kind):
        return np.zeros(len(expected))
    size = _finite(magnitude)
    if aggregate == "custom":
        definition = catalog.aggregate(aggregate, parameters)
        assert isinstance(definition, Custom)
        return definition.tolerance * _finite(np.abs(expected))
    if MAGNITUDE[aggregate] not in ("max", "reach"):
        return SUM_TOLERANCE * size + LEAST
    noise, own = NOISE * size, _finite(np.abs(expected))
    with np.errstate(over="ignore"):
        if MAGNITUDE[aggregate] == "reach":
            return _finite(VARIANCE_TOLERANCE * own + 16 * ((1 + noise) ** 4 - 1) * (own + 8))
        if aggregate == "variance":
            return _finite(VARIANCE_TOLERANCE * own + noise**2 + 2 * noise * np.sqrt(own))
        return _finite(VARIANCE_TOLERANCE * own + noise)


def _finite(values: Array) -> Array:
    return np.nan_to_num(values, nan=0.0, posinf=_GREATEST)


def with_magnitudes(plan: Plan) -> Plan:
    """Return a plan that answers, beside its features, what their tolerances are judged by."""
    truths = [truth for feature in plan.features if (truth := reference(feature)) is not None]
    return msgspec.structs.replace(plan, features=(*plan.features, *_magnitudes(plan), *truths))


def magnitude_columns(plan: Plan) -> list[pl.Expr]:
    """Return |x| of the value columns that a plan with magnitudes wants."""
    judged = [feature.column for feature in _magnitudes(plan) if feature.column.startswith("|")]
    pairs = {(column[1:-1], column) for column in judged}
    return [pl.col(column).cast(pl.Float64).abs().alias(size) for column, size in sorted(pairs)]


def magnitude(feature: PlannedFeature) -> str:
    """Return the name of the feature that a plan with magnitudes has for another one."""
    return f"{feature.name}|size"


def _magnitudes(plan: Plan) -> list[PlannedFeature]:
    return [_magnitude(feature) for feature in plan.features if not exact(feature)]


def _magnitude(feature: PlannedFeature) -> PlannedFeature:
    name, judge = magnitude(feature), MAGNITUDE[feature.aggregate]
    parameters = feature.parameters if judge == feature.aggregate else ()
    if judge in OF_VALUES:
        return msgspec.structs.replace(feature, name=name, aggregate=judge, parameters=parameters)
    column = _size(feature.column)
    return msgspec.structs.replace(
        feature, name=name, aggregate=judge, column=column, kind="f64", parameters=parameters
    )


def exact(feature: PlannedFeature) -> bool:
    """Whether a feature must be the same to the last bit."""
    return is_exact(feature.aggregate, feature.kind)


def _size(column: str) -> str:
    return f"|{column}|"


@dataclass(frozen=True)
class Compared:
    """One feature on two roads, row by row, and by how much its values may differ."""

    feature: str
    got: Values
    expected: Values
    allowed: Array
    judged: Array | None = None
    """Of an approximate feature: in which rows both are as near to the truth as is promised, and so agree."""


@dataclass(frozen=True)
class FeatureParity:
    """How many rows of one feature were compared, and what came of them.

    `missing` have a value on one road only; `unsettled` differ, where what was seen cannot be told. Differences are the
    largest of all values on both roads, relative ones to expected values other than zero.
    """

    feature: str
    compared: int
    equal: int
    differing: int
    missing: int
    unsettled: int
    largest: float
    largest_relative: float

    @property
    def agrees(self) -> bool:
        """Whether no row is wrong."""
        return not self.differing and not self.missing


@dataclass(frozen=True)
class Parity:
    """A verdict over features, and the worst rows of all: identity, feature, got, expected, difference, why."""

    features: tuple[FeatureParity, ...] = ()
    worst: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def agrees(self) -> bool:
        """Whether every feature agrees."""
        return all(feature.agrees for feature in self.features)

    def total(self, count: str) -> int:
        """Return one count of all features together."""
        return sum(getattr(feature, count) for feature in self.features)

    def __str__(self) -> str:
        """Return what is wrong in words: an example or two, and the features."""
        if self.agrees:
            return f"{self.total('compared'):,} values agree"
        wrong = [feature for feature in self.features if not feature.agrees]
        examples = "; ".join(_example(row) for row in self.worst.head(EXAMPLES).to_dicts())
        names = ", ".join(f"{feature.feature} ({_counts(feature)})" for feature in wrong)
        return f"{examples}. {len(wrong)} of {len(self.features)} features disagree: {names}"

    @staticmethod
    def joined(parts: Sequence[Parity]) -> Parity:
        """Return verdicts over different rows as one."""
        found: dict[str, list[FeatureParity]] = {}
        for part in parts:
            for feature in part.features:
                found.setdefault(feature.feature, []).append(feature)
        frames = [part.worst for part in parts if part.worst.height]
        worst = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
        return Parity(tuple(_summed(same) for same in found.values()), _worst_of(worst) if frames else worst)


def _example(row: Mapping[str, object]) -> str:
    given = {name: value for name, value in row.items() if name not in ("feature", *_WORST_COLUMNS)}
    where = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    said = f"{row['feature']} of {where}: got {_shown(row['got'])}, expected {_shown(row['expected'])}"
    return f"{said} ({row['why']})" if row["why"] in ("doubled", "damaged") else said


def _counts(feature: FeatureParity) -> str:
    parts = {"differ": feature.differing, "are missing": feature.missing}
    words = " and ".join(f"{count:,} {what}" for what, count in parts.items() if count)
    return f"{words} of {feature.compared:,}"


def _shown(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else "nothing"


def _summed(same: Sequence[FeatureParity]) -> FeatureParity:
    counts = {
        name: sum(getattr(one, name) for one in same)
        for name in ("compared", "equal", "differing", "missing", "unsettled")
    }
    return FeatureParity(
        same[0].feature,
        **counts,
        largest=max(one.largest for one in same),
        largest_relative=max(one.largest_relative for one in same),
    )


def or_zero(values: Values) -> Array:
    """Return values, and zeros where there are none."""
    there = values.valid if values.values.ndim == 1 else values.valid[:, None]
    return np.where(there, values.values, 0)


def agreement(one: Compared) -> Array:
    """Return which rows have the same value on both roads, or none on both."""
    both = one.got.valid & one.expected.valid
    return np.where(both, _close(one) if one.judged is None else one.judged, one.got.valid == one.expected.valid)


def compare(
    identity: pl.DataFrame,
    features: Sequence[Compared],
    *,
    absent: Array | None = None,
    damaged: Array | None = None,
    doubled: Array | None = None,
    unsettled: Mapping[str, Array] | None = None,
) -> Parity:
    """Compare two roads.

    Args:
        identity: what a row is about, for people to find it.
        features: the values, rows as in `identity`.
        absent: rows that one of the roads does not have at all, whatever their values.
        damaged: rows that are wrong, whatever their values.
        doubled: rows that are wrong, whatever their values, since one of the roads has them more than once.
        unsettled: by feature, rows that may differ without being wrong.
    """
    none = np.zeros(identity.height, dtype=bool)
    absent, damaged, doubled = (none if given is None else given for given in (absent, damaged, doubled))
    broken = damaged | doubled
    reasons = np.where(doubled, "doubled", np.where(damaged, "damaged", ""))
    found, wrong = [], []
    for one in features:
        verdict, rows = _compare(one, absent, broken, (unsettled or {}).get(one.feature, none))
        found.append(verdict)
        wrong.append(_wrong_rows(identity, one, rows, reasons))
    return Parity(tuple(found), _worst_of(pl.concat(wrong)) if wrong else pl.DataFrame())


def _compare(one: Compared, absent: Array, damaged: Array, unsettled: Array) -> tuple[FeatureParity, Array]:
    both = one.got.valid & one.expected.valid & ~absent
    same = agreement(one) & ~absent & ~damaged
    open_rows = ~same & unsettled & ~absent & ~damaged
    wrong = ~same & ~open_rows
    differences = np.where(both, _difference(one), 0.0)
    size = np.abs(_leading(one.expected.values).astype(np.float64))
    relative = np.divide(differences, size, out=np.zeros(len(size)), where=(size > 0) & np.isfinite(size))
    verdict = FeatureParity(
        feature=one.feature,
        compared=len(same),
        equal=int(same.sum()),
        differing=int((wrong & (both | damaged)).sum()),
        missing=int((wrong & ~both & ~damaged).sum()),
        unsettled=int(open_rows.sum()),
        largest=float(differences.max(initial=0.0)),
        largest_relative=float(relative.max(initial=0.0)),
    )
    return verdict, np.flatnonzero(wrong)


def _leading(values: Array) -> Array:
    """Return one number a row: of lists the largest."""
    return values.max(axis=1, initial=0) if values.ndim > 1 else values


def _close(one: Compared) -> Array:
    apart = _difference(one)
    bounded = np.isfinite(one.allowed) & (one.allowed > 0) & np.isfinite(apart)
    return np.asarray((apart == 0) | (bounded & (apart <= one.allowed)))


def _difference(one: Compared) -> Array:
    """Return |got − expected|: integers are subtracted as such, no two NaNs or infinities of one sign differ."""
    apart = _differences(one)
    return apart.max(axis=1, initial=0.0) if apart.ndim > 1 else apart


def _differences(one: Compared) -> Array:
    """Return the same place by place, where values are lists; those of unlike length differ in the first."""
    got, expected = one.got.values, one.expected.values
    same = (got == expected) | ((got != got) & (expected != expected))  # noqa: PLR0124
    if got.dtype.kind == "u":
        apart: Array = np.where(same, 0.0, np.inf)  # hashes of strings
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs((got - expected).astype(np.float64))
        apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    if one.got.lengths is not None and one.expected.lengths is not None:
        apart[np.arange(got.shape[1]) >= one.got.lengths[:, None]] = 0.0
        apart[one.got.lengths != one.expected.lengths, 0] = np.inf
    return apart


def _wrong_rows(identity: pl.DataFrame, one: Compared, rows: Array, reasons: Array) -> pl.DataFrame:
    """Return the worst of one feature's wrong rows."""
    both = one.got.valid[rows] & one.expected.valid[rows]
    apart = np.where(both, _difference(one)[rows], np.inf)
    chosen = rows[np.argsort(-apart, kind="stable")[:WORST]]
    return identity[chosen].with_columns(
        pl.lit(one.feature).alias("feature"),
        got=_values(one, one.got, chosen),
        expected=_values(one, one.expected, chosen),
        difference=pl.Series(np.sort(-apart)[:WORST] * -1, dtype=pl.Float64),
        why=pl.Series([reasons[row] or _why(one, row) for row in chosen], dtype=pl.String),
    )


def _values(one: Compared, values: Values, rows: Array) -> pl.Series:
    """Return what is shown of some rows: of lists the place that differs the most."""
    found = values.values[rows]
    if found.ndim > 1:
        found = found[np.arange(len(rows)), _differences(one)[rows].argmax(axis=1)]
    shown = zip(found.tolist(), values.valid[rows].tolist(), strict=True)
    return pl.Series([float(value) if there else None for value, there in shown], dtype=pl.Float64)


def _why(one: Compared, row: int) -> str:
    if one.got.valid[row] and one.expected.valid[row]:
        return "differs"
    return "missing" if one.expected.valid[row] else "unexpected" if one.got.valid[row] else "no such row"


def _worst_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the worst rows, at least one of every feature that has any; first the worst of each."""
    ranked = rows.with_columns(pl.col("difference").rank("ordinal", descending=True).over("feature").alias("rank"))
    ordered = ranked.sort("rank", "difference", descending=[False, True], maintain_order=True)
    return ordered.head(max(WORST, rows["feature"].n_unique())).drop("rank")
