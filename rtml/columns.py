"""Types and names of columns that the whole platform shares."""

from __future__ import annotations

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")
"""Every instant in a table: microseconds, UTC."""
KEY_TYPES = {"str": pl.String(), "int": pl.Int64(), "bool": pl.Boolean()}
"""Join keys, by their kind."""
SPINE_TIME = "timestamp"
"""The instant of a spine's row, and of a served vector."""
