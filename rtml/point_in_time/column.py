"""One value column in the order of the events, without its nulls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra.family import NUMPY_KIND, Array, Kind


@dataclass(frozen=True)
class Column:
    """The values that are not null, in the order of the events."""

    values: Array
    """The values, and one zero behind them."""
    rows: Array
    """The row number of each value's event."""
    before: Array | None
    """How many values lie before each place in the order of all events; None where nothing is null."""

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self.rows)

    @classmethod
    def of(cls, events: pl.DataFrame, order: Array, name: str, kind: Kind) -> Column:
        """Put a column of the events in order."""
        series, before, rows = events[name], None, order
        if series.null_count():
            valid = series.is_not_null().to_numpy()[order]
            before = np.zeros(len(order) + 1, dtype=order.dtype)
            np.cumsum(valid, out=before[1:])
            rows = order[valid]
            series = series.fill_null(0)
        values = np.empty(len(rows) + 1, dtype=NUMPY_KIND[kind])
        np.take(series.to_numpy(), rows, out=values[:-1])
        values[-1] = 0
        return cls(values, rows, before)

    @classmethod
    def none(cls, order: Array) -> Column:
        """Return what stands for the column of aggregates that read none: each event has a place, and no value."""
        return cls(np.empty(0), order, None)

    def places(self, edges: Array) -> Array:
        """Return places among the values, from places among all events."""
        return edges if self.before is None else self.before[edges]
