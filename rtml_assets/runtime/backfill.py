"""`rtml backfill`: which days, what it will cost, and how far it is."""

from __future__ import annotations

from datetime import date

from rich.console import Console

from rtml.errors import NotReadyError, RequestError
from rtml.instants import to_datetime, to_instant
from rtml.lake import Lake
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.dagster_home import prepare
from rtml_assets.runtime.progress import progress_bar
from rtml_assets.tables.estimate import cost_of
from rtml_assets.tables.touched import in_history, touched_days
from streaming.broker import connect
from streaming.mended import mirrored_by_day
from streaming.versions import find_version, request_rebuild


def run_backfill(
    console: Console,
    settings: Settings,
    registry: Registry,
    name: str,
    start: str | None,
    end: str | None,
    *,
    every: bool,
    rebuild: bool,
) -> None:
    """Backfill a view, and say how far that is.

    Raises:
        UnknownNameError, RequestError: no such view, or no days between start and end.
        NotReadyError: a rebuild is asked for, and there is nothing yet.
        CompactionError: a run failed.
    """
    # Dagster takes seconds to import.
    from dagster import DagsterInstance  # noqa: PLC0415

    from rtml_assets.defs.backfill import backfill  # noqa: PLC0415

    view = registry.view(name)
    lake, plan = Lake(settings.lake_root), registry.plans[name]
    between = days_between(lake, registry, name, start, end)
    behind = set(touched_days(lake, view.source, [plan]))
    days = [day for day in between if every or rebuild or day in behind]
    cost = cost_of(lake, view, plan, days)
    console.print(f"{name}: {cost}; {len(between) - len(days)} days are built already", highlight=False)
    if rebuild:
        _request(settings, registry, name)
    with DagsterInstance.from_config(str(prepare(settings.home_path))) as instance, progress_bar(console) as bars:
        bar = bars.add_task(f"backfilling {name}", total=max(1, cost.rows), detail="")
        summary = backfill(
            settings,
            registry,
            view,
            days,
            instance=instance,
            progress=lambda done, total, what: bars.update(bar, completed=done, total=max(1, total), detail=what),
        )
    for words in summary.warnings:
        console.print(f"[yellow]{words}")
    published = summary.published.get(name, {})
    told = f"version {published['version']} is {published['state']}" if "version" in published else published["state"]
    console.print(f"{summary.rows.get(f'tiles/{name}', 0):,} tiles in {summary.seconds:.1f} s; {told}", highlight=False)


def days_between(lake: Lake, registry: Registry, name: str, start: str | None, end: str | None) -> list[date]:
    """Return the days with events of a view's source, from the day of `start` to before that of `end`.

    Raises:
        RequestError: there are none.
        InstantError: one is no day.
    """
    source = registry.view(name).source
    known = [day for day in mirrored_by_day(lake, source) if in_history(source, day)]
    first = to_datetime(to_instant(start)).date() if start else date.min
    last = to_datetime(to_instant(end) - 1).date() if end else date.max
    chosen = sorted(day for day in known if first <= day <= last)
    if not chosen:
        there = f"there are events from {min(known)} to {max(known)}" if known else "there are none yet"
        raise RequestError(f"raw/{source.name} has no events between {start or 'ever'} and {end or 'now'}: {there}")
    return chosen


def _request(settings: Settings, registry: Registry, name: str) -> None:
    with connect(settings, timeout=30) as client:
        version = find_version(client, registry.plans[name])
        if version is None:
            raise NotReadyError(f"view {name!r} has no version yet that could be built anew")
        request_rebuild(client, version)
