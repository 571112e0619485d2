"""The most frequent values: counters, and by how much they may be short.

Misra and Gries, "Finding Repeated Elements" (1982), merged by Agarwal et al., "Mergeable Summaries" (2012). It is what
DataSketches' frequent items are, which keep Python objects here: 30 to 100 times as long to combine, and for the same
bytes twice the error.

A state   b"C", version (u8), shortfall (i64), values (u64 each: bits, or hashes), counts (i64 each)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.family import NUMPY_KIND, Aggregate, Array, Family, Kind, Output, Span, States, Values, repeat_groups
from rtml.algebra.ragged import Gathering, counted, first_of_runs, flat, order_in_groups, places, sizes
from rtml.errors import CodecError, DefinitionError

VERSION = 1
HEAD = bytes((ord("C"), VERSION))
MOST = 4096
"""The greatest number of counters."""
_HEAD, _WORD = len(HEAD), 8


@dataclass(frozen=True)
class Table:
    """Counters of many states: whose they are, values, counts; by owner, then by value. `short` is by owner."""

    owners: Array
    values: Array
    counts: Array
    short: Array
    """A value was there as often as its counter says, and at most this much more often."""


@dataclass(frozen=True)
class Counters(Gathering):
    """A counter for each value while these are few; then the greatest, all lessened by what takes the others away.

    What is taken away in all is at most the number of values over `most + 1`.
    """

    most: int = 128
    code: ClassVar[str] = "counters"

    @property
    def state(self) -> str:
        """With their number in its name."""
        return self._named(f"counters_{self.most}")

    @property
    def bulk(self) -> int:
        """Two words a counter."""
        return 2 * _WORD * self.most

    def gather(self, values: Array, starts: Array) -> Array:
        """Count each run."""
        owners = repeat_groups(starts, len(values))
        counts = np.ones(len(values), dtype=np.int64)
        return self._packed(self._fewer(owners, self._bits(values), counts, np.zeros(len(starts), dtype=np.int64)))

    def join(self, states: Array, starts: Array) -> Array:
        """Add counters up."""
        table, groups = self.table(states), repeat_groups(starts, len(states))
        short = np.add.reduceat(table.short, starts) if len(starts) else table.short
        return self._packed(self._fewer(groups[table.owners], table.values, table.counts, short))

    def table(self, states: Array) -> Table:
        """Take states apart.

        Raises:
            CodecError: one is not of this family.
        """
        entries = states.tolist()
        lengths = sizes(entries)
        words = np.maximum(lengths - _HEAD, 0) // _WORD
        odd = (lengths > 0) & ((words % 2 != 1) | (words > 1 + 2 * self.most) | (lengths != _HEAD + words * _WORD))
        heads = np.array([entry[:_HEAD] in (HEAD, b"") for entry in entries], dtype=bool)
        wrong = np.flatnonzero(odd | ~heads)
        if len(wrong):
            entry = entries[wrong[0]]
            raise CodecError(
                f"{self.state}: a state must be at most {self.most:,} counters of version {VERSION}; got "
                f"{len(entry):,} bytes, {entry[:_WORD].hex()}…"
            )
        data = flat([entry[_HEAD:] for entry in entries], "<u8")
        counts = words // 2
        starts = np.cumsum(words) - words
        there = words > 0
        short = np.zeros(len(entries), dtype=np.int64)
        short[there] = data[starts[there]].view(np.int64)
        owners, place = np.repeat(np.arange(len(entries)), counts), places(counts)
        at = starts[owners] + 1 + place
        return Table(owners, data[at], data[at + counts[owners]].view(np.int64), short)

    def decoded(self, bits: Array) -> Array:
        """Return values as the column has them."""
        return bits.view(NUMPY_KIND[self.kind])

    def _bits(self, values: Array) -> Array:
        if self.kind == "f64":
            return np.asarray((values.astype(np.float64) + 0.0).view(np.uint64))  # −0.0 is 0.0
        return values.astype(NUMPY_KIND[self.kind], copy=False).view(np.uint64)

    def _fewer(self, owners: Array, values: Array, counts: Array, short: Array) -> Table:
        """Add up equal values, and keep no more than there may be."""
        order = order_in_groups(owners, values)
        values = values[order]
        first = np.flatnonzero(first_of_runs(owners, values))
        counts = np.add.reduceat(counts[order], first) if len(first) else counts
        owners, values = owners[first], values[first]
        number = counted(owners, len(short))
        over = number > self.most
        if over.any():
            greatest = order_in_groups(owners, -counts)
            limit = np.zeros(len(short), dtype=np.int64)
            limit[over] = counts[greatest[(np.cumsum(number) - number)[over] + self.most]]
            counts = counts - limit[owners]
            kept = counts > 0
            owners, values, counts, short = owners[kept], values[kept], counts[kept], short + limit
        return Table(owners, values, counts, short)

    @staticmethod
    def _packed(table: Table) -> Array:
        number = counted(table.owners, len(table.short))
        words = 2 * number + 1
        starts = np.cumsum(words) - words
        data = np.empty(int(words.sum()), dtype=np.uint64)
        data[starts] = table.short.view(np.uint64)
        at = starts[table.owners] + 1 + places(number)
        data[at], data[at + number[table.owners]] = table.values, table.counts.view(np.uint64)
        there = (number > 0) | (table.short > 0)
        packed, edges = data.tobytes(), (np.append(starts, len(data)) * _WORD).tolist()
        states = np.empty(len(number), dtype=object)
        states[:] = [
            HEAD + packed[edges[row] : edges[row + 1]] if some else b"" for row, some in enumerate(there.tolist())
        ]
        return states

    def ranked(self, states: Array, k: int) -> tuple[Array, Array, Array, Array]:
        """Return the `k` most frequent of each state, of equals the lesser: rows, places in them, values, counts."""
        table = self.table(states)
        values = self.decoded(table.values)
        order = np.lexsort((values, -table.counts, table.owners))
        place = places(counted(table.owners, len(states)))
        chosen = order[place < k]
        return table.owners[chosen], place[place < k], values[chosen], table.counts[chosen]


@dataclass(frozen=True)
class ApproxTopK(Aggregate):
    """The most frequent values, most frequent first, of equals the lesser one; an empty list when there are none.

    Of strings that are equally frequent, the one whose hash is less.
    """

    name = "approx_top_k"
    takes_boolean = True
    takes_string = True
    k: int = 10
    counters: int = 0
    """How many values are counted; 0 for 16 times as many as are wanted, 128 at least."""

    def __post_init__(self) -> None:
        """Validate both numbers."""
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MOST // 4:
            raise DefinitionError.at(self.name, "k", f"an integer from 1 to {MOST // 4:,}", self.k)
        given = self.counters
        if isinstance(given, bool) or not isinstance(given, int) or not (given == 0 or self.k <= given <= MOST):
            raise DefinitionError.at(self.name, "counters", f"an integer from k ({self.k}) to {MOST:,}", given)

    @property
    def most(self) -> int:
        """How many values are counted."""
        return self.counters or min(max(16 * self.k, 128), MOST)

    @property
    def share_error(self) -> float:
        """By what share of the number of values a count is short at most."""
        return 1 / (self.most + 1)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The counters."""
        return (Counters(column, kind, self.most),)

    def output(self, kind: Kind) -> Output:
        """A list of values."""
        return Output(kind, self.k)

    def bound(self, kind: Kind) -> str | None:
        """By how much counts may be short."""
        del kind
        return (
            f"exact up to {self.most:,} different values; beyond, none that is left out is more frequent than one in "
            f"the list by more than {self.share_error:.2%} of all values"
        )

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the values of the greatest counters."""
        del span
        family = Counters(column, kind, self.most)
        entries = states[family.state]
        found = self.output(kind).room(len(entries))
        rows, place, values, _ = family.ranked(entries, self.k)
        found.values[rows, place] = values
        return Values(found.values, np.ones(len(entries), dtype=bool), counted(rows, len(entries)))
