"""The gate before `events/`: what a source's `quality=[…]` says of a day, judged before that day is written.

A day that fails a critical expectation stays as it was, so that nothing of it reaches `tiles/`; the rows that fail are
held in `quarantine/`. Great Expectations is loaded only for a source that has expectations of its own: every process
that compacts such a source pays 5 s once, and then 8 ms an expectation and day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quality.data_docs import folder_of, page_of, write_page
from quality.judgement import Judged, Judgement
from rtml.define.expectation import Expectation
from rtml.define.expectation_types import UNIQUENESS
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.lake import EVENT_DATE, Lake, features_schema
from rtml.plan import Plan
from rtml.projection import INGESTED_AT
from rtml_assets.tables.delta import open_table, scan
from rtml_assets.tables.quarantine import accepted, hold

if TYPE_CHECKING:
    from quality.suites import Page

EVENTS, FEATURES = "events", "features"


@dataclass(frozen=True)
class JudgedDay:
    """What the gate found of one day."""

    day: date
    judgement: Judgement
    accepted: frozenset[str] = frozenset()
    """Checks that a person accepted for this day."""
    held: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """By check that blocks: the rows that it refuses."""

    def blocks(self, result: Judged) -> bool:
        """Whether an expectation keeps the day from being built."""
        return result.blocks and result.name not in self.accepted

    @property
    def blocked(self) -> bool:
        """Whether the day is left as it was."""
        return bool(self.held)


def judge_days(
    lake: Lake, source: EventSource, events: pl.DataFrame, days: Iterable[date], newest: date
) -> dict[date, JudgedDay]:
    """Return what a source's expectations come to over days of events (the columns of `raw/`).

    Pages come with what is judged: see `_page`.
    """
    if not source.expectations:
        return {}
    from quality.suites import Suites  # noqa: PLC0415 (loads Great Expectations)

    suites, known, folder = Suites(), accepted(lake, source), folder_of(lake)
    found = {}
    for day in days:
        rows = events.filter(pl.col(EVENT_DATE) == day)
        if rows.is_empty():  # all of it was dropped: there is nothing to judge, and nobody could mend it
            continue
        page = _page(folder, page_of(EVENTS, source.name, day), day == newest)
        judgement = suites.judge(source.expectations, rows, f"{EVENTS}/{source.name}", str(day), page=page)
        found[day] = _at_the_gate(day, judgement, rows, {check for of, check in known if of == day})
    return found


def judge_values(lake: Lake, view: StreamFeatureView, plan: Plan, days: Sequence[date]) -> dict[date, JudgedDay]:
    """Return what a view's expectations come to over days of `features/`, which are there already; write the pages."""
    if not view.expectations:
        return {}
    from quality.suites import Suites  # noqa: PLC0415 (loads Great Expectations)

    suites, folder, title = Suites(), folder_of(lake), f"{FEATURES}/{view.name}"
    found, table = {}, open_table(lake.features(view.name))
    for day in days:
        rows = scan(table, features_schema(plan), [day]).collect()
        path = page_of(FEATURES, view.name, day)
        judgement = suites.judge(view.expectations, rows, title, str(day), page=_page(folder, path, day == max(days)))
        found[day] = JudgedDay(day, judgement)
        if folder is not None and judgement.page:
            write_page(folder, path, judgement.page)
    return found


def _page(folder: Path | None, path: str, newest: bool) -> Page:
    """Say when a page is made: of the newest day, of days that fail, and of those that have one already."""
    return "always" if newest or (folder is not None and (folder / path).is_file()) else "failed"


def keep(lake: Lake, source: EventSource, judged: Iterable[JudgedDay]) -> None:
    """Hold the rows that are refused, and write the pages."""
    folder = folder_of(lake)
    for day in judged:
        for check, rows in day.held.items():
            hold(lake, source, day.day, rows, check, day.judgement[check].words)
        if folder is not None and day.judgement.page:
            write_page(folder, page_of(EVENTS, source.name, day.day), day.judgement.page)


def refused_rows(result: Judged, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that an expectation refuses: those that it names, or all.

    Of rows that repeat each other the first to arrive is not refused: it is the one that should have been alone.
    """
    if not result.failing:
        return rows
    named = rows[list(result.failing)]
    if result.expectation.type not in UNIQUENESS:
        return named
    return named.sort(INGESTED_AT, maintain_order=True).filter(
        ~pl.struct(_identity(result.expectation)).is_first_distinct()
    )


def _identity(expectation: Expectation) -> Sequence[str]:
    arguments = expectation.arguments
    return arguments["column_list"] if "column_list" in arguments else [arguments["column"]]


def _at_the_gate(day: date, judgement: Judgement, rows: pl.DataFrame, known: Collection[str]) -> JudgedDay:
    passing = JudgedDay(day, judgement, frozenset(known))
    held = {result.name: refused_rows(result, rows) for result in judgement.failures if passing.blocks(result)}
    return JudgedDay(day, judgement, frozenset(known), held)
