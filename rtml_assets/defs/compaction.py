"""Compaction: which days to build, as ranges of partitions; a job a source, and its hourly schedule."""

# No `from __future__ import annotations`: Dagster reads the annotations of a schedule's context.

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from rtml.algebra.counting import ROWS
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import daily, in_process_job, key_of
from rtml_assets.defs.parity_checks import tile_checks
from rtml_assets.defs.quality_checks import quality_checks
from rtml_assets.defs.sla_checks import sla_keys
from rtml_assets.defs.view_assets import LATE_BOUND, LEVELS_AGREE
from rtml_assets.tables.quarantine import CONTRACT
from rtml_assets.tables.touched import blocked_days, outside_days, touched_days

DAY = timedelta(days=1)


def compaction_job(deployment: Deployment, source: EventSource) -> UnresolvedAssetJobDefinition:
    """Return the job that builds a source's days, and publishes its views; other checks have jobs of their own."""
    views = deployment.registry.views_of(source.name)
    others = [*(key for view in views for key in tile_checks(view)), *quality_checks(source), *sla_keys(deployment)]
    return _job(source, _compacted(deployment, source) - dg.AssetSelection.checks(*others))


def building_job(deployment: Deployment, source: EventSource) -> UnresolvedAssetJobDefinition:
    """Return the same job where there are no other checks to leave out."""
    return _job(source, _compacted(deployment, source))


def _compacted(deployment: Deployment, source: EventSource) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*building(deployment, source), *publishing(deployment, source))


def _job(source: EventSource, selection: dg.AssetSelection) -> UnresolvedAssetJobDefinition:
    words = f"raw → events → tiles → Redis, for the days of {source.name} that were touched."
    return in_process_job(f"compact_{source.name}", selection, words)


def building(
    deployment: Deployment, source: EventSource, views: Sequence[StreamFeatureView] | None = None
) -> list[dg.AssetKey]:
    """Return a source's assets that are built by day, of some of its views, or of all."""
    chosen = deployment.registry.views_of(source.name) if views is None else views
    return [key_of("events", source.name), *(key_of("tiles", view.name) for view in chosen)]


def publishing(deployment: Deployment, source: EventSource) -> list[dg.AssetKey]:
    """Return what is published of a source's views."""
    return [key_of("published", view.name) for view in deployment.registry.views_of(source.name)]


def hourly(deployment: Deployment, source: EventSource, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule that runs a source's job for the days touched since they were last built."""

    @dg.schedule(
        name=f"compact_{source.name}_hourly",
        job=job,
        cron_schedule="0 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Late data re-materialises just the days that it touched.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        known = set(daily(source).get_partition_keys())
        touched = touched_days(deployment.lake, source, deployment.plans_of(source.name))
        days = [day for day in touched if str(day) in known]
        requests = list(requests_for(deployment, source, days))
        context.log.info("%d days of %s were touched", len(days), source.name)
        if outside := outside_days(deployment.lake, source):
            context.log.warning("starts and ends leave out %d days, such as %s", len(outside), outside[0])
        return requests or dg.SkipReason("nothing was touched, and no view is published")

    return schedule


def requests_for(deployment: Deployment, source: EventSource, days: Sequence[date]) -> Iterator[dg.RunRequest]:
    """Return the runs that build days, one for each stretch of them; the last one publishes.

    Days that a check keeps from being built have runs of their own, behind the others, so that they keep no other day
    from it; then publishing has one, too.
    """
    published = publishing(deployment, source)
    blocked = blocked_days(deployment.lake, source).intersection(days)
    stretches = [
        *in_stretches([day for day in days if day not in blocked]),
        *in_stretches(sorted(blocked)),
    ]
    for first, last in stretches:
        selected = building(deployment, source)
        if not blocked and (first, last) == stretches[-1]:
            selected += published
        yield request_for(deployment, selected, first, last)
    if published and (blocked or not stretches):
        yield request_for(deployment, published)


def request_for(
    deployment: Deployment, assets: list[dg.AssetKey], first: date | None = None, last: date | None = None
) -> dg.RunRequest:
    """Return the run that materialises assets, of a range of days or of none, with the checks that belong to that."""
    tags = {} if first is None or last is None else range_tags(first, last)
    gates = [gate for key in assets for gate in _gates(deployment, key)]
    return dg.RunRequest(asset_selection=assets, asset_check_keys=gates, tags=tags)


def _gates(deployment: Deployment, key: dg.AssetKey) -> list[dg.AssetCheckKey]:
    """Return the checks that are made as an asset is written; without being named, all others would be made, too."""
    table, name = key.path
    names = {"events": CONTRACT, "tiles": LEVELS_AGREE, "published": LATE_BOUND}
    if table == "tiles" and ROWS not in deployment.registry.plans[name].states.names:
        return []
    expected = deployment.registry.source(name).expectations if table == "events" else ()
    return [dg.AssetCheckKey(key, gate) for gate in (names[table], *(one.name for one in expected))]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Return the tags by which one run builds a range of partitions."""
    return {ASSET_PARTITION_RANGE_START_TAG: str(first), ASSET_PARTITION_RANGE_END_TAG: str(last)}


def in_stretches(days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Return the first and last day of each stretch of days that follow on each other."""
    ordered = sorted(days)
    firsts = [day for day in ordered if day - DAY not in set(ordered)]
    lasts = [day for day in ordered if day + DAY not in set(ordered)]
    return iter(list(zip(firsts, lasts, strict=True)))
