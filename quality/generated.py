"""The suites that follow from definitions alone: what a contract promises of events, and a view of its values.

The gate of compaction holds events against the contract with pandera, in milliseconds. These suites ask the same of
the tables as they are, with another library, so that the two check each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from rtml.algebra.family import ID64
from rtml.columns import SPINE_TIME
from rtml.define.column import Column
from rtml.define.expectation import Expectation
from rtml.define.source import EventSource
from rtml.define.views import Feature, StreamFeatureView
from rtml.lake import features_schema, raw_schema
from rtml.plan import Plan
from rtml.projection import INGESTED_AT

BETWEEN = "expect_column_values_to_be_between"
IN_SET, NOT_IN_SET = "expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"
MATCHES = "expect_column_values_to_match_regex"
NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_compound_columns_to_be_unique"
COLUMNS = "expect_table_columns_to_match_set"
LENGTHS = "expect_column_value_lengths_to_be_between"

NEVER_NULL = ("count", "rate", "decayed_count")
"""How much there is, none included."""
SHARES = ("mean", "share", "decayed_mean")
"""Of booleans, what lies from 0 to 1; all else that takes them is a sum."""
SAME_VALUE = ("min", "max", "first", "last")
"""Aggregates whose value is that of one event."""


def of_events(source: EventSource, day: date) -> list[Expectation]:
    """Return what a day of `events/` must be, whatever its user expects beside it."""
    schema = raw_schema(source)
    found = [_of_table("columns", list(schema))]
    for name, column in source.columns.items():
        if not column.nullable:
            found.append(_one(name, "not_null", NOT_NULL))
        found += _of_column(column)
    found += [_one(name, "not_null", NOT_NULL) for name in (INGESTED_AT, ID64)]
    found.append(Expectation("event_once", UNIQUE, {"column_list": [source.timestamp, source.event_id or ID64]}))
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    of_day = {"min_value": start, "max_value": start + timedelta(days=1), "strict_max": True}
    return [*found, _one(source.timestamp, "of_the_day", BETWEEN, of_day)]


def of_values(view: StreamFeatureView, plan: Plan) -> list[Expectation]:
    """Return what a day of `features/<view>` must be."""
    keys = [*plan.key_names, SPINE_TIME]
    found = [_of_table("columns", list(features_schema(plan)))]
    found += [_one(name, "not_null", NOT_NULL) for name in keys]
    found.append(Expectation("row_once", UNIQUE, {"column_list": keys}))
    for feature in view.resolved.values():
        found += _of_feature(view, feature)
    return found


def _of_feature(view: StreamFeatureView, feature: Feature) -> Iterator[Expectation]:
    """Yield what can be proven of a feature's values."""
    if feature.output.width:
        yield _one(feature.name, "not_null", NOT_NULL)
    elif feature.aggregate in NEVER_NULL:
        yield _one(feature.name, "not_null", NOT_NULL)
        yield _one(feature.name, "not_negative", BETWEEN, {"min_value": 0})
    elif feature.aggregate in ("variance", "stddev"):
        yield _one(feature.name, "not_negative", BETWEEN, {"min_value": 0})
    elif view.kinds.get(feature.column) == pl.Boolean:
        bounds = {"min_value": 0, "max_value": 1} if feature.aggregate in SHARES else {"min_value": 0}
        yield _one(feature.name, "share", BETWEEN, bounds)
    elif feature.aggregate in SAME_VALUE and feature.column in view.source.columns:
        for one in _of_column(view.source.columns[feature.column]):
            yield _one(feature.name, one.name.removeprefix(f"{feature.column}_"), one.type, one.arguments)


def _of_column(column: Column) -> list[Expectation]:
    return [
        _one(column.name, check, *expected) for check, given in column.checks for expected in _of_check(check, given)
    ]


def _of_check(check: str, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a check of pandera as expectations."""
    strict = {"greater_than": "strict_min", "less_than": "strict_max"}
    if check in ("greater_than", "greater_than_or_equal_to"):
        yield BETWEEN, {"min_value": given["min_value"], **({strict[check]: True} if check in strict else {})}
    elif check in ("less_than", "less_than_or_equal_to"):
        yield BETWEEN, {"max_value": given["max_value"], **({strict[check]: True} if check in strict else {})}
    elif check == "in_range":
        yield (
            BETWEEN,
            {
                "min_value": given["min_value"],
                "max_value": given["max_value"],
                "strict_min": not given.get("include_min", True),
                "strict_max": not given.get("include_max", True),
            },
        )
    else:
        yield _of_set_or_string(check, given)


def _of_set_or_string(check: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    sets = {
        "equal_to": (IN_SET, "value"),
        "isin": (IN_SET, "allowed_values"),
        "not_equal_to": (NOT_IN_SET, "value"),
        "notin": (NOT_IN_SET, "forbidden_values"),
    }
    if check in sets:
        expectation, name = sets[check]
        values = given[name]
        return expectation, {"value_set": [values] if check.endswith("equal_to") else list(values)}
    if check == "str_length":
        if given.get("exact_value") is not None:
            return "expect_column_value_lengths_to_equal", {"value": given["exact_value"]}
        bounds = {name: given.get(name) for name in ("min_value", "max_value")}
        return LENGTHS, {name: bound for name, bound in bounds.items() if bound is not None}
    return MATCHES, {"regex": _regex(check, given)}


def _regex(check: str, given: Mapping[str, Any]) -> str:
    if check in ("str_startswith", "str_endswith"):
        text = re.escape(str(given["string"]))
        return f"^{text}" if check == "str_startswith" else rf"{text}\Z"
    pattern = given["pattern"]
    text = str(getattr(pattern, "pattern", pattern))
    # Great Expectations searches; pandera's str_matches begins at the beginning.
    return f"^(?:{text})" if check == "str_matches" else text


def _one(column: str, what: str, expectation: str, arguments: Mapping[str, Any] | None = None) -> Expectation:
    return Expectation(f"{column}_{what}", expectation, {"column": column} | {**(arguments or {}), "column": column})


def _of_table(name: str, columns: list[str]) -> Expectation:
    return Expectation(name, COLUMNS, {"column_set": [*columns], "exact_match": True})
