"""What each check of a contract asks of a value, as a Polars expression: the one place that says so for the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl


def _closed(given: dict[str, Any]) -> Any:
    low, high = given.get("include_min", True), given.get("include_max", True)
    return "both" if low and high else "left" if low else "right" if high else "none"


def _pattern(pattern: Any) -> str:
    return str(getattr(pattern, "pattern", pattern))


def _length(value: pl.Expr, given: dict[str, Any]) -> pl.Expr:
    length = value.str.len_chars()
    low, high, exact = given.get("min_value"), given.get("max_value"), given.get("exact_value")
    rule = pl.lit(value=True)
    if low is not None:
        rule &= length >= low
    if high is not None:
        rule &= length <= high
    return rule & (length == exact) if exact is not None else rule


CHECKS: dict[str, Callable[[pl.Expr, dict[str, Any]], pl.Expr]] = {
    "equal_to": lambda value, given: value == given["value"],
    "not_equal_to": lambda value, given: value != given["value"],
    "greater_than": lambda value, given: value > given["min_value"],
    "greater_than_or_equal_to": lambda value, given: value >= given["min_value"],
    "less_than": lambda value, given: value < given["max_value"],
    "less_than_or_equal_to": lambda value, given: value <= given["max_value"],
    "in_range": lambda value, given: value.is_between(given["min_value"], given["max_value"], _closed(given)),
    "isin": lambda value, given: value.is_in(list(given["allowed_values"])),
    "notin": lambda value, given: ~value.is_in(list(given["forbidden_values"])),
    "str_matches": lambda value, given: value.str.contains(f"^(?:{_pattern(given['pattern'])})"),
    "str_contains": lambda value, given: value.str.contains(_pattern(given["pattern"])),
    "str_startswith": lambda value, given: value.str.starts_with(given["string"]),
    "str_endswith": lambda value, given: value.str.ends_with(given["string"]),
    "str_length": _length,
}
"""The pandera checks that can be applied event by event: (value, arguments) → whether it passes."""
