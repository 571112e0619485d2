"""`decisions/<source>`: what was decided of quarantined events; each subject once, each call in one commit."""

from __future__ import annotations

import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.instants import Instant, to_datetime
from rtml.lake import DECISIONS, Lake
from rtml.projection import INGESTED_AT
from rtml_assets.tables.delta import merge_new, open_table, scan

CHECK = "check:"
"""How the reason begins for which a check holds an event."""
_IDENTITY = [EVENT_TIME, ID64, INGESTED_AT]


def decide(lake: Lake, source: EventSource, rows: pl.DataFrame, *, at: Instant, actor: str, words: str) -> int:
    """Append decisions on what was not decided yet, all in one commit, and return how many those were.

    Args:
        lake: where `decisions/` is.
        source: whose events.
        rows: `kind`, `subject`, `reason`, `event_date`, and what else a kind has.
        at: when it was decided.
        actor: who did.
        words: why.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    told = [pl.lit(to_datetime(at)).alias("decided_at"), pl.lit(actor).alias("actor"), pl.lit(words).alias("words")]
    rows = rows.with_columns(told)
    columns = [pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in DECISIONS]
    new = rows.select(column.cast(dtype) for column, dtype in zip(columns, DECISIONS.values(), strict=True))
    # By the subject alone: another fix of the same message may have given it another day.
    return merge_new(lake.decisions(source.name), new, "old.subject = new.subject")


def decided(lake: Lake, source: EventSource) -> pl.LazyFrame:
    """Return all decisions on a source's events."""
    return scan(open_table(lake.decisions(source.name)), DECISIONS)


def with_revision(lake: Lake, source: EventSource, rows: pl.DataFrame) -> pl.DataFrame:
    """Add to rows with a time, id64 and `ingested_at` how often each event was mended: `revision`, 0 if never."""
    known = decided(lake, source).group_by(_IDENTITY).agg(pl.col("revision").max()).collect()
    joined = rows.join(known, on=_IDENTITY, how="left", maintain_order="left")
    return joined.with_columns(pl.col("revision").fill_null(0))


def subject_of_event() -> pl.Expr:
    """Return the subject of a decision that makes a revision of an event."""
    time, ingested = (pl.col(name).cast(TIMESTAMP).dt.epoch("us") for name in (EVENT_TIME, INGESTED_AT))
    return pl.concat_str(time, ID64, ingested, "revision", separator=":")


def subject_of_place() -> pl.Expr:
    """Return the subject of a decision on an event that the gate refused."""
    return pl.concat_str("partition", "offset", separator=":")
