"""What approximate answers are judged by: the same states, of many more values. No definition can name these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtml.algebra.counting import Tally
from rtml.algebra.family import Aggregate, Family, Kind, Output, Span, States, Values
from rtml.algebra.frequent import Counters
from rtml.algebra.quantiles import SURE, Ranks, rank_error
from rtml.algebra.ragged import counted

SIZE = 4096
"""So many values, or different ones, a reference still has exactly."""
BESIDE = 64
"""How many values beside the wanted ones `TopCounts` tells the counts of."""
TOTAL, SHORT, DISTINCT, PAIRS = range(4)


@dataclass(frozen=True)
class PercentileBounds(Aggregate):
    """Between which values percentiles by sketches of size `k` must lie: low, high, low, high…"""

    name = "percentile_bounds"
    k: int = 200
    qs: tuple[float, ...] = (0.5,)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """A larger sketch, and of how many values."""
        return (Ranks(column, kind, SIZE), Tally(column, kind))

    def output(self, kind: Kind) -> Output:
        """Pairs."""
        del kind
        return Output("f64", 2 * len(self.qs))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Move ranks by the error of both sketches; of up to `k` values there is none."""
        del span
        family = Ranks(column, kind, SIZE)
        number = states[f"{column}.n"]
        slack = SURE * (rank_error(self.k) * (number > self.k) + rank_error(SIZE) * (number > SIZE))
        ranks = np.repeat(np.array(self.qs), 2) + np.outer(slack, np.tile([-1.0, 1.0], len(self.qs)))
        found = family.at_ranks(states[family.state], np.clip(ranks, 0, 1))
        return Values(found, number > 0, np.where(number > 0, found.shape[1], 0))


@dataclass(frozen=True)
class TopCounts(Aggregate):
    """How frequent the most frequent values are: how many there are in all, by how much counts may be short, how many
    different ones are counted, and then value (its bits), count, value, count…"""

    name = "top_counts"
    k: int = 10

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """More counters, and of how many values."""
        return (Counters(column, kind, SIZE), Tally(column, kind))

    def output(self, kind: Kind) -> Output:
        """Numbers."""
        del kind
        return Output("i64", PAIRS + 2 * (self.k + BESIDE))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Look the counters up."""
        del span
        family = Counters(column, kind, SIZE)
        entries = states[family.state]
        table = family.table(entries)
        found = self.output(kind).room(len(entries))
        rows, place, values, counts = family.ranked(entries, self.k + BESIDE)
        found.values[:, TOTAL], found.values[:, SHORT] = states[f"{column}.n"], table.short
        found.values[:, DISTINCT] = counted(table.owners, len(entries))
        found.values[rows, PAIRS + 2 * place] = values.view(np.int64)
        found.values[rows, PAIRS + 2 * place + 1] = counts
        return Values(found.values, np.ones(len(entries), dtype=bool), PAIRS + 2 * counted(rows, len(entries)))
