"""The expectations of Great Expectations that a definition may name: their arguments, and what they look at.

A table of our own, because importing the library takes seconds; a test holds it equal to what is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Looked = Literal["any", "number", "string"]


@dataclass(frozen=True)
class ExpectationType:
    """One type: which arguments it must and may have, whether it names rows, and what its columns must hold."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    rows: bool = False
    """Whether it judges row by row, and so can name the rows that fail; otherwise it judges the rows as a whole."""
    looks_at: Looked = "any"
    conditional: bool = True
    """Whether it can be asked of some rows only (`where=`)."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """All arguments."""
        return self.required + self.optional


_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
_ONE, _PAIR, _SOME = ("column",), ("column_A", "column_B"), ("column_list",)


def _of_rows(*required: str, optional: tuple[str, ...] = (), looks_at: Looked = "any") -> ExpectationType:
    return ExpectationType(required, ("mostly", *optional), rows=True, looks_at=looks_at)


def _of_column(*required: str, optional: tuple[str, ...] = (), looks_at: Looked = "any") -> ExpectationType:
    return ExpectationType((*_ONE, *required), optional, looks_at=looks_at)


def _of_table(*required: str, optional: tuple[str, ...] = ()) -> ExpectationType:
    return ExpectationType(required, optional, conditional=False)


TYPES: dict[str, ExpectationType] = {
    # Row by row: of one column,
    "expect_column_value_lengths_to_be_between": _of_rows(*_ONE, optional=_BOUNDS, looks_at="string"),
    "expect_column_value_lengths_to_equal": _of_rows(*_ONE, "value", looks_at="string"),
    "expect_column_value_z_scores_to_be_less_than": _of_rows(*_ONE, "threshold", "double_sided", looks_at="number"),
    "expect_column_values_to_be_between": _of_rows(*_ONE, optional=_BOUNDS),
    "expect_column_values_to_be_dateutil_parseable": _of_rows(*_ONE, looks_at="string"),
    "expect_column_values_to_be_decreasing": _of_rows(*_ONE, optional=("strictly",), looks_at="number"),
    "expect_column_values_to_be_in_set": _of_rows(*_ONE, "value_set"),
    "expect_column_values_to_be_increasing": _of_rows(*_ONE, optional=("strictly",), looks_at="number"),
    "expect_column_values_to_be_json_parseable": _of_rows(*_ONE, looks_at="string"),
    "expect_column_values_to_be_null": _of_rows(*_ONE),
    "expect_column_values_to_be_unique": _of_rows(*_ONE),
    "expect_column_values_to_match_json_schema": _of_rows(*_ONE, "json_schema", looks_at="string"),
    "expect_column_values_to_match_regex": _of_rows(*_ONE, optional=("regex",), looks_at="string"),
    "expect_column_values_to_match_regex_list": _of_rows(
        *_ONE, "regex_list", optional=("match_on",), looks_at="string"
    ),
    "expect_column_values_to_match_strftime_format": _of_rows(*_ONE, "strftime_format", looks_at="string"),
    "expect_column_values_to_not_be_in_set": _of_rows(*_ONE, "value_set"),
    "expect_column_values_to_not_be_null": _of_rows(*_ONE),
    "expect_column_values_to_not_be_outliers": _of_rows(*_ONE, optional=("method", "multiplier"), looks_at="number"),
    "expect_column_values_to_not_match_regex": _of_rows(*_ONE, "regex", looks_at="string"),
    "expect_column_values_to_not_match_regex_list": _of_rows(*_ONE, "regex_list", looks_at="string"),
    # of two,
    "expect_column_pair_values_a_to_be_greater_than_b": _of_rows(*_PAIR, optional=("or_equal", "ignore_row_if")),
    "expect_column_pair_values_to_be_equal": _of_rows(*_PAIR, optional=("ignore_row_if",)),
    "expect_column_pair_values_to_be_in_set": _of_rows(*_PAIR, "value_pairs_set", optional=("ignore_row_if",)),
    # of several.
    "expect_compound_columns_to_be_unique": _of_rows(*_SOME, optional=("ignore_row_if",)),
    "expect_multicolumn_sum_to_equal": _of_rows(*_SOME, "sum_total", optional=("ignore_row_if",), looks_at="number"),
    "expect_multicolumn_values_to_be_equal": _of_rows(*_SOME, optional=("ignore_row_if",)),
    "expect_select_column_values_to_be_unique_within_record": _of_rows(*_SOME, optional=("ignore_row_if",)),
    # A column as a whole,
    "expect_column_distinct_values_to_be_in_set": _of_column("value_set"),
    "expect_column_distinct_values_to_contain_set": _of_column("value_set"),
    "expect_column_distinct_values_to_equal_set": _of_column("value_set"),
    "expect_column_max_to_be_between": _of_column(optional=_BOUNDS),
    "expect_column_mean_to_be_between": _of_column(optional=_BOUNDS, looks_at="number"),
    "expect_column_median_to_be_between": _of_column(optional=_BOUNDS, looks_at="number"),
    "expect_column_min_to_be_between": _of_column(optional=_BOUNDS),
    "expect_column_most_common_value_to_be_in_set": _of_column("value_set", optional=("ties_okay",)),
    "expect_column_proportion_of_non_null_values_to_be_between": _of_column(optional=_BOUNDS),
    "expect_column_proportion_of_unique_values_to_be_between": _of_column(optional=_BOUNDS),
    "expect_column_quantile_values_to_be_between": _of_column(
        "quantile_ranges", optional=("allow_relative_error",), looks_at="number"
    ),
    "expect_column_stdev_to_be_between": _of_column(optional=_BOUNDS, looks_at="number"),
    "expect_column_sum_to_be_between": _of_column(optional=_BOUNDS, looks_at="number"),
    "expect_column_unique_value_count_to_be_between": _of_column(optional=_BOUNDS),
    # and the table.
    "expect_column_to_exist": ExpectationType(_ONE, ("column_index",), conditional=False),
    "expect_table_column_count_to_be_between": _of_table(optional=("min_value", "max_value")),
    "expect_table_column_count_to_equal": _of_table("value"),
    "expect_table_columns_to_match_ordered_list": _of_table(optional=_SOME),
    "expect_table_columns_to_match_set": _of_table(optional=("column_set", "exact_match")),
    "expect_table_row_count_to_be_between": ExpectationType(optional=_BOUNDS),
    "expect_table_row_count_to_equal": ExpectationType(("value",)),
}

LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        (
            "expect_column_values_to_match_like_pattern",
            "expect_column_values_to_match_like_pattern_list",
            "expect_column_values_to_not_match_like_pattern",
            "expect_column_values_to_not_match_like_pattern_list",
        ),
        "LIKE is SQL's; use the expectation with a regex",
    ),
    **dict.fromkeys(
        ("expect_query_results_to_match_comparison", "expect_table_row_count_to_equal_other_table"),
        "there is one table, and no SQL",
    ),
    **dict.fromkeys(
        (
            "expect_column_type_to_be",
            "expect_column_values_to_be_in_type_list",
            "expect_column_values_to_be_of_type",
        ),
        "the contract fixes the types",
    ),
    "expect_column_kl_divergence_to_be_less_than": "distributions are compared by drift",
}
"""The others that Great Expectations has, each with why it cannot be named."""

UNIQUENESS = frozenset({"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"})
"""Those whose failing rows are repetitions: of each group all rows are named, the first one included."""
