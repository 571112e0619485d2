"""Great Expectations over frames: every type of expectation, met and not, and suites that follow from definitions."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rtml
from quality.data_docs import page_of, write_page
from quality.generated import of_events, of_values
from quality.numpy_frames import to_pandas
from quality.suites import Suites
from rtml import Count, Entity, EventSource, Expect, Last, LastN, Max, Mean, RedisStream, Stddev, StreamFeatureView, Sum
from rtml.define.expectation import Expectation, resolve_quality
from rtml.define.expectation_types import LEFT_OUT, TYPES
from rtml.lake import features_schema, raw_schema
from rtml.registry import Registry

DAY = date(2024, 3, 1)


class Reading(rtml.Event):
    reading_id: str
    at: rtml.Timestamp
    gauge: str = rtml.Field(isin=["a", "b"], str_matches="[a-z]", str_length={"max_value": 3})
    level: float = rtml.Field(ge=0, lt=10, nullable=True)
    count: int = rtml.Field(in_range={"min_value": 0, "max_value": 5}, ne=3)
    good: bool


readings = EventSource(
    name="readings", schema=Reading, timestamp="at", event_id="reading_id", stream=RedisStream("readings"),
)  # fmt: skip
gauges = StreamFeatureView(
    name="gauges",
    source=readings,
    entity=Entity("gauge", join_keys=["gauge"]),
    features=[
        Count(windows=["1h"]),
        Mean("good", windows=["1h"], name="good_share"),
        Sum("good", windows=["1h"], name="good"),
        Max("level", windows=["1h"]),
        Last("level", windows=["1h"]),
        Stddev("level", windows=["1h"]),
        Mean("level", windows=["1h"]),
        LastN("level", n=2, windows=["1h"]),
    ],
)
PLAN = Registry.of([readings, gauges]).plans["gauges"]


@pytest.fixture(scope="module")
def suites() -> Suites:
    return Suites()


def rows(height: int = 4, **columns: list[Any]) -> pl.DataFrame:
    """A day of `events/` that is as promised, but for the columns that are given."""
    start = datetime(2024, 3, 1, tzinfo=UTC)
    good: dict[str, list[Any]] = {
        "reading_id": [f"r{row}" for row in range(height)],
        "at": [start + timedelta(hours=row) for row in range(height)],
        "gauge": ["a", "b"] * (height // 2),
        "level": [None, 0.0, 1.5, 9.5] * (height // 4),
        "count": [0, 1, 2, 5] * (height // 4),
        "good": [True, False] * (height // 2),
        "ingested_at": [start + timedelta(hours=row, seconds=1) for row in range(height)],
        "id64": list(range(height)),
        "event_date": [DAY] * height,
    }
    return pl.DataFrame(good | columns, schema=raw_schema(readings))


def values(**columns: list[Any]) -> pl.DataFrame:
    """A day of `features/` that is as promised, but for the columns that are given."""
    good: dict[str, list[Any]] = {
        "gauge": ["a", "b"],
        "timestamp": [datetime(2024, 3, 2, tzinfo=UTC)] * 2,
        "count_1h": [0, 3],
        "good_share_1h": [None, 1.0],
        "good_1h": [None, 3],
        "level_max_1h": [None, 9.5],
        "level_last_1h": [None, 0.0],
        "level_stddev_1h": [None, 0.5],
        "level_mean_1h": [None, 2.0],
        "level_last_2_1h": [[], [0.0, 1.5]],
        "event_date": [DAY] * 2,
    }
    return pl.DataFrame(good | columns, schema=features_schema(PLAN))


def failed(suites: Suites, suite: list[Expectation], frame: pl.DataFrame) -> dict[str, tuple[int, ...] | None]:
    found = suites.judge(suite, frame, "events/readings", str(DAY))
    assert [result.name for result in found.results] == [one.name for one in suite]
    return {result.name: result.failing for result in found.failures}


def test_the_table_of_types_is_that_of_the_installed_library(suites):
    from great_expectations import expectations

    ours = {
        *("column", "meta", "notes", "id", "result_format", "description", "catch_exceptions", "rendered_content"),
        *("version", "batch_id", "windows", "severity", "condition_parser", "row_condition", "library_metadata"),
    }
    found = {}
    for made in vars(expectations).values():
        name = getattr(made, "expectation_type", "")
        if isinstance(made, type) and name.startswith("expect_"):
            fields = made.__fields__  # type: ignore[attr-defined]
            required = {field for field, one in fields.items() if one.required}
            bases = {base.__name__ for base in made.__mro__}
            by_row = bool(bases & {"ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation"})
            found[name] = (required, set(fields) - (ours - required), by_row)
    assert set(found) == set(TYPES) | set(LEFT_OUT)
    for name, known in TYPES.items():
        assert (set(known.required), set(known.arguments), known.rows) == found[name], name


TEN = 10
FRAME = pl.DataFrame(
    {
        "number": [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "other": [2.0, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        "same": [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "odd": [1.0, 1, 1, 1, 1, 1, 1, 1, 1, 100],
        "gap": [None, 2.0, 3, 4, 5, 6, 7, 8, 9, 10],
        "word": ["ab"] * 9 + ["abc"],
        "json": ['{"a": 1}'] * 9 + ["{"],
        "object": ['{"a": 1}'] * 10,
        "day": ["2024-03-01"] * 9 + ["first"],
        "one": ["x"] * TEN,
    }
)
EACH: list[tuple[str, dict[str, Any], dict[str, Any], list[int] | None]] = [
    # type without `expect_`, arguments that are met, what changes so that they are not, and the rows that then fail
    ("column_value_lengths_to_be_between", {"column": "word", "max_value": 3}, {"max_value": 2}, [9]),
    ("column_value_lengths_to_equal", {"column": "one", "value": 1}, {"column": "word", "value": 2}, [9]),
    ("column_value_z_scores_to_be_less_than", {"column": "odd", "threshold": 3, "double_sided": True},
     {"threshold": 2}, [9]),
    ("column_values_to_be_between", {"column": "number", "max_value": 10}, {"strict_max": True}, [9]),
    ("column_values_to_be_dateutil_parseable", {"column": "day", "mostly": 0.9}, {"mostly": 1}, [9]),
    ("column_values_to_be_decreasing", {"column": "odd", "mostly": 0.8}, {"mostly": 1}, [9]),
    ("column_values_to_be_in_set", {"column": "word", "value_set": ["ab", "abc"]}, {"value_set": ["ab"]}, [9]),
    ("column_values_to_be_increasing", {"column": "number", "strictly": True}, {"column": "odd"}, list(range(1, 9))),
    ("column_values_to_be_json_parseable", {"column": "json", "mostly": 0.9}, {"mostly": 1}, [9]),
    ("column_values_to_be_null", {"column": "gap", "mostly": 0.1}, {"mostly": 1}, list(range(1, 10))),
    ("column_values_to_be_unique", {"column": "number"}, {"column": "odd"}, list(range(9))),
    ("column_values_to_match_json_schema", {"column": "object", "json_schema": {"type": "object"}},
     {"json_schema": {"type": "array"}}, list(range(10))),
    ("column_values_to_match_regex", {"column": "word", "regex": "^ab"}, {"regex": "ab$"}, [9]),
    ("column_values_to_match_regex_list", {"column": "word", "regex_list": ["^ab$", "c"]}, {"regex_list": ["b$"]}, [9]),
    ("column_values_to_match_strftime_format", {"column": "day", "strftime_format": "%Y-%m-%d", "mostly": 0.9},
     {"mostly": 1}, [9]),
    ("column_values_to_not_be_in_set", {"column": "word", "value_set": ["x"]}, {"value_set": ["abc"]}, [9]),
    ("column_values_to_not_be_null", {"column": "gap", "mostly": 0.9}, {"mostly": 0.95}, [0]),
    ("column_values_to_not_be_outliers", {"column": "number"}, {"column": "odd"}, [9]),
    ("column_values_to_not_match_regex", {"column": "word", "regex": "x"}, {"regex": "c"}, [9]),
    ("column_values_to_not_match_regex_list", {"column": "word", "regex_list": ["x"]}, {"regex_list": ["c"]}, [9]),
    ("column_pair_values_a_to_be_greater_than_b", {"column_A": "other", "column_B": "number"},
     {"column_A": "odd", "column_B": "number"}, list(range(9))),
    ("column_pair_values_to_be_equal", {"column_A": "same", "column_B": "number"}, {"column_A": "odd"},
     list(range(1, 10))),
    ("column_pair_values_to_be_in_set",
     {"column_A": "word", "column_B": "one", "value_pairs_set": [("ab", "x"), ("abc", "x")]},
     {"value_pairs_set": [("ab", "x")]}, [9]),
    ("compound_columns_to_be_unique", {"column_list": ["odd", "number"]}, {"column_list": ["odd", "one"]},
     list(range(9))),
    ("multicolumn_sum_to_equal", {"column_list": ["one_each", "none_each"], "sum_total": 1}, {"sum_total": 2},
     list(range(10))),
    ("multicolumn_values_to_be_equal", {"column_list": ["same", "number"]}, {"column_list": ["odd", "number"]},
     list(range(1, 10))),
    ("select_column_values_to_be_unique_within_record", {"column_list": ["other", "number"]},
     {"column_list": ["same", "number"]}, list(range(10))),
    ("column_distinct_values_to_be_in_set", {"column": "word", "value_set": ["ab", "abc", "x"]},
     {"value_set": ["ab"]}, None),
    ("column_distinct_values_to_contain_set", {"column": "word", "value_set": ["ab"]}, {"value_set": ["x"]}, None),
    ("column_distinct_values_to_equal_set", {"column": "word", "value_set": ["ab", "abc"]},
     {"value_set": ["ab"]}, None),
    ("column_max_to_be_between", {"column": "number", "max_value": 10}, {"max_value": 9}, None),
    ("column_mean_to_be_between", {"column": "number", "min_value": 5.5, "max_value": 5.5}, {"max_value": 5.6,
     "min_value": 5.55}, None),
    ("column_median_to_be_between", {"column": "number", "max_value": 6}, {"max_value": 5}, None),
    ("column_min_to_be_between", {"column": "number", "min_value": 1}, {"min_value": 2}, None),
    ("column_most_common_value_to_be_in_set", {"column": "word", "value_set": ["ab"]}, {"value_set": ["abc"]}, None),
    ("column_proportion_of_non_null_values_to_be_between", {"column": "gap", "min_value": 0.9},
     {"min_value": 0.95}, None),
    ("column_proportion_of_unique_values_to_be_between", {"column": "odd", "max_value": 0.2},
     {"max_value": 0.1}, None),
    ("column_quantile_values_to_be_between",
     {"column": "number", "quantile_ranges": {"quantiles": [0.5, 0.9], "value_ranges": [[5, 6], [None, 10]]}},
     {"quantile_ranges": {"quantiles": [0.5], "value_ranges": [[7, 8]]}}, None),
    ("column_stdev_to_be_between", {"column": "number", "min_value": 3, "max_value": 3.1}, {"min_value": 3.05}, None),
    ("column_sum_to_be_between", {"column": "number", "min_value": 55}, {"min_value": 56}, None),
    ("column_unique_value_count_to_be_between", {"column": "odd", "max_value": 2}, {"max_value": 1}, None),
    ("column_to_exist", {"column": "number"}, {"column_index": 3}, None),
    ("table_column_count_to_be_between", {"max_value": 20}, {"max_value": 3}, None),
    ("table_column_count_to_equal", {"value": 12}, {"value": 13}, None),
    ("table_columns_to_match_ordered_list", {"column_list": [*FRAME.columns, "one_each", "none_each"]},
     {"column_list": ["number"]}, None),
    ("table_columns_to_match_set", {"column_set": ["number"], "exact_match": False}, {"exact_match": True}, None),
    ("table_row_count_to_be_between", {"min_value": 10}, {"min_value": 11}, None),
    ("table_row_count_to_equal", {"value": 10}, {"value": 9}, None),
]  # fmt: skip


def test_every_type_is_met_and_is_not(suites, caplog):
    assert {f"expect_{name}" for name, *_ in EACH} == set(TYPES)
    frame = FRAME.with_columns(pl.lit(1).alias("one_each"), pl.lit(0).alias("none_each"))

    def of(changed: bool) -> list[Expect]:
        given = [(f"expect_{name}", {**met, **(unmet if changed else {})}) for name, met, unmet, _ in EACH]
        return [Expect(name, name=f"check_{number}", **some) for number, (name, some) in enumerate(given)]

    met = suites.judge(resolve_quality("test", of(False), frame.schema), frame, "a", "b")
    assert str(met) == "10 rows are as expected"
    unmet = suites.judge(resolve_quality("test", of(True), frame.schema), frame, "a", "b", page="always")
    got = {result.expectation.type: (result.passed, result.failing) for result in unmet.results}
    assert got == {f"expect_{name}": (False, None if rows is None else tuple(rows)) for name, _, _, rows in EACH}
    assert all(result.words.startswith("expect_") for result in unmet.results)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert outside(unmet.page) == []


def test_a_failure_says_how_many_which_and_such_as_what(suites):
    quality = [
        Expect("expect_column_values_to_be_between", "level", max_value=1, mostly=0.9, severity="warning"),
        Expect("expect_column_mean_to_be_between", "level", max_value=1),
    ]
    found = suites.judge(resolve_quality("test", quality, readings.frame_schema), rows(8), "events/readings", "x")
    of_rows, of_all = found.results
    assert (of_rows.unexpected, of_rows.unexpected_percent, of_rows.judged) == (4, pytest.approx(400 / 6), 8)
    assert of_rows.failing == (2, 3, 6, 7)
    assert of_rows.words.endswith("4 rows (66.7 %) are not, such as 1.5; 9.5")
    assert (of_all.observed, of_all.failing) == (pytest.approx(11 / 3), None)
    assert [result.blocks for result in found.results] == [False, True]
    assert str(found).splitlines()[1].startswith("level_mean_between: expect_column_mean_to_be_between(")


def test_conditions_choose_rows_and_too_few_are_not_judged(suites):
    below: dict[str, Any] = {"max_value": 1.0, "where": pl.col("good")}
    quality = [
        Expect("expect_column_values_to_be_between", "level", name="of_some", **below),
        Expect("expect_column_max_to_be_between", "level", name="too_few", min_rows=5, **below),
        Expect("expect_column_max_to_be_between", "level", name="enough", min_rows=4, **below),
    ]
    found = suites.judge(resolve_quality("test", quality, readings.frame_schema), rows(8), "events/readings", "x")
    assert (found["of_some"].failing, found["of_some"].judged) == ((2, 6), 4)
    assert (found["too_few"].passed, found["too_few"].judged) == (True, 0)
    assert "4 rows are too few to judge: it takes 5" in found["too_few"].words
    assert not found["enough"].passed


def test_what_cannot_be_evaluated_is_not_met(suites):
    wrong = Expect("expect_column_values_to_be_between", "gauge", min_value=3)
    found = suites.judge(resolve_quality("test", [wrong], readings.frame_schema), rows(), "events/readings", "x")
    refused = Expect("expect_column_quantile_values_to_be_between", "level", quantile_ranges={"quantiles": [0.5]})
    again = suites.judge(resolve_quality("test", [refused], readings.frame_schema), rows(), "events/readings", "x")
    for judgement in (found, again):
        assert not judgement.passed
        assert "could not be evaluated: " in str(judgement)
    assert "value_ranges" in str(again)


def test_a_day_of_nothing_but_nulls_and_one_without_rows_have_judgements(suites):
    nothing = rows(4, level=[None] * 4)
    quality = resolve_quality(
        "test",
        [
            Expect("expect_column_stdev_to_be_between", "level", min_value=1),
            Expect("expect_column_values_to_not_be_null", "level", mostly=0.5),
        ],
        readings.frame_schema,
    )
    found = suites.judge(quality, nothing, "events/readings", "x", page="failed")
    assert [result.passed for result in found.results] == [False, False]
    assert found.page
    assert not suites.judge(quality, nothing.clear(), "events/readings", "x")["level_stdev_between"].passed


def test_a_day_that_keeps_its_contract_is_as_promised(suites):
    suite = of_events(readings, DAY)
    assert failed(suites, suite, rows(8)) == {}
    assert len(suite) == 17


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"gauge": ["a", "B", "b", "a"]}, {"gauge_isin": (1,), "gauge_str_matches": (1,)}),
        ({"gauge": ["a", None, "abcd", "a"]}, {"gauge_isin": (2,), "gauge_not_null": (1,), "gauge_str_length": (2,)}),
        ({"level": [-1.0, None, 10.0, 1.0]}, {"level_greater_than_or_equal_to": (0,), "level_less_than": (2,)}),
        ({"count": [3, 6, -1, 0]}, {"count_in_range": (1, 2), "count_not_equal_to": (0,)}),
        ({"reading_id": ["x", "x", "y", "z"], "at": [datetime(2024, 3, 1, tzinfo=UTC)] * 4}, {"event_once": (0, 1)}),
        ({"at": [datetime(2024, 3, 2, tzinfo=UTC), *rows()["at"][1:]]}, {"at_of_the_day": (0,)}),
        ({"ingested_at": [None, *rows()["ingested_at"][1:]]}, {"ingested_at_not_null": (0,)}),
    ],
)
def test_a_day_that_breaks_its_contract_is_not(suites, columns, expected):
    assert failed(suites, of_events(readings, DAY), rows(4, **columns)) == expected


def test_a_column_that_is_missing_or_too_many_is_told(suites):
    suite = [one for one in of_events(readings, DAY) if one.name == "columns"]
    assert failed(suites, suite, rows().drop("good")) == {"columns": None}
    assert failed(suites, suite, rows().with_columns(pl.lit(1).alias("more"))) == {"columns": None}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {}),
        ({"gauge": ["a", "a"]}, {"row_once": (0, 1)}),
        ({"count_1h": [None, -1]}, {"count_1h_not_null": (0,), "count_1h_not_negative": (1,)}),
        ({"good_share_1h": [1.1, 1.0], "good_1h": [-1, 3]}, {"good_share_1h_share": (0,), "good_1h_share": (0,)}),
        ({"level_stddev_1h": [-1e-9, 1.0]}, {"level_stddev_1h_not_negative": (0,)}),
        ({"level_max_1h": [10.0, 1.0]}, {"level_max_1h_less_than": (0,)}),
        ({"level_last_2_1h": [None, [2.0]]}, {"level_last_2_1h_not_null": (0,)}),
        ({"level_last_1h": [1.0, -0.5]}, {"level_last_1h_greater_than_or_equal_to": (1,)}),
    ],
)
def test_values_that_no_definition_allows_are_told(suites, columns, expected):
    assert failed(suites, of_values(gauges, PLAN), values(**columns)) == expected


def test_every_kind_of_column_keeps_its_values_in_pandas():
    instant = datetime(2024, 3, 1, 1, 2, 3, 456789, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "small": pl.Series([1, 2], dtype=pl.Int8),
            "gaps": [1, None],
            "large": [2**53 + 1, None],
            "float": [1.5, None],
            "short": pl.Series([0.5, None], dtype=pl.Float32),
            "yes": [True, False],
            "maybe": [True, None],
            "word": ["é", None],
            "day": [DAY, None],
        }
    ).with_columns(pl.Series("at", [instant, None], dtype=pl.Datetime("us", "UTC")))
    made = to_pandas(frame)
    assert {name: str(dtype) for name, dtype in made.dtypes.items()} == {
        "small": "int64", "gaps": "float64", "large": "object", "float": "float64", "short": "float64",
        "yes": "bool", "maybe": "object", "word": "object", "day": "datetime64[us, UTC]", "at": "datetime64[us, UTC]",
    }  # fmt: skip
    assert made["large"].tolist() == [2**53 + 1, None]
    assert made["at"][0].to_pydatetime() == instant
    assert made["day"][0].date() == DAY
    assert made[["gaps", "float", "at", "day"]].isna().to_numpy().tolist() == [[False] * 4, [True] * 4]
    assert np.isnan(made["short"][1])


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self.found.append((tag, "script", ""))


def outside(page: str) -> list[tuple[str, str, str]]:
    """Whatever a page would load or run that does not lie beside it."""
    links = _Links()
    links.feed(page)
    loads = [one for one in links.found if one[1] in ("src", "href", "action") and re.match(r"\w+:|//", one[2])]
    runs = [one for one in links.found if one[1] == "script" or one[1].startswith("on")]
    return loads + runs + [("style", "url", text) for text in re.findall(r"url\([^)]*|@import.*", page)]


@pytest.fixture
def page(suites: Suites, tmp_path: Path) -> Path:
    nasty = rows(gauge=["<script>alert(1)</script>", "<img src=//x.y onerror=f()>", "c", "a"])
    judgement = suites.judge(of_events(readings, DAY), nasty, "events/readings", str(DAY), page="failed")
    path = page_of("events", "readings", DAY)
    write_page(tmp_path, path, judgement.page)
    return tmp_path / path


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing(page):
    text = page.read_text()
    assert outside(text) == []
    links = _Links()
    links.feed(text)
    styles = [value for tag, name, value in links.found if (tag, name) == ("link", "href")]
    assert len(styles) == 2
    for style in styles:
        own = (page.parent / style).resolve()
        assert own.is_relative_to(page.parents[3])
        assert not re.search(r"url\((?![\"']?data:)|@import", own.read_text())
    assert "gauge_isin" in text
    assert "\u2039script\u203aalert(1)" in text


def test_only_pages_that_are_asked_for_are_made(suites):
    suite = of_events(readings, DAY)
    assert suites.judge(suite, rows(), "a", "b", page="failed").page == ""
    assert suites.judge(suite, rows(gauge=["x"] * 4), "a", "b").page == ""
    assert suites.judge(suite, rows(), "a", "b", page="always").page != ""
