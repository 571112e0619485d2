"""What follows from something else that is wrong: one cause is told, not all that comes of it."""

from __future__ import annotations

from collections.abc import Iterable

from rtml.registry import Registry
from rtml_assets.watch.catalog import CATALOG
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.report import Objective, Report

DAGSTERS = frozenset({"run_failed", "delta_conflict", "check_failed", "parity_broken", "drift"})
"""The alerts that Dagster's sensors settle."""
SHARED = frozenset({"check_failed"})
"""Those that both settle: the watch of sources (a contract that is held), the sensor of Dagster's own checks."""
OURS = frozenset(CATALOG) - (DAGSTERS - SHARED)
"""Those of the watch."""
NOTICED_MS, PENDING_MS = 2_000.0, 30_000.0
"""A heartbeat that is missing for longer than the first is no accident; beyond the second nothing waits for it."""
OF_CHECKS = "check:"
"""How the targets begin that the watch does not look at."""
WITHOUT_REDIS = frozenset(
    {"redis_unavailable", "disk_full", "lake_unwritable", "dagster_down", "stream_restarts", "error_budget"}
)
"""What can be judged while Redis is away. All else follows from that, or cannot be seen."""


def judged(report: Report) -> frozenset[str]:
    """Return the alerts that a look can judge; of the others, what is open stays so."""
    return OURS if report.platform.redis.up else WITHOUT_REDIS


def watched(target: str) -> bool:
    """Say whether a target is one of the watch."""
    return not target.startswith(OF_CHECKS)


def followed(found: Iterable[Condition], report: Report, registry: Registry) -> set[tuple[str, str]]:
    """Return the alerts and targets that follow from a source that passes nothing on: lag, and what grows old of it.

    What grows old before its source can be judged waits for that: one alert is told, and not many a moment before it.
    """
    stalled = {name for name, source in report.sources.items() if source.state == "stalled"}
    quiet = stalled | {each.target.partition(":")[2] for each in report.objectives if _is_pending(each)}
    views = {view.name for name in quiet for view in registry.views_of(name)}
    services = {name for name, service in registry.services.items() if views & {view.name for view in service.views}}
    old = {f"source:{name}" for name in quiet} | {f"view:{name}" for name in views}
    of = {
        "stream_lag": {f"source:{name}" for name in stalled},
        "freshness": old | {f"service:{name}" for name in services},
    }
    return {(each.alert, each.target) for each in found if each.target in of.get(each.alert, ())}


def _is_pending(each: Objective) -> bool:
    """Whether a source's heartbeat is missing, and may be for a while yet."""
    return each.name == "heartbeat" and each.good is True and NOTICED_MS < (each.value or 0.0) <= PENDING_MS
