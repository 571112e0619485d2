"""Moments: sum, mean, variance and standard deviation.

Variance merges by Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances" (1979), so large values with a small spread do not cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.counting import Tally
from rtml.algebra.family import (
    Aggregate,
    Array,
    Events,
    Family,
    Identity,
    Kind,
    Output,
    Span,
    States,
    Values,
    repeat_groups,
)
from rtml.errors import OverflowedError
from rtml.lazy import pl

_CARRY = 32
_LOW = (1 << _CARRY) - 1


@dataclass(frozen=True)
class Total(Family):
    """The sum of values. Integers are kept in two words, so that no number of events overflows them."""

    code: ClassVar[str] = "total"

    @property
    def needs(self) -> tuple[Family, ...]:
        """How many values were added: a sum of none is null."""
        return (Tally(self.column, self.kind),)

    @property
    def columns(self) -> dict[str, str]:
        """One float, or a high and a low word of 32 bits."""
        if self.kind == "f64":
            return {self._named("sum"): "<f8"}
        return {self._named("sum_high"): "<i8", self._named("sum_low"): "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """Nothing."""
        return dict.fromkeys(self.columns, 0)

    def lower(self) -> list[pl.Expr]:
        """Sum values."""
        value = pl.col(self.column)
        if self.kind == "f64":
            return [value.sum().alias(self._named("sum"))]
        low = (value & _LOW).sum()
        high = (value // (_LOW + 1)).sum() + low // (_LOW + 1)
        return [high.alias(self._named("sum_high")), (low & _LOW).alias(self._named("sum_low"))]

    def lift(self, events: Events) -> dict[str, Array]:
        """The value, or nothing."""
        values, valid = events.lanes[self.column]
        if self.kind == "f64":
            return {self._named("sum"): np.where(valid, values, 0.0)}
        present = np.where(valid, values, 0)
        return {self._named("sum_high"): present >> _CARRY, self._named("sum_low"): present & _LOW}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Add, carrying from the low word to the high one."""
        if self.kind == "f64":
            name = self._named("sum")
            return {name: np.add.reduceat(states[name], starts)}
        high, low = self._named("sum_high"), self._named("sum_low")
        lows = np.add.reduceat(states[low], starts)
        return {high: np.add.reduceat(states[high], starts) + (lows >> _CARRY), low: lows & _LOW}

    def as_float(self, states: States) -> Array:
        """The sum as floats."""
        if self.kind == "f64":
            return states[self._named("sum")]
        return states[self._named("sum_high")] * float(_LOW + 1) + states[self._named("sum_low")]

    def as_integer(self, states: States) -> Array:
        """The sum as 64-bit integers.

        Raises:
            OverflowedError: a sum needs more than 64 bits.
        """
        high = states[self._named("sum_high")]
        if np.any((high >= 1 << 31) | (high < -(1 << 31))):
            raise OverflowedError(
                f"the sum of {self.column!r} needs more than 64 bits; bound the column with le= and ge="
            )
        return (high << _CARRY) + states[self._named("sum_low")]


@dataclass(frozen=True)
class Spread(Family):
    """The mean, and the sum of squared distances from it (`m2`)."""

    code: ClassVar[str] = "spread"

    @property
    def needs(self) -> tuple[Family, ...]:
        """The weights of the means."""
        return (Tally(self.column, self.kind),)

    @property
    def columns(self) -> dict[str, str]:
        """Two floats."""
        return {self._named("mean"): "<f8", self._named("m2"): "<f8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """Weightless."""
        return dict.fromkeys(self.columns, 0.0)

    def lower(self) -> list[pl.Expr]:
        """Two passes: the mean, then the distances."""
        value = pl.col(self.column).cast(pl.Float64)
        distances = (value - value.mean()).pow(2).sum()
        return [value.mean().fill_null(0.0).alias(self._named("mean")), distances.alias(self._named("m2"))]

    def lift(self, events: Events) -> dict[str, Array]:
        """A value is its own mean."""
        values, valid = events.lanes[self.column]
        return {
            self._named("mean"): np.where(valid, values, 0).astype(np.float64),
            self._named("m2"): np.zeros(len(values)),
        }

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Chan's merge over whole groups, measured from a mean of the group, so that nothing cancels."""
        weight, m2 = states[self._named("n")], states[self._named("m2")]
        total, mean, distance, _ = distances(weight, states[self._named("mean")], starts)
        between = np.add.reduceat(weight * distance**2, starts)
        within = np.add.reduceat(m2, starts)
        return {self._named("mean"): mean, self._named("m2"): np.where(total > 0, within + between, 0.0)}


def distances(weight: Array, mean: Array, starts: Array) -> tuple[Array, Array, Array, Array]:
    """Return of each group its weight and its mean, and of each state its distance from that mean and its group.

    All is measured from one of the group's means first, so that large values with a small spread do not cancel. A
    state without weight lies at no distance.
    """
    group = repeat_groups(starts, len(mean))
    greatest = np.maximum.reduceat(np.where(weight > 0, mean, -np.inf), starts)
    origin = np.where(np.isfinite(greatest), greatest, 0.0)
    total = np.add.reduceat(weight, starts)
    offset = np.where(weight > 0, mean - origin[group], 0.0)
    shift = np.divide(np.add.reduceat(weight * offset, starts), total, out=np.zeros(len(total)), where=total > 0)
    distance = np.where(weight > 0, offset - shift[group], 0.0)
    return total, np.where(total > 0, origin + shift, 0.0), distance, group


class Sum(Aggregate):
    """The sum of the values; null when there are none."""

    name = "sum"
    takes_boolean = True

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """A total."""
        return (Total(column, kind),)

    def output(self, kind: Kind) -> Output:
        """As the column."""
        return Output(kind)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the total."""
        del span
        total = Total(column, kind)
        values = total.as_float(states) if kind == "f64" else total.as_integer(states)
        return Values(values, states[f"{column}.n"] > 0)


class Mean(Aggregate):
    """The arithmetic mean of the values; null when there are none. Of a boolean: the share that is true."""

    name = "mean"
    takes_boolean = True

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """A total, which counts its values."""
        return (Total(column, kind),)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide the total by the number of values."""
        del span
        count = states[f"{column}.n"]
        valid = count > 0
        return Values(Total(column, kind).as_float(states) / np.where(valid, count, 1), valid)


class Variance(Aggregate):
    """The sample variance (`ddof=1`) of the values; null when there are fewer than two."""

    name = "variance"

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """A spread, which counts its values."""
        return (Spread(column, kind),)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide the squared distances by one less than the number of values."""
        del kind, span
        count = states[f"{column}.n"]
        valid = count > 1
        return Values(states[f"{column}.m2"] / np.where(valid, count - 1, 1), valid)


class Stddev(Variance):
    """The sample standard deviation (`ddof=1`) of the values; null when there are fewer than two."""

    name = "stddev"

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Take the root of the variance."""
        variance = super().finalize(column, kind, states, span)
        return Values(np.sqrt(variance.values), variance.valid)
