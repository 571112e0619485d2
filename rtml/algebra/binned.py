"""Histograms: how many values lie between edges that are given once and for all.

Fixed edges were preferred to bins cut from a sketch: counts are exact, a state is a few integers, and a model's bins
mean the same tomorrow.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from rtml.algebra.family import Aggregate, Array, Events, Family, Identity, Kind, Output, Span, States, Values
from rtml.errors import DefinitionError
from rtml.lazy import pl

MOST_EDGES = 64


@dataclass(frozen=True)
class Bins(Family):
    """The number of values below the first edge, from each edge to the next, and from the last on."""

    edges: tuple[float, ...] = (0.0,)
    code: ClassVar[str] = "bins"

    @property
    def names(self) -> list[str]:
        """The columns, in the order of the bins; which edges they have is part of their names."""
        digest = hashlib.sha256(np.array(self.edges, dtype="<f8").tobytes()).hexdigest()[:8]
        return [self._named(f"bin_{digest}_{place}") for place in range(len(self.edges) + 1)]

    @property
    def columns(self) -> dict[str, str]:
        """An integer each."""
        return dict.fromkeys(self.names, "<i8")

    @property
    def empty(self) -> dict[str, Identity]:
        """No values."""
        return dict.fromkeys(self.names, 0)

    def lower(self) -> list[pl.Expr]:
        """Count the values between edges."""
        value = pl.col(self.column)
        under = [pl.lit(value=False), *(value < edge for edge in self.edges), pl.lit(value=True)]
        return [
            (upper & ~lower & value.is_not_null()).sum().cast(pl.Int64).alias(name)
            for name, (lower, upper) in zip(self.names, pairwise(under), strict=True)
        ]

    def places(self, values: Array) -> Array:
        """Return the bin of each value."""
        return np.searchsorted(np.array(self.edges), values, side="right")

    def lift(self, events: Events) -> dict[str, Array]:
        """One, in its bin."""
        values, valid = events.lanes[self.column]
        found = np.where(valid, self.places(values), -1)
        return {name: (found == place).astype(np.int64) for place, name in enumerate(self.names)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Add."""
        return {name: np.add.reduceat(states[name], starts) for name in self.names}


@dataclass(frozen=True)
class Histogram(Aggregate):
    """How many values lie below the first edge, in each `[edge, next edge)`, and from the last edge on."""

    name = "histogram"
    edges: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Validate the edges."""
        edges = self.edges
        numbers = isinstance(edges, tuple) and all(
            isinstance(edge, (int, float)) and not isinstance(edge, bool) and math.isfinite(edge) for edge in edges
        )
        if not numbers or not 1 <= len(edges) <= MOST_EDGES or any(a >= b for a, b in pairwise(edges)):
            raise DefinitionError.at(self.name, "edges", f"a list of 1 to {MOST_EDGES} ascending numbers", edges)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The bins."""
        return (Bins(column, kind, self.edges),)

    def output(self, kind: Kind) -> Output:
        """A list of integers, one more than edges."""
        del kind
        return Output("i64", len(self.edges) + 1)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the counts, all zero when there are no values."""
        del span
        counts = np.stack([states[name] for name in Bins(column, kind, self.edges).names], axis=1)
        return Values(counts, np.ones(len(counts), dtype=bool), np.full(len(counts), counts.shape[1]))
