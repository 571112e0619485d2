"""What a check over a day refuses: its rows beside those that the stream's gate refused, and what a person accepted."""

from __future__ import annotations

from datetime import date

import polars as pl

from rtml.algebra.family import ID64
from rtml.define.source import EventSource
from rtml.lake import EVENT_DATE, INGEST_DATE, QUARANTINE, Lake, unsigned
from rtml.projection import INGESTED_AT
from streaming.delta import open_table

HELD = -1
"""The partition of rows that were refused after they were mirrored."""


def hold(lake: Lake, source: EventSource, day: date, rows: pl.DataFrame, check: str, words: str) -> int:
    """Append rows that a check of a day refuses to `quarantine/`, and return how many were not there yet.

    Args:
        lake: where `quarantine/` is.
        source: whose events.
        day: the day that is not built.
        rows: columns of `raw/`, `id64` signed.
        check: the name of the check.
        words: what it found.
    """
    uri = lake.quarantine(source.name)
    place = pl.format("{}:{}:{}", pl.lit(str(day)), pl.lit(check), unsigned(ID64)).alias("offset")
    payload = pl.struct(pl.exclude(EVENT_DATE)).struct.json_encode().cast(pl.Binary).alias("payload")
    held = rows.select(
        pl.lit(HELD).alias("partition"),
        place,
        INGESTED_AT,
        payload,
        pl.lit(check).alias("reason"),
        pl.lit(words).alias("detail"),
        pl.col(INGESTED_AT).dt.date().alias(INGEST_DATE),
    ).select(pl.col(name).cast(dtype) for name, dtype in QUARANTINE.items())
    if (table := open_table(uri)) is not None:
        known = pl.scan_delta(table).filter(pl.col("partition") == HELD, pl.col("reason") == check).select("offset")
        held = held.join(known.collect(), on="offset", how="anti", maintain_order="left")
    if held.height:
        held.write_delta(uri, mode="append", delta_write_options={"partition_by": [INGEST_DATE]})
    return held.height


def accepted(lake: Lake, source: EventSource) -> set[tuple[date, str]]:
    """Return the checks of days that a person accepted: they warn, and do not block."""
    _ = lake, source
    return set()
