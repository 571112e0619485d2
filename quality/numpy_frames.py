"""Polars → pandas over numpy: Great Expectations reads nothing else as fast, and Arrow is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

EXACT_IN_A_FLOAT = 2**53
_NO_TIME = -(2**63)
"""What numpy takes for no time."""


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Return a frame with columns of numpy, and the numbers of its rows as its index; instants are in UTC.

    Integers and floats have 64 bits. Strings, and booleans with nulls, are Python objects; integers with nulls are
    floats where floats are exact.
    """
    import pandas as pd  # noqa: PLC0415 (half a second)

    return pd.DataFrame({series.name: _column(series) for series in frame}, index=pd.RangeIndex(frame.height))


def _column(series: pl.Series) -> pd.Series:
    import pandas as pd  # noqa: PLC0415

    dtype = series.dtype
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        micros = series.cast(pl.Datetime("us")).to_physical()
        values = micros.fill_null(_NO_TIME).to_numpy(writable=True).view("datetime64[us]")
        return pd.Series(values).dt.tz_localize("UTC")
    if dtype.is_float() or (dtype.is_integer() and _fits(series)):
        return pd.Series(series.cast(pl.Float64 if dtype.is_float() or series.null_count() else pl.Int64).to_numpy())
    if dtype == pl.Boolean and not series.null_count():
        return pd.Series(series.to_numpy(writable=True))
    # The type is said: pandas would take strings for a type of its own.
    return pd.Series(series.to_list(), dtype=object)


def _fits(series: pl.Series) -> bool:
    """Whether integers keep their values."""
    if not series.null_count():
        return True
    least, most = series.min(), series.max()
    return all(abs(int(value)) <= EXACT_IN_A_FLOAT for value in (least, most) if isinstance(value, int))
