"""The shape of a distribution: skewness and excess kurtosis, of the sample as pandas and DuckDB have them.

Central moments merge by Pébay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order
Statistical Moments" (Sandia, 2008), over whole groups at once: the moments of each state, moved by its mean's distance
from the group's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.extremes import Greatest, Least
from rtml.algebra.family import Aggregate, Array, Events, Family, Identity, Kind, Span, States, Values
from rtml.algebra.moments import Spread, distances
from rtml.lazy import pl


@dataclass(frozen=True)
class Moment(Family):
    """The sum of the distances from the mean, each to a power."""

    power: ClassVar[int]

    @property
    def columns(self) -> dict[str, str]:
        """One float."""
        return {self._named(self.code): "<f8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """Nothing."""
        return {self._named(self.code): 0.0}

    def lower(self) -> list[pl.Expr]:
        """Two passes: the mean, then the distances."""
        value = pl.col(self.column).cast(pl.Float64)
        return [(value - value.mean()).pow(self.power).sum().alias(self._named(self.code))]

    def lift(self, events: Events) -> dict[str, Array]:
        """A value is its own mean, at no distance."""
        return {self._named(self.code): np.zeros(len(events))}


@dataclass(frozen=True)
class Third(Moment):
    """The sum of cubed distances from the mean (`m3`)."""

    code: ClassVar[str] = "m3"
    power: ClassVar[int] = 3

    @property
    def needs(self) -> tuple[Family, ...]:
        """The moments below."""
        return (Spread(self.column, self.kind),)

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Move each state's moments to the group's mean, and add."""
        weight, mean, m2, m3 = (states[self._named(part)] for part in ("n", "mean", "m2", "m3"))
        _, _, apart, _ = distances(weight, mean, starts)
        return {self._named("m3"): np.add.reduceat(m3 + apart * (3 * m2 + weight * apart**2), starts)}


@dataclass(frozen=True)
class Fourth(Moment):
    """The sum of distances from the mean to the fourth power (`m4`)."""

    code: ClassVar[str] = "m4"
    power: ClassVar[int] = 4

    @property
    def needs(self) -> tuple[Family, ...]:
        """The moments below."""
        return (Third(self.column, self.kind),)

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Move each state's moments to the group's mean, and add."""
        weight, mean, m2, m3, m4 = (states[self._named(part)] for part in ("n", "mean", "m2", "m3", "m4"))
        _, _, apart, _ = distances(weight, mean, starts)
        moved = m4 + apart * (4 * m3 + apart * (6 * m2 + weight * apart**2))
        return {self._named("m4"): np.add.reduceat(moved, starts)}


class Skew(Aggregate):
    """The skewness of the sample (adjusted, G₁); null when there are fewer than three values, or all are the same."""

    name = "skew"
    least: ClassVar[int] = 3
    family: ClassVar[type[Moment]] = Third

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The moments, and the extremes: they tell exactly whether all values are the same."""
        return (self.family(column, kind), Least(column, kind), Greatest(column, kind))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide by the spread where there is one."""
        del kind, span
        n, m2 = states[f"{column}.n"], states[f"{column}.m2"]
        least, greatest = (states[f"{column}.{end}"].astype(np.float64) for end in ("min", "max"))
        valid = (n >= self.least) & (least < greatest) & (m2 > 0)
        count, deviation = np.where(valid, n, self.least).astype(np.float64), np.sqrt(np.where(valid, m2, 1.0))
        values = self._adjusted(count, deviation, states[f"{column}.{self.family.code}"])
        return Values(values, valid & np.isfinite(values))

    @staticmethod
    def _adjusted(n: Array, deviation: Array, moment: Array) -> Array:
        skew = moment / deviation / deviation / deviation * np.sqrt(n)
        return np.asarray(skew * np.sqrt(n * (n - 1)) / (n - 2))


class Kurtosis(Skew):
    """The excess kurtosis of the sample (adjusted, G₂); null below four values, or where all are the same."""

    name = "kurtosis"
    least = 4
    family = Fourth

    @staticmethod
    def _adjusted(n: Array, deviation: Array, moment: Array) -> Array:
        excess = moment / deviation / deviation / deviation / deviation * n - 3
        return np.asarray(((n + 1) * excess + 6) * (n - 1) / ((n - 2) * (n - 3)))


class Reach(Aggregate):
    """How large the values are, in standard deviations: what a shape's tolerance is judged by. No feature has it."""

    name = "reach"

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The spread and the extremes."""
        return (Spread(column, kind), Least(column, kind), Greatest(column, kind))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide the value that is furthest from zero by the standard deviation."""
        del kind, span
        n, m2 = states[f"{column}.n"], states[f"{column}.m2"]
        least, greatest = (states[f"{column}.{end}"].astype(np.float64) for end in ("min", "max"))
        valid = (n > 0) & (m2 > 0)
        deviation = np.sqrt(np.where(valid, m2, 1.0)) / np.sqrt(np.where(valid, n, 1))
        return Values(np.where(valid, np.maximum(-least, greatest), 0.0) / deviation, valid)
