"""Percentiles: a KLL sketch of the values' ranks.

Karnin, Lang and Liberty, "Optimal Quantile Approximation in Streams" (2016). It tosses coins: the same values give
another sketch each time, and answers that agree in rank to the documented error, not in value. Of DataSketches' others
the classic one takes twice the bytes, REQ spends them on one end, and t-digest promises nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from datasketches import kll_doubles_sketch  # type: ignore[import-untyped]

from rtml.algebra.family import Aggregate, Array, Family, Kind, Output, Span, States, Values
from rtml.algebra.ragged import counted
from rtml.algebra.sketched import Sketched
from rtml.errors import DefinitionError

LEAST_K, MOST_K = 8, 4096
SURE = 2.5
"""Times the documented error that no answer is beyond: 6.4 standard deviations."""
MOST_RANKS = 100


@dataclass(frozen=True)
class Ranks(Sketched):
    """Up to `k` values as they are, then a sketch of them; integers as the nearest floats."""

    k: int = 200
    code: ClassVar[str] = "ranks"
    lane: ClassVar[str] = "<f8"
    unique: ClassVar[bool] = False

    @property
    def state(self) -> str:
        """With the size in its name."""
        return self._named(f"kll_{self.k}")

    @property
    def few(self) -> int:
        """A sketch, too, keeps its first `k` values."""
        return self.k

    @property
    def bulk(self) -> int:
        """About what a sketch of a million values takes."""
        return 25 * self.k

    def listed(self, values: Array) -> Array:
        """Floats; −0.0 is 0.0."""
        return values.astype(np.float64) + 0.0

    def sketch(self, values: Array, sketches: list[bytes]) -> bytes:
        """Merge."""
        merged = self.read(sketches[0]) if sketches else kll_doubles_sketch(self.k)
        for body in sketches[1:]:
            merged.merge(self.read(body))
        if len(values):
            merged.update(np.ascontiguousarray(values))
        return bytes(merged.serialize())

    def read(self, body: bytes) -> kll_doubles_sketch:
        """Return a sketch of its bytes.

        Raises:
            CodecError: they are none, or of another size.
        """
        try:
            sketch = kll_doubles_sketch.deserialize(body)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self.refused(body, error) from None
        if sketch.k != self.k:
            raise self.refused(body, f"a sketch of k={sketch.k}")
        return sketch

    def at_ranks(self, states: Array, ranks: Array) -> Array:
        """Return the values at ranks in `[0, 1]`: both have a row a state. The ends are exact; of no values it is 0."""
        opened = self.opened(states)
        counts = counted(opened.rows, len(states))
        found = np.zeros(ranks.shape)
        listed = np.flatnonzero(counts)
        starts, sizes = (np.cumsum(counts) - counts)[listed, None], counts[listed, None]
        # A product of floats may come out a bit above the integer that it is.
        place = np.ceil(ranks[listed] * sizes * (1 - 1e-12)).astype(np.int64) - 1
        found[listed] = opened.values[starts + np.clip(place, 0, sizes - 1)]
        for row, body in opened.sketches.items():
            sketch, own = self.read(body), ranks[row]
            found[row] = sketch.get_quantiles(own.tolist(), inclusive=True)
            found[row, own <= 0], found[row, own >= 1] = sketch.get_min_value(), sketch.get_max_value()
        return found


def rank_error(k: int) -> float:
    """Return by what share of their number an answer's rank among the values is off at most, in 99 of 100 answers."""
    return float(kll_doubles_sketch.get_normalized_rank_error(k, as_pmf=False))


@dataclass(frozen=True)
class Percentiles(Aggregate):
    """Values at ranks; what percentiles of all kinds have in common."""

    k: int = 200

    @property
    @abstractmethod
    def ranks(self) -> tuple[float, ...]:
        """Which ranks, from 0 to 1."""

    def _check(self) -> None:
        given = self.k
        if isinstance(given, bool) or not isinstance(given, int) or not LEAST_K <= given <= MOST_K:
            raise DefinitionError.at(self.name, "k", f"an integer from {LEAST_K} to {MOST_K:,}", given)

    @property
    def rank_error(self) -> float:
        """By what share of the number of values a rank is off at most, in 99 of 100 answers."""
        return rank_error(self.k)

    def bound(self, kind: Kind) -> str | None:
        """The error of the rank."""
        del kind
        return (
            f"exact up to {self.k:,} values; beyond, the value of a rank that is off by at most {self.rank_error:.2%} "
            "of their number in 99 of 100 answers"
        )

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The sketch."""
        return (Ranks(column, kind, self.k),)

    def _found(self, column: str, kind: Kind, states: States) -> tuple[Array, Array]:
        family = Ranks(column, kind, self.k)
        entries = states[family.state]
        found = family.at_ranks(entries, np.tile(np.array(self.ranks), (len(entries), 1)))
        return found, np.array([len(entry) > 0 for entry in entries.tolist()], dtype=bool)


@dataclass(frozen=True)
class ApproxPercentile(Percentiles):
    """The least value that a share `q` of all values does not exceed, about; null when there are none."""

    name = "approx_percentile"
    q: float = 0.5

    def __post_init__(self) -> None:
        """Validate rank and size."""
        self._check()
        _check_ranks(self.name, "q", (self.q,))

    @property
    def ranks(self) -> tuple[float, ...]:
        """One."""
        return (self.q,)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the value."""
        del span
        found, valid = self._found(column, kind, states)
        return Values(found[:, 0], valid)


@dataclass(frozen=True)
class ApproxPercentiles(Percentiles):
    """Several percentiles at once, as a list in the order of `qs`; null when there are no values."""

    name = "approx_percentiles"
    qs: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        """Validate ranks and size."""
        self._check()
        if not isinstance(self.qs, tuple) or not 1 <= len(self.qs) <= MOST_RANKS:
            raise DefinitionError.at(self.name, "qs", f"a list of 1 to {MOST_RANKS} numbers", self.qs)
        _check_ranks(self.name, "qs", self.qs)

    @property
    def ranks(self) -> tuple[float, ...]:
        """As given."""
        return self.qs

    def output(self, kind: Kind) -> Output:
        """A list of floats."""
        del kind
        return Output("f64", len(self.qs))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the values."""
        del span
        found, valid = self._found(column, kind, states)
        return Values(found, valid, np.where(valid, len(self.qs), 0))


def _check_ranks(name: str, parameter: str, ranks: tuple[object, ...]) -> None:
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, (int, float)) or not 0 <= rank <= 1:
            raise DefinitionError.at(name, parameter, "from 0 to 1 (the median is 0.5)", rank)
