"""The lake follows a contract: new columns come with an append, wider types by one rewrite of the table.

Delta has no column of two types, and an append casts to the column's own: Float64s would be cut to Float32s without a
word. So whoever appends by a wider contract widens the table first: read and written in one commit, a day at a time in
memory. What others append meanwhile stays, and is read as the wider type.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import arro3.core
import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from rtml.define.compatibility import common_type
from rtml.lake import EVENT_DATE
from streaming.delta import Columns, open_table, rows_by_day

ATTEMPTS = 8

log = logging.getLogger(__name__)


def follow(uri: str, schema: Columns) -> bool:
    """Widen a table's columns so that they hold a schema's types, and say whether that was needed.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    tidied = False
    for attempt in range(ATTEMPTS):
        table = open_table(uri)
        present = {} if table is None else dict(pl.scan_delta(table).collect_schema())
        wider = {name: common_type(present[name], dtype) for name, dtype in schema.items() if name in present}
        wanted = present | {name: dtype for name, dtype in wider.items() if dtype is not None}
        if table is None or (wanted == present and not tidied):
            return attempt > 0
        version = table.version()
        try:
            _rewrite(table, wanted)
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
            continue
        changed = [name for name, dtype in wanted.items() if dtype != present[name]]
        log.info("%s: columns %s are wider now", uri, ", ".join(changed) or "as before")
        tidied = _was_tidied(table, version)
    return True


def _was_tidied(table: DeltaTable, version: int) -> bool:
    """Whether files were joined since a version, beside a rewrite of it: then their rows are there twice.

    Delta calls that no conflict. Rows of `raw/` may repeat; yet the next rewrite takes these out again.
    """
    beside = table.version() - version
    return beside > 1 and any(entry["operation"] == "OPTIMIZE" for entry in table.history(limit=beside))


def _rewrite(table: DeltaTable, schema: Columns) -> None:
    rows = pl.scan_delta(table).select(pl.col(name).cast(dtype) for name, dtype in schema.items())

    def days() -> Iterator[arro3.core.RecordBatch]:
        for day in rows_by_day(table):
            some = rows.filter(pl.col(EVENT_DATE) == day).unique().collect()
            yield from arro3.core.Table.from_arrow(some).to_batches()

    empty = arro3.core.Table.from_arrow(pl.DataFrame(schema=dict(schema)))
    reader = arro3.core.RecordBatchReader.from_batches(empty.schema, days())
    write_deltalake(table, reader, mode="overwrite", schema_mode="overwrite", partition_by=[EVENT_DATE])
