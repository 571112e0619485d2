"""Frames that come in pieces → one Delta table or Parquet file, at no time whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from deltalake.exceptions import DeltaError
from polars.io.plugins import register_io_source

from rtml.errors import RtmlError
from rtml_assets.tables.delta_types import delta_schema, to_delta

PARQUET = ".parquet"


def write_pieces(pieces: Iterator[pl.DataFrame], schema: pl.Schema, destination: str) -> int:
    """Write pieces of rows, and return how many rows they had.

    Args:
        pieces: frames of one schema, in order.
        schema: that schema.
        destination: `….parquet` becomes one file, with its rows in order; any other folder or URL a Delta table.
            What is there is replaced, at the end and at once. Delta stores categories as strings, and unsigned
            integers in signed ones.

    Raises:
        RequestError: a column that Delta has no type for, before anything is computed; or a value that is too large.
    """
    rows, failed = 0, list[RtmlError]()
    stored = schema if destination.endswith(PARQUET) else delta_schema(schema)

    def counted(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        nonlocal rows
        del predicate, limit, size  # of a whole table that is written there are none
        try:
            for piece in pieces:
                rows += piece.height
                written = to_delta(piece, stored)
                yield written if columns is None else written.select(columns)
        except RtmlError as error:
            failed.append(error)
            raise

    try:
        _sink(register_io_source(counted, schema=stored), destination)
    except DeltaError:
        if failed:  # it is wrapped in words of Arrow's and Delta's
            raise failed[0] from None
        raise
    return rows


def _sink(frame: pl.LazyFrame, destination: str) -> None:
    if not destination.endswith(PARQUET):
        frame.sink_delta(destination, mode="overwrite", delta_write_options={"schema_mode": "overwrite"})
    elif "://" in destination:
        frame.sink_parquet(destination)
    else:
        part = Path(f"{destination}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            frame.sink_parquet(part)
            part.replace(destination)
        finally:
            part.unlink(missing_ok=True)
