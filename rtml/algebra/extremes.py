"""Extremes: the least and the greatest value."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.counting import Tally
from rtml.algebra.family import Aggregate, Array, Events, Family, Identity, Kind, Output, Span, States, Values
from rtml.lazy import pl


@dataclass(frozen=True)
class Extreme(Family):
    """The value that no other one beats. The identity loses to every value; how many there were tells it apart."""

    @property
    def needs(self) -> tuple[Family, ...]:
        """Whether there is a value at all."""
        return (Tally(self.column, self.kind),)

    @property
    def columns(self) -> dict[str, str]:
        """The value."""
        return {self._named(self.code): "<f8" if self.kind == "f64" else "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """What every value beats."""
        return {self._named(self.code): self._identity}

    @property
    @abstractmethod
    def _identity(self) -> float | int: ...

    @property
    @abstractmethod
    def _best(self) -> np.ufunc: ...

    def lift(self, events: Events) -> dict[str, Array]:
        """The value itself."""
        values, valid = events.lanes[self.column]
        return {self._named(self.code): np.where(valid, values, self._identity)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Keep the best."""
        name = self._named(self.code)
        return {name: self._best.reduceat(states[name], starts)}


@dataclass(frozen=True)
class Least(Extreme):
    """The least value."""

    code: ClassVar[str] = "min"

    @property
    def _identity(self) -> float | int:
        return np.inf if self.kind == "f64" else 2**63 - 1

    @property
    def _best(self) -> np.ufunc:
        return np.minimum

    def lower(self) -> list[pl.Expr]:
        """Polars' minimum."""
        return [pl.col(self.column).min().fill_null(self._identity).alias(self._named(self.code))]


@dataclass(frozen=True)
class Greatest(Extreme):
    """The greatest value."""

    code: ClassVar[str] = "max"

    @property
    def _identity(self) -> float | int:
        return -np.inf if self.kind == "f64" else -(2**63)

    @property
    def _best(self) -> np.ufunc:
        return np.maximum

    def lower(self) -> list[pl.Expr]:
        """Polars' maximum."""
        return [pl.col(self.column).max().fill_null(self._identity).alias(self._named(self.code))]


class Min(Aggregate):
    """The least value; null when there are none."""

    name = "min"
    family: ClassVar[type[Extreme]] = Least

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The best value, which counts what there is."""
        return (self.family(column, kind),)

    def output(self, kind: Kind) -> Output:
        """As the column."""
        return Output(kind)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the value where there is one."""
        del kind, span
        return Values(states[f"{column}.{self.family.code}"], states[f"{column}.n"] > 0)


class Max(Min):
    """The greatest value; null when there are none."""

    name = "max"
    family = Greatest
