"""Counting: how many events there were, and how many had a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.family import Aggregate, Array, Events, Family, Identity, Kind, Output, Span, States, Values
from rtml.lazy import pl

ROWS = "rows"


@dataclass(frozen=True)
class Rows(Family):
    """The number of events, whatever their values."""

    column: str = ""
    kind: Kind = "i64"
    code: ClassVar[str] = "rows"

    @property
    def columns(self) -> dict[str, str]:
        """One integer."""
        return {ROWS: "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """No events."""
        return {ROWS: 0}

    def lower(self) -> list[pl.Expr]:
        """Count rows."""
        return [pl.len().cast(pl.Int64).alias(ROWS)]

    def lift(self, events: Events) -> dict[str, Array]:
        """One each."""
        return {ROWS: np.ones(len(events), dtype=np.int64)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Add."""
        return {ROWS: np.add.reduceat(states[ROWS], starts)}


@dataclass(frozen=True)
class Tally(Family):
    """The number of events whose value is not null."""

    code: ClassVar[str] = "tally"

    @property
    def columns(self) -> dict[str, str]:
        """One integer."""
        return {self._named("n"): "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """No values."""
        return {self._named("n"): 0}

    def lower(self) -> list[pl.Expr]:
        """Count values."""
        return [pl.col(self.column).count().cast(pl.Int64).alias(self._named("n"))]

    def lift(self, events: Events) -> dict[str, Array]:
        """One where there is a value."""
        return {self._named("n"): events.lanes[self.column].valid.astype(np.int64)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Add."""
        name = self._named("n")
        return {name: np.add.reduceat(states[name], starts)}


class Count(Aggregate):
    """How many events the window holds; 0 when it is empty."""

    name = "count"
    takes_column = False

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """Rows."""
        del column, kind
        return (Rows(),)

    def output(self, kind: Kind) -> Output:
        """An integer."""
        del kind
        return Output("i64")

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the number itself."""
        del column, kind, span
        rows = states[ROWS]
        return Values(rows, np.ones(len(rows), dtype=bool))
