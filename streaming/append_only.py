"""Delta tables that only grow: rows are appended, and nothing that was written is changed or removed."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

import polars as pl
from arro3.core import Table
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError

from streaming.delta import open_table, scan

ATTEMPTS = 8
_LONGEST_PAUSE = 0.2

_APPEND_ONLY = {"delta.appendOnly": "true"}
"""Whoever deletes or overwrites by Delta's own means is refused."""

Columns = Mapping[str, pl.DataType]


def append(uri: str, rows: pl.DataFrame, partition_by: Sequence[str] = ()) -> None:
    """Append rows; the first ones make the table. A conflict with another writer is tried again.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    for attempt in range(ATTEMPTS):
        try:
            write_deltalake(_table(uri, rows, partition_by), rows, mode="append")
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
            # Apart by chance, so that those who met once do not meet again. Nothing secret hangs on it.
            time.sleep(random.uniform(0, _LONGEST_PAUSE))  # nosec B311
        else:
            return


def read(uri: str, schema: Columns) -> pl.DataFrame:
    """Return all rows under a schema, none where there is no table."""
    return scan(open_table(uri), schema).collect()


def _table(uri: str, rows: pl.DataFrame, partition_by: Sequence[str]) -> DeltaTable:
    table = open_table(uri)
    if table is not None:
        return table
    columns = Schema.from_arrow(Table.from_arrow(rows.clear()).schema)
    return DeltaTable.create(uri, columns, mode="ignore", partition_by=list(partition_by), configuration=_APPEND_ONLY)
