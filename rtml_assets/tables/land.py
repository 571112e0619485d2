"""History that did not come through the stream: checked, and appended to `raw/`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from quality.contracts import check_contract
from rtml.algebra.family import ID64
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.errors import SendError, near_miss
from rtml.instants import Instant, to_instant
from rtml.lake import EVENT_DATE, Lake, raw_schema, signed
from rtml.online import keys
from rtml.projection import INGESTED_AT
from rtml_assets.tables.delta import append
from rtml_assets.tables.touched import in_history
from streaming.contracts import refuse_other
from streaming.evolve import follow
from streaming.gate import id64
from streaming.positions import START, Position, raise_position

if TYPE_CHECKING:
    from redis import Redis

Progress = Callable[[int, int], None]
"""Told how many rows are done, of how many."""

ROWS_AT_ONCE = 500_000
NOT_FROM_A_STREAM = -1
"""The partition of landed events, where a source tells its events apart by their place."""


def land(
    lake: Lake,
    client: Redis,
    source: EventSource,
    frame: pl.DataFrame,
    *,
    until: datetime | Instant | None = None,
    progress: Progress | None = None,
) -> int:
    """Append history to `raw/`, note in Redis up to when it goes, and return how many rows there were.

    Args:
        lake: where `raw/` is.
        client: the Redis that keeps the positions.
        source: whose events.
        frame: the contract's columns and `ingested_at`, `Datetime("us", "UTC")`; in any order.
        until: the instant before which everything that was ingested is in the frame: history is published up to it,
            less the lateness. By default the last stamp; say it where a frame is cut, or the stream will not be asked
            for what is missing.
        progress: called after each part.

    Raises:
        SendError: the frame is no history of this source; names the column, what was expected and what was got.
        RequestError: the contract in force does not allow the source's.
    """
    refuse_other(lake, source)
    frame = _brought_up(source, frame)
    _check_columns(source, frame)
    _check_rows(source, frame)
    follow(lake.raw(source.name), raw_schema(source))
    rows = _with_platform_columns(source, frame).sort(EVENT_DATE, maintain_order=True)
    for start in range(0, rows.height, ROWS_AT_ONCE):
        append(lake.raw(source.name), rows[start : start + ROWS_AT_ONCE])
        if progress is not None:
            progress(min(start + ROWS_AT_ONCE, rows.height), rows.height)
    if rows.height:
        _note(client, source, to_instant(rows[INGESTED_AT].max()) if until is None else to_instant(until))
    return rows.height


def _note(client: Redis, source: EventSource, until: Instant) -> None:
    """Only now, when the rows are durable, may anybody count on them."""
    client.set(keys.landed(source.name), until)
    for partition in range(source.stream.partitions):
        raise_position(client, keys.mirrored(source.name), partition, Position(START, until))


def _with_platform_columns(source: EventSource, frame: pl.DataFrame) -> pl.DataFrame:
    if source.event_id is None:
        names = [f"{NOT_FROM_A_STREAM}:{row}" for row in range(frame.height)]
    else:
        names = [str(value) for value in frame[source.event_id].to_list()]
    ids = pl.Series(ID64, [id64(name) for name in names], dtype=pl.UInt64)
    day = pl.col(source.timestamp).dt.date().alias(EVENT_DATE)
    return frame.with_columns(ids, day).with_columns(signed(ID64)).select(*raw_schema(source))


def _brought_up(source: EventSource, frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a former contract as those of today's: what is optional may lack."""
    lacking = [column for name, column in source.columns.items() if column.nullable and name not in frame.columns]
    return frame.with_columns(pl.lit(None, dtype=column.dtype).alias(column.name) for column in lacking)


def _check_columns(source: EventSource, frame: pl.DataFrame) -> None:
    expected = {**source.frame_schema, INGESTED_AT: TIMESTAMP}
    for name, dtype in expected.items():
        if name not in frame.columns:
            raise SendError(f"{_where(source)}: no column {name!r}.{near_miss(name, frame.columns)}")
        if frame.schema[name] != dtype:
            naive = isinstance(frame.schema[name], pl.Datetime) and frame.schema[name].time_zone is None  # type: ignore[attr-defined]
            why = " (naive: say which zone it is in)" if naive else ""
            raise SendError(f"{_where(source)}: column {name!r} must be {dtype}; got {frame.schema[name]}{why}")
    for name in frame.columns:
        if name not in expected:
            raise SendError(f"{_where(source)}: column {name!r} is not in the contract.{near_miss(name, expected)}")
    if nulls := frame[INGESTED_AT].null_count():
        raise SendError(f"{_where(source)}: column {INGESTED_AT!r} must not be null; got {nulls:,} nulls")


def _check_rows(source: EventSource, frame: pl.DataFrame) -> None:
    verdict = check_contract(source, frame)
    if not verdict.passed:
        raise SendError(f"{_where(source)}: rows break the contract\n{verdict}")
    time = pl.col(source.timestamp)
    early = frame.filter(pl.col(INGESTED_AT) + pl.duration(microseconds=source.skew_us) < time)
    if early.height:
        raise SendError(
            f"{_where(source)}: column {INGESTED_AT!r} must be at most {source.skew} before {source.timestamp!r}; "
            f"got {early.height:,} earlier, such as {early[INGESTED_AT][0]} for {early[source.timestamp][0]}"
        )
    outside = [day for day in frame.select(time.dt.date()).to_series().unique() if not in_history(source, day)]
    if outside:
        last = source.last_day or "today"
        raise SendError(
            f"{_where(source)}: column {source.timestamp!r} must lie between {source.first_day} and {last} (the "
            f"source's starts and ends); got {min(outside)}" + (f" to {max(outside)}" if len(outside) > 1 else "")
        )


def _where(source: EventSource) -> str:
    return f"history of source {source.name!r}"
