"""One column of a contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rtml.columns import TIMESTAMP

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
"""Signed ones: Delta has no others, and a difference of unsigned ones wraps around."""
FLOATS = (pl.Float32, pl.Float64)


@dataclass(frozen=True)
class Column:
    """One column of a contract: its Polars type, whether it may be null, and its checks (name → arguments)."""

    name: str
    dtype: pl.DataType
    nullable: bool
    checks: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def is_integer(self) -> bool:
        """Whether values are integers."""
        return self.dtype in INTEGERS

    @property
    def is_float(self) -> bool:
        """Whether values are floats."""
        return self.dtype in FLOATS

    @property
    def is_timestamp(self) -> bool:
        """Whether values are instants."""
        return self.dtype == TIMESTAMP
