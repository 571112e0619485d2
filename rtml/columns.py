"""Types and names of columns that the whole platform shares."""

from __future__ import annotations

import polars as pl

from rtml.algebra.family import Kind

TIMESTAMP = pl.Datetime("us", "UTC")
"""Every instant in a table: microseconds, UTC."""
KEY_TYPES = {"str": pl.String(), "int": pl.Int64(), "bool": pl.Boolean()}
"""Join keys, by their kind."""
LANE_TYPES: dict[Kind, pl.DataType] = {"f64": pl.Float64(), "i64": pl.Int64(), "str": pl.UInt64()}
"""The value columns of a view's events, by how they are kept."""
SPINE_TIME = "timestamp"
"""The instant of a spine's row, and of a served vector."""
