"""Distinct values, counted exactly up to a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.family import Aggregate, Array, Family, Kind, Output, Span, States, Values, repeat_groups
from rtml.algebra.ragged import Gathering, counted, cut, first_of_runs, flat, in_groups, mixed, places, sizes
from rtml.errors import CodecError, DefinitionError

MOST = 10_000
"""The greatest bound: a state of so many values takes 80 KB."""
_WIDTH = 8


@dataclass(frozen=True)
class Distinct(Gathering):
    """The least `most` hashes of the values, ascending.

    The least of a union are the least of the least: so states combine in any order, and twice is as good as once.
    """

    most: int = 1000
    code: ClassVar[str] = "distinct"

    @property
    def state(self) -> str:
        """With the bound in its name."""
        return self._named(f"distinct_{self.most}")

    @property
    def bulk(self) -> int:
        """As many hashes as there may be."""
        return _WIDTH * self.most

    def gather(self, values: Array, starts: Array) -> Array:
        """Hash, and keep the least."""
        return self._least(repeat_groups(starts, len(values)), mixed(values, self.kind), len(starts))

    def join(self, states: Array, starts: Array) -> Array:
        """Keep the least of all."""
        counts = self.counts(states)
        hashes = flat(states.tolist(), "<u8")
        groups = repeat_groups(starts, len(states))
        owners = np.repeat(groups, counts)
        full = np.flatnonzero(counts == self.most)
        if len(full):  # what is greater than all of a full state's cannot be among the least
            cutoff = np.full(len(starts), ~np.uint64(0))
            np.minimum.at(cutoff, groups[full], hashes[np.cumsum(counts)[full] - 1])
            kept = hashes <= cutoff[owners]
            owners, hashes = owners[kept], hashes[kept]
        return self._least(owners, hashes, len(starts))

    def counts(self, states: Array) -> Array:
        """Return how many hashes each state holds.

        Raises:
            CodecError: a state is not one of this family's.
        """
        lengths = sizes(states)
        wrong = np.flatnonzero((lengths % _WIDTH != 0) | (lengths > _WIDTH * self.most))
        if len(wrong):
            raise CodecError(
                f"{self.state}: a state must be at most {self.most:,} hashes of {_WIDTH} bytes; got "
                f"{lengths[wrong[0]]:,} bytes"
            )
        return lengths // _WIDTH

    def _least(self, owners: Array, hashes: Array, groups: int) -> Array:
        hashes = in_groups(owners, hashes)
        first = first_of_runs(owners, hashes)
        owners, hashes = owners[first], hashes[first]
        counts = counted(owners, groups)
        if len(counts) and counts.max() > self.most:
            hashes = hashes[places(counts) < self.most]
            counts = np.minimum(counts, self.most)
        return cut(hashes, counts)


@dataclass(frozen=True)
class CountDistinct(Aggregate):
    """How many different values there are: exact below the bound, which itself means as many or more; 0 of none."""

    name = "count_distinct"
    takes_boolean = True
    takes_string = True
    most: int = 1000

    def __post_init__(self) -> None:
        """Validate the bound."""
        if isinstance(self.most, bool) or not isinstance(self.most, int) or not 1 <= self.most <= MOST:
            expected = f"an integer from 1 to {MOST:,} (beyond: ApproxCountDistinct)"
            raise DefinitionError.at(self.name, "bound", expected, self.most)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The least hashes."""
        return (Distinct(column, kind, self.most),)

    def output(self, kind: Kind) -> Output:
        """An integer."""
        del kind
        return Output("i64")

    def bound(self, kind: Kind) -> str | None:
        """What the bound means."""
        del kind
        return f"exact below {self.most:,}; {self.most:,} means {self.most:,} or more"

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Count the hashes."""
        del span
        family = Distinct(column, kind, self.most)
        counts = family.counts(states[family.state])
        return Values(counts, np.ones(len(counts), dtype=bool))
