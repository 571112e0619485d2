"""Great Expectations over frames: expectations and rows in, a judgement in plain values out.

The library takes 5 s and 260 MB to load, so it is loaded when the first frame is judged, and nothing of it leaves this
file. That is why compaction judges with it only where a source says `quality=[…]`: pandera holds the contract
(`contracts.py`) in milliseconds, and the suites that follow from definitions run in a job of their own, once a day.
A day of 1,000 rows takes 8 ms an expectation (2 cores), one of a million about 50 ms.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from quality.data_docs import render
from quality.judgement import Judged, Judgement
from quality.numpy_frames import to_pandas
from quality.verdict import EXAMPLES
from rtml.define.expectation import Expectation

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Page = Literal["never", "failed", "always"]

_RESULT: dict[str, Any] = {"result_format": "COMPLETE", "include_unexpected_rows": False}


class Suites:
    """Judges frames; one that is kept for several of them spares what a context costs to make."""

    def __init__(self) -> None:
        """Load the library, and make a context that leaves nothing behind."""
        self._gx = _library()
        self._context = self._gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}
        self._assets = self._context.data_sources.add_pandas("lake")
        self._batches: dict[str, Any] = {}

    def judge(
        self, expectations: Sequence[Expectation], rows: pl.DataFrame, title: str, day: str, page: Page = "never"
    ) -> Judgement:
        """Return what became of expectations over rows.

        Args:
            expectations: what is expected; an expectation that cannot be evaluated is one that is not met.
            rows: the rows, with the columns that the expectations were resolved against.
            title: what the rows are, such as `events/departures`.
            day: of which day they are.
            page: when a page of Data Docs is made.
        """
        frame = _with_conditions(expectations, rows)
        enough = [one for one in expectations if _judged_rows(one, frame) >= one.min_rows]
        suite, wrong = _suite(enough)
        results = self._validate(suite, to_pandas(frame), title) if suite else None
        found = {one.expectation_config.meta["name"]: one.to_json_dict() for one in results.results} if results else {}
        judged = tuple(_judged(one, found.get(one.name), wrong.get(one.name), frame) for one in expectations)
        judgement = Judgement(rows.height, judged)
        if results is None or page == "never" or (page == "failed" and judgement.passed):
            return judgement
        return replace(judgement, page=render(self._gx, results, judged, title, day))

    def _validate(self, suite: Mapping[str, Any], frame: pd.DataFrame, title: str) -> Any:
        if title not in self._batches:
            asset = self._assets.add_dataframe_asset(title)
            self._batches[title] = asset.add_batch_definition_whole_dataframe("day")
        batch = self._batches[title].get_batch(batch_parameters={"dataframe": frame})
        results = batch.validate(
            self._gx.ExpectationSuite(title, expectations=[*suite.values()]), result_format=_RESULT
        )
        # In the order of the suite: the library sorts them by metric.
        order = list(suite)
        results.results.sort(key=lambda result: order.index(result.expectation_config.meta["name"]))
        return results


@cache
def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules of the standard library that it imports
        import great_expectations  # noqa: PLC0415 (see above)
        import great_expectations.expectations.row_conditions  # noqa: PLC0415
        import great_expectations.render.renderer.page_renderer  # noqa: PLC0415
        import great_expectations.render.view  # noqa: PLC0415
    return great_expectations


def _with_conditions(expectations: Sequence[Expectation], rows: pl.DataFrame) -> pl.DataFrame:
    """Add a column for each `where`: the library knows conditions on columns only."""
    conditions = {_condition(one): one.where for one in expectations if one.where is not None}
    return rows.with_columns(where.fill_null(value=False).alias(name) for name, where in conditions.items())


def _condition(expectation: Expectation) -> str:
    return f"{expectation.name}__where"


def _judged_rows(expectation: Expectation, frame: pl.DataFrame) -> int:
    return frame.height if expectation.where is None else int(frame[_condition(expectation)].sum())


def _suite(expectations: Sequence[Expectation]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return expectations by name as the library's own, and what is wrong with those that it refuses."""
    made: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for one in expectations:
        try:
            made[one.name] = _expectation(one)
        except (TypeError, ValueError) as error:  # of its arguments, which only the library knows
            wrong[one.name] = str(error)
    return made, wrong


def _expectation(expectation: Expectation) -> Any:
    types = _library().expectations
    made = getattr(types, "".join(word.title() for word in expectation.type.split("_")))
    asked: dict[str, Any] = {}
    if expectation.where is not None:
        asked = {"row_condition": types.row_conditions.Column(_condition(expectation)) == True}  # noqa: E712
    return made(**expectation.arguments, **asked, severity=expectation.severity, meta={"name": expectation.name})


def _judged(
    expectation: Expectation, found: Mapping[str, Any] | None, wrong: str | None, frame: pl.DataFrame
) -> Judged:
    rows = _judged_rows(expectation, frame)
    if wrong is not None:
        return Judged(expectation, passed=False, judged=rows, words=f"it could not be evaluated: {wrong}")
    if found is None:
        words = f"{rows:,} rows are too few to judge: it takes {expectation.min_rows:,}"
        return Judged(expectation, passed=True, judged=0, words=words)
    result, error = found["result"], _error(found["exception_info"])
    if error:
        return Judged(expectation, passed=False, judged=rows, words=f"it could not be evaluated: {error}")
    passed = bool(found["success"])
    named = result.get("unexpected_index_list")
    failing = tuple(int(row) for row in named) if not passed and named is not None else None
    return Judged(
        expectation,
        passed,
        rows,
        _number(result.get("observed_value")),
        result.get("unexpected_count") if expectation.rows else None,
        result.get("unexpected_percent"),
        _examples(result),
        failing,
        _words(expectation, result),
    )


def _error(info: Mapping[str, Any]) -> str:
    """Return what went wrong in the evaluation; of one with several metrics, of the first."""
    infos = [info] if "raised_exception" in info else list(info.values())
    raised = [one for one in infos if one.get("raised_exception")]
    return str(raised[0].get("exception_message")).strip() if raised else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if isfinite(value) else None


def _examples(result: Mapping[str, Any]) -> tuple[str, ...]:
    values = [_shown(value) for value in result.get("partial_unexpected_list") or ()]
    return tuple(dict.fromkeys(values))[:EXAMPLES]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(part)}" for name, part in value.items())
    return "null" if value is None else str(value)


def _words(expectation: Expectation, result: Mapping[str, Any]) -> str:
    if expectation.rows and (count := result.get("unexpected_count")) is not None:
        share = result.get("unexpected_percent")
        examples = f", such as {'; '.join(_examples(result))}" if count else ""
        share_words = "" if share is None else f" ({share:.3g} %)"
        return f"{expectation}: {count:,} rows{share_words} are not{examples}"
    return f"{expectation}: observed {_observed(result.get('observed_value'))}"


def _observed(value: object) -> str:
    if isinstance(value, Mapping) and "quantiles" in value:
        pairs = zip(value["quantiles"], value["values"], strict=True)
        return ", ".join(f"{quantile:g}: {_observed(found)}" for quantile, found in pairs)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:200]
