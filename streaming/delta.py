"""Delta tables by day, as all who read them do: opened, counted and scanned under a schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

import polars as pl
from deltalake import DeltaTable

from rtml.lake import EVENT_DATE

Columns = Mapping[str, pl.DataType]


def open_table(uri: str) -> DeltaTable | None:
    """Return a table as it is now, if there is one."""
    return DeltaTable(uri) if DeltaTable.is_deltatable(uri) else None


def scan(table: DeltaTable | None, schema: Columns, days: Collection[date] | None = None) -> pl.LazyFrame:
    """Return a table's rows, or those of some days, under a schema; none when there is no table.

    A column that the table does not have yet is null.
    """
    if table is None:
        return pl.LazyFrame(schema=dict(schema))
    rows = pl.scan_delta(table)
    present = rows.collect_schema().names()
    if days is not None:
        rows = rows.filter(pl.col(EVENT_DATE).is_in(list(days)))
    columns = [pl.col(name) if name in present else pl.lit(None).alias(name) for name in schema]
    return rows.select(column.cast(dtype) for column, dtype in zip(columns, schema.values(), strict=True))


def rows_by_day(table: DeltaTable | None) -> dict[date, int]:
    """Return how many rows each day has, from the table's log alone."""
    if table is None:
        return {}
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    if files.is_empty():
        return {}
    counted = (
        files.group_by(f"partition.{EVENT_DATE}").agg(pl.col("num_records").sum()).filter(pl.col("num_records") > 0)
    )
    return {day: int(count) for day, count in counted.sort(f"partition.{EVENT_DATE}").rows()}
