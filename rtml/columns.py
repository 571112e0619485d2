"""Types and names of columns that the whole platform shares."""

from __future__ import annotations

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")
"""Every instant in a table: microseconds, UTC."""
SPINE_TIME = "timestamp"
"""The instant of a spine's row, and of a served vector."""
