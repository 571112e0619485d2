"""Whether events keep their source's contract: pandera, over a whole frame.

The stream's gate compiles the same contract to Polars expressions; here pandera itself is the judge, so that the two
check each other.
"""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from quality.verdict import EXAMPLES, Failure, Verdict
from rtml.define.source import EventSource


def check_contract(source: EventSource, events: pl.DataFrame) -> Verdict:
    """Return all the ways in which events break their source's contract; columns of the platform are not looked at."""
    frame = events.select([name for name in source.columns if name in events.columns])
    failures = [*_broken_rules(source, frame), *_not_finite(source, frame)]
    return Verdict(events.height, tuple(failures))


def breaking_rows(source: EventSource, events: pl.DataFrame) -> pl.DataFrame:
    """Return those events that break the contract; all of them where a failure is that of a column as a whole."""
    frame = events.select([name for name in source.columns if name in events.columns])
    cases = _cases(source, frame)
    floats = [name for name, column in source.columns.items() if column.is_float and name in frame.columns]
    wrong = frame.select(pl.any_horizontal(pl.lit(value=False), ~pl.col(floats).is_finite())).to_series()
    if cases is not None and cases["index"].null_count():
        return events
    named = [] if cases is None else cases["index"].to_list()
    return events.filter(pl.int_range(pl.len()).is_in(named) | wrong.fill_null(value=False))


def _broken_rules(source: EventSource, frame: pl.DataFrame) -> list[Failure]:
    cases = _cases(source, frame)
    return [] if cases is None else _summed_up(cases)


def _cases(source: EventSource, frame: pl.DataFrame) -> pl.DataFrame | None:
    """Return pandera's failure cases, one row each; nothing where all is well."""
    try:
        source.schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
        return cases
    return None


def _summed_up(cases: pl.DataFrame) -> list[Failure]:
    """Return pandera's failure cases, one row each, as one failure for each column and check."""
    named = pl.when(pl.col("schema_context") == "Column").then("column").otherwise("failure_case").alias("column")
    grouped = (
        cases.with_columns(named)
        .group_by("column", "check", maintain_order=True)
        .agg(
            pl.col("index").count().alias("count"),
            pl.col("failure_case").unique(maintain_order=True).head(EXAMPLES).alias("examples"),
        )
    )
    return [
        Failure(column, check, count, tuple(_shown(example) for example in examples if count))
        for column, check, count, examples in grouped.rows()
    ]


def _shown(example: object) -> str:
    return "null" if example is None else str(example)


def _not_finite(source: EventSource, frame: pl.DataFrame) -> list[Failure]:
    """Pandera lets NaN and infinities pass where no check of the column says otherwise; the gate does not."""
    failures = []
    for name, column in source.columns.items():
        if column.is_float and name in frame.columns and frame.schema[name].is_float():
            wrong = frame[name].filter(~frame[name].is_finite())
            if len(wrong):
                examples = tuple(str(value) for value in wrong.unique(maintain_order=True).head(EXAMPLES))
                failures.append(Failure(name, "finite", len(wrong), examples))
    return failures
