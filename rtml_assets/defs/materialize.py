"""Materialise what was touched from Python, through real Dagster runs: for tests, the demo, a notebook."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context
from sqlalchemy import Engine, event

from rtml.define.source import EventSource
from rtml.errors import RtmlError
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.defs.build import compaction_of
from rtml_assets.defs.compaction import building_job, requests_for
from rtml_assets.defs.deployment import Deployment
from rtml_assets.tables.touched import blocked_days, in_history, outside_days, touched_days

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Failures are raised, with their names; the rest is in Dagster's own log."""


class CompactionError(RtmlError):
    """A run of Dagster that failed; names the assets and checks."""


@dataclass
class Summary:
    """What was materialised."""

    days: dict[str, list[date]] = field(default_factory=dict)
    """By source: the days that were built."""
    rows: dict[str, int] = field(default_factory=dict)
    """By asset, as `events/departures`: how many rows the built days have."""
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By view: the version, its boundary, how much history and how many late events."""
    warnings: list[str] = field(default_factory=list)
    """Checks that failed without blocking, and days that no asset builds."""
    seconds: float = 0.0


def materialize_days(
    settings: Settings,
    registry: Registry,
    days: Sequence[date] | None = None,
    *,
    sources: Collection[str] | None = None,
    instance: dg.DagsterInstance | None = None,
    durable: bool = True,
) -> Summary:
    """Build days of `events/` and `tiles/`, publish every view, and return what that came to.

    Args:
        settings: where the lake and Redis are.
        registry: the project's definitions.
        days: which days of every source; by default those that were touched since they were last built.
        sources: of these sources only; by default of all.
        instance: where Dagster keeps the runs; by default that of `DAGSTER_HOME`, or else none that lasts.
        durable: whether Dagster's notes of the runs must survive a power cut; waiting for the disk at each of them
            takes most of the time of a long backfill. The tables themselves are durable in any case.

    Raises:
        CompactionError: a run failed; names the assets and the checks. What does not depend on it is built all the
            same.
    """
    started = time.monotonic()
    deployment = Deployment(settings, registry)
    summary = Summary()
    with nullcontext() if durable else hasty_sqlite(), _instance(instance) as used:
        for source in registry.sources.values() if sources is None else map(registry.source, sources):
            _materialize_source(deployment, source, days, used, summary)
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _materialize_source(
    deployment: Deployment,
    source: EventSource,
    days: Sequence[date] | None,
    instance: dg.DagsterInstance,
    summary: Summary,
) -> None:
    if days is None:
        chosen = touched_days(deployment.lake, source, deployment.plans_of(source.name))
    else:
        chosen = [day for day in days if in_history(source, day)]
    summary.days[source.name] = chosen
    if outside := outside_days(deployment.lake, source):
        summary.warnings.append(f"{source.where}: starts and ends leave out {len(outside)} days, such as {outside[0]}")
    known = blocked_days(deployment.lake, source)

    def build(some: Sequence[date]) -> None:
        run_requests(deployment, source, requests_for(deployment, source, some), some, instance, summary)

    try:
        build(chosen)
    except CompactionError as error:
        blocked = blocked_days(deployment.lake, source)
        if not blocked <= known:  # found bad just now, beside others, which wait for nothing
            try:
                build([day for day in chosen if day not in blocked])
            except CompactionError as other:
                raise CompactionError(f"{error}; {other}") from error
        raise


def run_requests(
    deployment: Deployment,
    source: EventSource,
    requests: Iterable[dg.RunRequest],
    days: Sequence[date],
    instance: dg.DagsterInstance,
    summary: Summary,
) -> None:
    """Execute runs of a source's compaction job in this process, and add to the summary what they did.

    Raises:
        CompactionError: a run failed, and all were tried; names the assets and the checks.
    """
    failed: list[str] = []
    job = compaction_of(deployment, source).resolve_job_def(building_job(deployment, source).name)
    # Events may be of a later year than the machine's, in tests and replays; Dagster's days end today.
    last = datetime.combine(max(days, default=date.min), datetime.min.time(), UTC) + timedelta(days=2)
    with partition_loading_context(effective_dt=max(last, datetime.now(UTC))):
        for request in requests:
            chosen = job.get_subset(
                asset_selection=set(request.asset_selection or ()),
                asset_check_selection=set(request.asset_check_keys or ()),
            )
            result = chosen.execute_in_process(
                run_config=_QUIET, instance=instance, tags=request.tags, raise_on_error=False
            )
            try:
                _take(result, summary)
            except CompactionError as error:
                failed.append(str(error))
    if failed:
        raise CompactionError("; ".join(failed))


def _take(result: dg.ExecuteInProcessResult, summary: Summary) -> None:
    """Add what a run did; raise when it failed."""
    failed = [
        f"check {evaluation.check_name!r} of {evaluation.asset_key.to_user_string()}: {evaluation.description}"
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed
    ]
    if not result.success:
        raise CompactionError("; ".join([*failed, *_failed_steps(result)]))
    summary.warnings += failed
    for entry in result.get_asset_materialization_events():
        materialization = entry.step_materialization_data.materialization
        table, name = materialization.asset_key.path
        values: dict[str, Any] = {label: value.value for label, value in materialization.metadata.items()}
        if table == "published":
            summary.published[name] = values
        elif table != "raw" and (rows := values.get("dagster/partition_row_count")):
            asset = f"{table}/{name}"
            summary.rows[asset] = summary.rows.get(asset, 0) + rows


def _failed_steps(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    for entry in result.all_events:
        if entry.is_step_failure and entry.step_key:
            error = entry.step_failure_data.error
            root = error.cause or error if error else None
            words = root.message.strip() if root else "no reason given"
            yield f"asset {entry.step_key.replace('__', '/')}: {words}"


@contextmanager
def _instance(given: dg.DagsterInstance | None) -> Iterator[dg.DagsterInstance]:
    if given is not None:
        yield given
    elif os.environ.get("DAGSTER_HOME"):
        with dg.DagsterInstance.get() as found:
            yield found
    else:
        with dg.DagsterInstance.ephemeral() as passing:
            yield passing


@contextmanager
def hasty_sqlite() -> Iterator[None]:
    """Let SQLite's commits in this process return before the disk has them: Dagster makes four for every partition."""

    def hurry(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    try:
        yield
    finally:
        event.remove(Engine, "connect", hurry)
