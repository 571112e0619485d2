"""Parity three ways as asset checks, each with a job and a schedule of its own: compaction takes no longer for them."""

# No `from __future__ import annotations`: Dagster reads the annotations of a check's context and configuration.

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from quality.parity import Parity
from rtml.define.service import FeatureService
from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError, near_miss
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import in_process_job, key_of, table_metadata
from rtml_assets.defs.parity_report import nothing_compared, parity_result
from rtml_assets.tables.canary import Canary, canary
from rtml_assets.tables.delta import meaning_of
from rtml_assets.tables.served import service_schema
from rtml_assets.tables.stream_parity import stream_versus_batch
from rtml_assets.tables.tile_parity import tiles_versus_events
from rtml_assets.tables.touched import PastDays, past_days

CANARY, STREAM, TILES = "canary", "stream_versus_batch", "tiles_versus_events"


class Day(dg.Config):
    """Which day is compared, as `2024-03-01`."""

    day: str = ""
    """By default the newest one that is over and built."""


class Checking(NamedTuple):
    """Checks, and what runs them."""

    checks: list[dg.AssetChecksDefinition]
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition


def served_asset(deployment: Deployment, service: FeatureService) -> dg.AssetSpec:
    """Return `served/<service>`, which servers append to."""
    schema = service_schema(service, deployment.registry.plans)
    return dg.AssetSpec(
        key_of("served", service.name),
        deps=[key_of("published", view.name) for view in service.views],
        description=f"What was served of {service.name}, of {service.log:.4g} of all entities: values, versions, and "
        "what the server had seen.",
        kinds={"deltalake"},
        group_name="served",
        owners=list(service.owners),
        code_version=meaning_of(service.name, service.version, schema).rsplit(maxsplit=1)[-1],
        metadata={**table_metadata(deployment.lake.served(service.name), schema), "share": float(service.log)},
    )


def canary_of(deployment: Deployment, service: FeatureService) -> Checking:
    """Return the hourly canary of a service."""

    @dg.asset_check(
        asset=key_of("served", service.name),
        name=CANARY,
        description="The newest logged vectors, recomputed offline at the same instants from what the server had seen.",
    )
    def check() -> dg.AssetCheckResult:
        with deployment.redis() as client:
            found = canary(deployment.lake, client, service, deployment.registry.plans)
        return canary_result(found)

    words = f"Logged vectors of {service.name} against an offline recompute."
    return checking(f"canary_{service.name}", [check], "20 * * * *", words)


def canary_result(found: Canary) -> dg.AssetCheckResult:
    """Return what a canary came to; one that compared nothing warns, unless nothing was ever logged."""
    figures: dict[str, Any] = {
        "vectors": found.vectors,
        "other_version": found.other_version,
        "incomplete": found.incomplete,
        "publishing": found.publishing,
        "replaced": found.replaced,
        "unseen_events": found.unseen,
    }
    if found.parity.features:
        return parity_result(found.parity, CANARY, **figures)
    if not found.vectors + found.other_version + found.incomplete:
        return nothing_compared(CANARY, "no vector was logged yet", expected=False, **figures)
    if found.replaced and not found.other_version + found.incomplete:
        words = f"all {found.replaced:,} values of a view that were logged were too old, and others were given instead"
        return nothing_compared(CANARY, words, expected=False, **figures)
    reason = (
        f"of the logged vectors {found.other_version:,} are of another meaning or of a version that is gone, and for "
        f"{found.incomplete:,} the lake does not hold yet all that the server had seen: is compaction behind?"
    )
    return nothing_compared(CANARY, reason, expected=True, **figures)


def parity_of(deployment: Deployment, view: StreamFeatureView) -> Checking:
    """Return the daily checks of a view's tiles."""
    plan, lake, key = deployment.plan(view), deployment.lake, key_of("tiles", view.name)

    def chosen(days: PastDays, asked: str) -> date | None:
        if not asked:
            return days.whole[0] if days.whole else None
        if asked not in (known := [str(day) for day in days.whole]):
            near = near_miss(asked, known)
            raise NotReadyError(f"day {asked!r} of view {view.name!r} is not over, or not built.{near}")
        return date.fromisoformat(asked)

    def outcome(name: str, asked: str, compared: Callable[[date], Parity]) -> dg.AssetCheckResult:
        with deployment.redis() as client:
            days = past_days(lake, client, view.source, plan)
        day = chosen(days, asked)
        if day is None:
            return nothing_compared(name, str(days), expected=days.expected, days=days.raw, days_over=len(days.over))
        return parity_result(compared(day), name, str(day), day=str(day))

    @dg.asset_check(
        asset=key, name=TILES, description="Each level of a past day, lowered from its events by itself, is the same."
    )
    def against_events(config: Day) -> dg.AssetCheckResult:
        return outcome(TILES, config.day, lambda day: tiles_versus_events(lake, view, plan, day))

    @dg.asset_check(
        asset=key, name=STREAM, description="A past day, replayed through the stream's own parts, gives the same tiles."
    )
    def against_stream(config: Day) -> dg.AssetCheckResult:
        with deployment.redis() as client:
            return outcome(STREAM, config.day, lambda day: stream_versus_batch(lake, client, view, plan, day))

    words = f"A past day of tiles/{view.name} against its events and against the stream."
    return checking(f"parity_{view.name}", [against_events, against_stream], "40 3 * * *", words)


def tile_checks(view: StreamFeatureView) -> list[dg.AssetCheckKey]:
    """Return the keys of the checks of a view's tiles."""
    return [dg.AssetCheckKey(key_of("tiles", view.name), name) for name in (TILES, STREAM)]


def parity(deployment: Deployment) -> tuple[list[dg.AssetSpec], list[Checking]]:
    """Return all that parity adds: what was served, as assets, and the checks."""
    services = [service for service in deployment.registry.services.values() if service.log > 0]
    return [served_asset(deployment, service) for service in services], list(_all(deployment, services))


def _all(deployment: Deployment, services: list[FeatureService]) -> Iterator[Checking]:
    for service in services:
        yield canary_of(deployment, service)
    for view in deployment.registry.views.values():
        yield parity_of(deployment, view)


def checking(name: str, checks: list[dg.AssetChecksDefinition], cron: str, words: str) -> Checking:
    """Return checks with a job of their own, and its schedule."""
    selection = dg.AssetSelection.checks(*(key for check in checks for key in check.check_keys))
    job = in_process_job(name, selection, words)
    schedule = dg.ScheduleDefinition(
        name=f"{name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=words,
    )
    return Checking(checks, job, schedule)
