"""The contract, judged by pandera: passes what the gate passes, and says all that is wrong."""

from __future__ import annotations

import polars as pl

import rtml
from quality.contracts import check_contract
from quality.verdict import Failure, Verdict
from rtml.columns import TIMESTAMP
from rtml.instants import to_datetime


class Reading(rtml.Event):
    reading_id: str
    at: rtml.Timestamp
    level: float = rtml.Field(ge=0, le=10, nullable=True)
    gauge: float
    kind: int = rtml.Field(isin=[1, 2])


readings = rtml.EventSource(
    name="readings", schema=Reading, timestamp="at", event_id="reading_id", stream=rtml.RedisStream("readings")
)


def frame(**columns: list[object]) -> pl.DataFrame:
    count = max([len(values) for values in columns.values()], default=2)
    data: dict[str, list[object]] = {
        "reading_id": [f"r{row}" for row in range(count)],
        "at": [to_datetime(row) for row in range(count)],
        "level": [1.0] * count,
        "gauge": [2.0] * count,
        "kind": [1] * count,
    }
    types = {**readings.frame_schema, "at": TIMESTAMP}
    return pl.DataFrame(data | columns, schema=types)


def test_events_that_keep_the_contract_pass():
    verdict = check_contract(readings, frame(level=[None, 0.0, 10.0]).with_columns(pl.lit(1).alias("ingested_at")))
    assert verdict == Verdict(3)
    assert verdict.passed
    assert str(verdict) == "3 rows passed"


def test_every_failure_is_named_with_its_count_and_examples():
    verdict = check_contract(
        readings, frame(level=[-1.0, -2.0, 11.0, 5.0], kind=[1, 3, 3, 4], gauge=[None, 1.0, 1.0, 1.0])
    )
    assert not verdict.passed
    assert set(verdict.failures) == {
        Failure("level", "greater_than_or_equal_to(0)", 2, ("-1.0", "-2.0")),
        Failure("level", "less_than_or_equal_to(10)", 1, ("11.0",)),
        Failure("kind", "isin([1, 2])", 3, ("3", "4")),
        Failure("gauge", "not_nullable", 1, ("null",)),
    }
    assert "kind: isin([1, 2]): 3 rows, such as 3, 4" in str(verdict).splitlines()


def test_what_is_not_finite_fails_whatever_the_checks_say():
    verdict = check_contract(readings, frame(gauge=[float("inf"), 1.0], level=[float("-inf"), None]))
    assert Failure("gauge", "finite", 1, ("inf",)) in verdict.failures
    assert Failure("level", "finite", 1, ("-inf",)) in verdict.failures


def test_missing_columns_and_other_types_fail_as_columns():
    verdict = check_contract(readings, frame().drop("level").with_columns(pl.col("kind").cast(pl.Int32)))
    assert Failure("level", "column_in_dataframe", 0) in verdict.failures
    assert Failure("kind", "dtype('Int64')", 0) in verdict.failures


def test_no_events_pass():
    assert check_contract(readings, frame().clear()).passed
