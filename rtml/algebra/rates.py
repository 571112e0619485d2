"""Rates: how much there is in a second of the window, over the window's actual length."""

from __future__ import annotations

import numpy as np

from rtml.algebra.counting import ROWS, Rows
from rtml.algebra.family import Aggregate, Array, Family, Kind, Span, States, Values
from rtml.algebra.moments import Mean, Total
from rtml.instants import SECOND


class Rate(Aggregate):
    """Events per second of the window `[start, end)`; 0 when it is empty."""

    name = "rate"
    takes_column = False
    takes_lifetime = False

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """Rows."""
        del column, kind
        return (Rows(),)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide the number of events by the window's length."""
        del column, kind
        rows = states[ROWS]
        return Values(rows / _seconds(span), np.ones(len(rows), dtype=bool))


class SumRate(Aggregate):
    """The sum of the values per second of the window `[start, end)`; null when there are none."""

    name = "sum_rate"
    takes_boolean = True
    takes_lifetime = False

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """A total."""
        return (Total(column, kind),)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide the total by the window's length."""
        return Values(Total(column, kind).as_float(states) / _seconds(span), states[f"{column}.n"] > 0)


class Share(Mean):
    """The share of events, of those with a value, for which a boolean is true; null when there are none."""

    name = "share"
    takes_number = False


def _seconds(span: Span) -> Array:
    """Return the windows' lengths; of one that a rounded edge has made longer, the longer one."""
    return np.subtract(span.end, span.start, dtype=np.float64) / SECOND
