"""`quarantine/<source>`: what the gate refused, what checks hold, and what has become of it."""

from __future__ import annotations

from datetime import date

import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64
from rtml.define.source import EventSource
from rtml.instants import now, to_datetime
from rtml.lake import EVENT_DATE, INGEST_DATE, QUARANTINE, Lake, raw_schema, signed
from rtml.projection import INGESTED_AT
from rtml_assets.tables.decisions import CHECK, decided, subject_of_event, subject_of_place, with_revision
from rtml_assets.tables.delta import built_at, open_table, scan
from streaming.mended import ACCEPTED
from streaming.mirror import append_quarantined

CONTRACT = "contract"
"""The check that holds what breaks the contract as it is by now, though the gate let it pass once."""
HELD, REPLAYED, PASSED = "held", "replayed", "passed"
"""Waiting for somebody; decided on; of a day that was built since, for it passes by now: nothing is left to decide."""
STATE = "state"
_HELD_BY = ["reason", EVENT_TIME, ID64, INGESTED_AT, "revision"]
_ANY = pl.lit(value=True)


def hold(lake: Lake, source: EventSource, day: date, rows: pl.DataFrame, check: str, words: str) -> int:
    """Put events that a check does not let pass into quarantine, and return how many were not there yet.

    The events stay in `raw/`, and their day as it was, until somebody decides.

    Args:
        lake: where `quarantine/` is.
        source: whose events.
        day: theirs.
        rows: some of the events as they count now, with the columns of `events/`.
        check: which check; its name.
        words: what is wrong with them.
    """
    if rows.is_empty():
        return 0
    if rows.schema[ID64] == pl.UInt64:
        rows = rows.with_columns(signed(ID64))
    events = rows.select(*raw_schema(source))
    found = events.select(pl.col(source.timestamp).alias(EVENT_TIME), ID64, INGESTED_AT).with_columns(
        pl.lit(day).alias(EVENT_DATE),
        payloads(source, events),
        pl.lit(CHECK + check).alias("reason"),
        pl.lit(words).alias("detail"),
        pl.col(INGESTED_AT).dt.date().alias(INGEST_DATE),
    )
    found = with_revision(lake, source, found)
    known = held(lake, source, (pl.col("reason") == CHECK + check) & (pl.col(EVENT_DATE) == day), bodies=False)
    new = found.join(known.filter(pl.col(STATE) != PASSED), on=_HELD_BY, how="anti")
    if new.height:
        append_quarantined(lake, source, new.with_columns(pl.lit(to_datetime(now())).alias("held_at")))
    return new.height


def payloads(source: EventSource, events: pl.DataFrame) -> pl.Series:
    """Return events as the messages that the gate takes: JSON, with times in integer microseconds."""
    times = [pl.col(name).dt.epoch("us") for name, column in source.columns.items() if column.is_timestamp]
    lines = events.select(list(source.columns)).with_columns(times).write_ndjson().split("\n")[: events.height]
    return pl.Series("payload", [line.encode() for line in lines], dtype=pl.Binary)


def quarantined(lake: Lake, source: EventSource, *, bodies: bool = False) -> pl.LazyFrame:
    """Return the rows of `quarantine/`, some of them more than once; with `bodies`, their payloads and words, too."""
    rows = scan(open_table(lake.quarantine(source.name)), QUARANTINE)
    return rows if bodies else rows.drop("payload", "detail")


def refused(lake: Lake, source: EventSource, *, bodies: bool = True) -> pl.DataFrame:
    """Return what the gate refused, each event once, with its `state` and what it is decided by (`subject`).

    Without `bodies`, payloads and words are left out.
    """
    rows = quarantined(lake, source, bodies=bodies).filter(pl.col("offset").is_not_null()).collect()
    once = rows.unique(["partition", "offset"], keep="first").sort(INGESTED_AT, "partition", "offset")
    return _with_state(lake, source, once.with_columns(subject_of_place().alias("subject")))


def held(lake: Lake, source: EventSource, where: pl.Expr = _ANY, *, bodies: bool = True) -> pl.DataFrame:
    """Return what checks hold, each event once for a check, with its `state` and what it is decided by (`subject`)."""
    rows = quarantined(lake, source, bodies=bodies).filter(pl.col("offset").is_null() & where).collect()
    once = rows.sort("held_at", nulls_last=False).unique(_HELD_BY, keep="last").sort(_HELD_BY)
    next_one = once.with_columns(pl.col("revision") + 1).select(subject_of_event().alias("subject"))
    return _passed(lake, source, _with_state(lake, source, once.hstack(next_one)))


def gates(source: EventSource) -> list[str]:
    """Return the reasons for which a day of `events/` is held before it is built."""
    return [CHECK + name for name in (CONTRACT, *(one.name for one in source.expectations))]


def _passed(lake: Lake, source: EventSource, rows: pl.DataFrame) -> pl.DataFrame:
    """Say what has passed by now: its day was built after the gate had held it, so that no check of the gate does."""
    waiting = (pl.col(STATE) == HELD) & pl.col("reason").is_in(gates(source))
    built = built_at(open_table(lake.events(source.name)), rows.filter(waiting)[EVENT_DATE].unique())
    since = pl.col(EVENT_DATE).replace_strict(built, default=None, return_dtype=pl.Int64)
    passed = waiting & (pl.col("held_at").dt.epoch("us") < since).fill_null(value=False)
    return rows.with_columns(pl.when(passed).then(pl.lit(PASSED)).otherwise(STATE).alias(STATE))


def _with_state(lake: Lake, source: EventSource, rows: pl.DataFrame) -> pl.DataFrame:
    """Add `state`: an event under a check is accepted with its day; the others are decided on one by one."""
    subjects = decided(lake, source).select("subject").collect()["subject"]
    days = accepted(lake, source)
    schema = {EVENT_DATE: pl.Date, "reason": pl.String, "__accepted": pl.Boolean}
    allowed = pl.DataFrame([(day, CHECK + check, True) for day, check in days], schema=schema, orient="row")
    joined = rows.join(allowed, on=[EVENT_DATE, "reason"], how="left", maintain_order="left")
    state = (
        pl.when(pl.col("subject").is_in(subjects.implode()))
        .then(pl.lit(REPLAYED))
        .when(pl.col("__accepted").fill_null(value=False))
        .then(pl.lit(ACCEPTED))
        .otherwise(pl.lit(HELD))
    )
    return joined.with_columns(state.alias(STATE)).drop("__accepted")


def accepted(lake: Lake, source: EventSource) -> set[tuple[date, str]]:
    """Return the days that may be built although a check fails, each with the check's name."""
    rows = decided(lake, source).filter(pl.col("kind") == ACCEPTED).select(EVENT_DATE, "reason").collect()
    return {(day, reason.removeprefix(CHECK)) for day, reason in rows.rows()}


def summary(lake: Lake, source: EventSource) -> pl.DataFrame:
    """Return how many events are in quarantine: `reason`, `day` (of the event, or of its arrival), `state`, `rows`."""
    parts = [
        refused(lake, source, bodies=False).select("reason", pl.col(INGEST_DATE).alias("day"), STATE),
        held(lake, source, bodies=False).select("reason", pl.col(EVENT_DATE).alias("day"), STATE),
    ]
    counted = pl.concat(parts).group_by("reason", "day", STATE).agg(pl.len().alias("rows"))
    return counted.sort("reason", "day", STATE)
