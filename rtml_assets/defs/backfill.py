"""Backfilling a view from Python: its past days through real Dagster runs, a bounded number of rows each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

import dagster as dg

from rtml.define.views import StreamFeatureView
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.defs.compaction import building, in_stretches, request_for
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import key_of
from rtml_assets.defs.materialize import Summary, run_requests
from rtml_assets.tables.events import in_chunks
from streaming.mended import mirrored_by_day

ROWS_A_RUN = 1_000_000
Progress = Callable[[int, int, str], None]
"""Told how many rows are done, of how many, and what is under way."""


def backfill(
    settings: Settings,
    registry: Registry,
    view: StreamFeatureView,
    days: Sequence[date],
    *,
    instance: dg.DagsterInstance,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Build days of a view and of the events that it counts, then publish it; return what that came to.

    A day is replaced at once, so it may be killed anywhere and be repeated, beside a stream at full speed.

    Raises:
        CompactionError: a run failed; names the assets and the checks. What earlier runs built stays.
    """
    started = time.monotonic()
    deployment, source, summary = Deployment(settings, registry), view.source, Summary()
    counts = mirrored_by_day(deployment.lake, source)
    rows = {day: counts.get(day, 0) for day in sorted(days)}
    done, total = 0, sum(rows.values())
    for some in _runs(rows):
        first, last = min(some), max(some)
        progress(done, total, f"{first}" if first == last else f"{first} to {last}")
        request = request_for(deployment, building(deployment, source, [view]), first, last)
        run_requests(deployment, source, [request], list(some), instance, summary)
        done += sum(some.values())
    progress(done, total, "publishing")
    request = request_for(deployment, [key_of("published", view.name)])
    run_requests(deployment, source, [request], list(rows), instance, summary)
    progress(done, total, "")
    summary.days[source.name] = list(rows)
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _runs(rows: Mapping[date, int]) -> Iterator[dict[date, int]]:
    """Split days into runs: stretches of days that follow on each other, each of a bounded number of rows."""
    for first, last in in_stretches(list(rows)):
        yield from in_chunks({day: count for day, count in rows.items() if first <= day <= last}, ROWS_A_RUN)
