"""Which columns an aggregate takes, and how each is kept."""

from __future__ import annotations

import polars as pl

from rtml.algebra.family import Aggregate, Kind


def kind_of(aggregate: Aggregate, dtype: pl.DataType) -> Kind | None:
    """Return how a column of this type is kept for an aggregate; None where it takes no such column."""
    if dtype == pl.String:
        return "str" if aggregate.takes_string else None
    if dtype == pl.Boolean:
        return "i64" if aggregate.takes_boolean else None
    if not dtype.is_numeric() or not aggregate.takes_number:
        return None
    return "f64" if dtype.is_float() else "i64"


def taken_by(aggregate: Aggregate) -> str:
    """Return in words which columns an aggregate takes."""
    takes = {"numeric": aggregate.takes_number, "boolean": aggregate.takes_boolean, "string": aggregate.takes_string}
    *others, last = [word for word, takes_it in takes.items() if takes_it]
    words = f"{', '.join(others)} or {last}" if others else last
    return f"a {words} column"
