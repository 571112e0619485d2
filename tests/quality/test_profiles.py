"""Profiles against brute force, and what is a usual number of rows."""

from __future__ import annotations

import random
import statistics
from datetime import date, timedelta

import polars as pl
import pytest

import rtml
from quality.profiles import QUANTILES, profile_days
from quality.volume import volume_of
from rtml import EventSource, RedisStream

DAY = date(2024, 3, 1)


class Thing(rtml.Event):
    thing_id: str
    at: rtml.Timestamp
    kind: str = rtml.Field(nullable=True)
    size: float = rtml.Field(nullable=True)
    count: int
    good: bool = rtml.Field(nullable=True)


things = EventSource(name="things", schema=Thing, timestamp="at", stream=RedisStream("things"))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, rest = int(place), place - int(place)
    return ordered[low] + rest * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


@pytest.mark.parametrize("seed", range(5))
def test_a_profile_is_what_brute_force_finds(seed):
    rng = random.Random(seed)
    days = [DAY + timedelta(days=number) for number in range(3)]
    rows = [
        {
            "thing_id": f"t{rng.randrange(40)}",
            "kind": rng.choice(["a", "b", None]),
            "size": rng.choice([None, rng.gauss(0, 5)]),
            "count": rng.randrange(-5, 5),
            "good": rng.choice([True, False, None]),
            "event_date": rng.choice(days[:2]),
        }
        for _ in range(60)
    ] + [{"thing_id": "x", "kind": None, "size": None, "count": 1, "good": None, "event_date": days[2]}]
    frame = pl.DataFrame(rows, schema_overrides={"size": pl.Float64})
    found = profile_days(things.columns.values(), frame)
    assert set(found) == set(days)
    for day in days:
        mine = [row for row in rows if row["event_date"] == day]
        assert [one.column for one in found[day]] == ["thing_id", "kind", "size", "count", "good"]
        for one in found[day]:
            values = [row[one.column] for row in mine]
            known = [value for value in values if value is not None]
            assert one.nulls == pytest.approx(1 - len(known) / len(values))
            assert one.distinct == (None if one.column == "size" else len(set(known)))
            assert one.nullable == (one.column not in ("thing_id", "count"))
            numbers = [float(value) for value in known] if one.column in ("size", "count") else []  # type: ignore[arg-type]
            assert (one.least, one.greatest) == ((min(numbers), max(numbers)) if numbers else (None, None))
            if one.column in ("size", "count", "good"):
                mean = statistics.fmean(float(value) for value in known) if known else None  # type: ignore[arg-type]
                assert one.mean == (None if mean is None else pytest.approx(mean))
            if numbers:
                assert one.quantiles == pytest.approx([quantile(numbers, share) for share in QUANTILES])


def test_nothing_has_no_profile():
    schema = {**things.frame_schema, "event_date": pl.Date()}
    assert profile_days(things.columns.values(), pl.DataFrame(schema=schema)) == {}


@pytest.mark.parametrize(
    ("rows", "passed"), [(100, True), (34, True), (33, False), (300, True), (301, False), (0, False)]
)
def test_a_day_is_usual_within_a_factor_of_the_median(rows, passed):
    counts = {DAY - timedelta(days=number): 100 + number % 3 - 1 for number in range(1, 10)} | {DAY: rows}
    found = volume_of(counts, DAY)
    assert (found.passed, found.usual, found.days) == (passed, 100, 9)
    assert f"{rows} rows; the 9 days before it make 33 to 300 usual" in str(found)


def test_too_few_days_before_judge_nothing():
    counts = {DAY - timedelta(days=number): 100 for number in [*range(1, 7), 29, 30]}
    found = volume_of(counts, DAY)
    assert found.passed
    assert str(found) == "2024-03-01: 0 rows; not judged: 6 days before it have rows, it takes 7"
