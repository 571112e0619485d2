"""The daily checks of a source's tables: suites from the definitions alone, volume, and whether days are built.

They need Great Expectations, or look at many days: in compaction, which runs every hour, they would cost more than the
compaction itself.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a check's configuration.

from collections.abc import Callable
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from quality.data_docs import folder_of, page_of, write_page
from quality.generated import of_events, of_values
from quality.volume import volume_of
from rtml.define.expectation import Expectation
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError, near_miss
from rtml.lake import features_schema, raw_schema
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import key_of
from rtml_assets.defs.parity_checks import Checking, Day, checking
from rtml_assets.defs.quality_gates import suite_result
from rtml_assets.tables.delta import open_table, rows_by_day, scan
from rtml_assets.tables.whole_days import WholeDays, whole_days
from streaming.delta import Columns

EXPECTATIONS, VOLUME, DAYS_BUILT = "expectations", "volume", "days_built"
SUITES = "suites"


def quality_of(deployment: Deployment, source: EventSource) -> Checking:
    """Return the daily checks of `events/<source>`, and of the values of its views."""
    views = deployment.registry.views_of(source.name)
    checks = [
        _events_suite(deployment, source),
        _volume(deployment, source),
        _days_built(deployment, source),
        *(_values_suite(deployment, view) for view in views),
    ]
    words = f"A past day of {source.name} against what its definitions promise, and against the days before."
    return checking(f"quality_{source.name}", checks, "10 4 * * *", words)


def quality_checks(source: EventSource) -> list[dg.AssetCheckKey]:
    """Return the keys of the checks that belong to a source's tables, and that compaction leaves to their own job."""
    events = key_of("events", source.name)
    return [dg.AssetCheckKey(events, name) for name in (EXPECTATIONS, VOLUME, DAYS_BUILT)]


def _events_suite(deployment: Deployment, source: EventSource) -> dg.AssetChecksDefinition:
    key, lake = key_of("events", source.name), deployment.lake

    @dg.asset_check(asset=key, name=EXPECTATIONS, description="What the contract promises, asked of events/ as it is.")
    def check(config: Day) -> dg.AssetCheckResult:
        day = _chosen(config.day, lambda: list(_whole(deployment, source).built), f"events/{source.name}")
        if day is None:
            return _nothing(EXPECTATIONS, "no day is over and built yet")
        return _suite(deployment, key, day, of_events(source, day), raw_schema(source), lake.events(source.name))

    return check


def _values_suite(deployment: Deployment, view: StreamFeatureView) -> dg.AssetChecksDefinition:
    key, plan, uri = key_of("features", view.name), deployment.plan(view), deployment.lake.features(view.name)

    @dg.asset_check(asset=key, name=EXPECTATIONS, description="What the view's definition promises of its values.")
    def check(config: Day) -> dg.AssetCheckResult:
        day = _chosen(config.day, lambda: list(rows_by_day(open_table(uri))), f"features/{view.name}")
        if day is None:
            return _nothing(EXPECTATIONS, "no day was materialised yet")
        return _suite(deployment, key, day, of_values(view, plan), features_schema(plan), uri)

    return check


def _volume(deployment: Deployment, source: EventSource) -> dg.AssetChecksDefinition:
    words = "The newest whole day has about as many events as the days before it (a third to three times their median)."

    @dg.asset_check(asset=key_of("events", source.name), name=VOLUME, description=words)
    def check(config: Day) -> dg.AssetCheckResult:
        whole = _whole(deployment, source)
        day = _chosen(config.day, lambda: list(whole.counts), f"raw/{source.name}") if config.day else whole.newest
        if day is None:
            return _nothing(VOLUME, "no day is over yet")
        found = volume_of(whole.counts, day)
        usual: dict[str, Any] = {} if found.usual is None else {"usual": found.usual}
        return dg.AssetCheckResult(
            passed=found.passed,
            check_name=VOLUME,
            severity=dg.AssetCheckSeverity.WARN,
            description=str(found),
            metadata={"day": str(day), "rows": found.rows, "days_compared": found.days, **usual},
        )

    return check


def _days_built(deployment: Deployment, source: EventSource) -> dg.AssetChecksDefinition:
    words = "Every day that was over two hours ago is in events/, whole."

    @dg.asset_check(asset=key_of("events", source.name), name=DAYS_BUILT, description=words)
    def check() -> dg.AssetCheckResult:
        whole = _whole(deployment, source)
        behind = ", ".join(str(day) for day in whole.behind[:10])
        return dg.AssetCheckResult(
            passed=not whole.behind,
            check_name=DAYS_BUILT,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"not built from all of raw/: {behind}: is compaction behind, or a day blocked?"
            if behind
            else None,
            metadata={
                "days_built": len(whole.built),
                "days_behind": len(whole.behind),
                "newest_built": str(whole.built[-1]) if whole.built else "none",
            },
        )

    return check


def _suite(
    deployment: Deployment, key: dg.AssetKey, day: date, suite: list[Expectation], schema: Columns, uri: str
) -> dg.AssetCheckResult:
    from quality.suites import Suites  # noqa: PLC0415 (loads Great Expectations)

    table, name = key.path
    rows: pl.DataFrame = scan(open_table(uri), schema, [day]).collect()
    judgement = Suites().judge(suite, rows, f"{table}/{name}", str(day), page="always")
    path = page_of(SUITES, f"{table}_{name}", day)
    if (folder := folder_of(deployment.lake)) is not None:
        write_page(folder, path, judgement.page)
    return suite_result(deployment, EXPECTATIONS, f"{table}/{name}", day, judgement, path)


def _whole(deployment: Deployment, source: EventSource) -> WholeDays:
    with deployment.redis() as client:
        return whole_days(deployment.lake, client, source)


def _chosen(asked: str, days: Callable[[], list[date]], table: str) -> date | None:
    """Return the day that is asked for, or the newest there is."""
    known = sorted(days())
    if not asked:
        return known[-1] if known else None
    if asked not in (names := [str(day) for day in known]):
        raise NotReadyError(f"day {asked!r} of {table} is not over, or not built.{near_miss(asked, names)}")
    return date.fromisoformat(asked)


def _nothing(name: str, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=True, check_name=name, severity=dg.AssetCheckSeverity.WARN, description=f"nothing was judged: {why}"
    )
