"""Which jobs' last runs failed, read from Dagster step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
from dagster_shared.error import SerializableErrorInfo

from rtml.instants import DAY, SECOND, Instant, to_datetime
from rtml_assets.watch.conditions import Condition

ASSET_JOB = "__ASSET_JOB"
"""What Dagster calls a run that somebody started from an asset's page."""
FIRST_LOOK = timedelta(days=1)
OVERLAP = timedelta(seconds=2)
"""Runs that end in the same instant are read again: that changes nothing."""
AT_ONCE = 100
CONFLICT = "CommitFailedError"
LONGEST_WORDS = 500
FORGOTTEN_AFTER = DAY


class Failure(msgspec.Struct, frozen=True):
    """The last run of a job, which failed."""

    alert: str
    words: str
    at: Instant = 0
    """When it ended."""
    assets: list[str] = []
    """What it was to make, where somebody chose that."""


class FailedRuns(msgspec.Struct):
    """What is known of runs up to an instant; kept as the sensor's cursor."""

    read_to: Instant
    failing: dict[str, Failure] = {}
    """By target: `job:<name>`, or `assets:<keys>` of a run from an asset's page."""

    @classmethod
    def of(cls, cursor: str | None, now: Instant) -> FailedRuns:
        """Read a cursor; without one, begin a day ago."""
        if cursor:
            return msgspec.json.decode(cursor, type=cls)
        return cls(now - int(FIRST_LOOK / timedelta(microseconds=1)))

    def cursor(self) -> str:
        """Return it as a cursor."""
        return msgspec.json.encode(self).decode()

    def conditions(self) -> list[Condition]:
        """Return what is wrong."""
        return [Condition(each.alert, target, "warning", each.words) for target, each in self.failing.items()]

    def forget(self, instance: dg.DagsterInstance, jobs: Collection[str], now: Instant) -> None:
        """Forget runs that nobody will repeat as they were: chosen by hand, or of a job that there is no more.

        They are over when all that was chosen has been made since, by whatever runs, or after a day.
        """
        for target, failure in list(self.failing.items()):
            kind, _, job = target.partition(":")
            if kind == "job" and job in jobs:
                continue
            if now - failure.at > FORGOTTEN_AFTER or _is_made(instance, failure):
                del self.failing[target]

    def read(self, instance: dg.DagsterInstance, now: Instant) -> None:
        """Take the runs that have ended since; a success mends what a failure of the same job broke."""
        for record in _ended(instance, to_datetime(self.read_to) - OVERLAP):
            run = record.dagster_run
            target = _target(run)
            if run.status == dg.DagsterRunStatus.SUCCESS:
                self.failing.pop(target, None)
            else:
                self.failing[target] = _failure(instance, record, target)
            self.read_to = max(self.read_to, _ended_at(record))
        self.read_to = min(self.read_to, now)


def _ended(instance: dg.DagsterInstance, after: datetime) -> Iterator[dg.RunRecord]:
    """Return ended runs in the order in which they ended."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    filters = dg.RunsFilter(statuses=ended, updated_after=after)
    yield from instance.get_run_records(filters, limit=AT_ONCE, order_by="update_timestamp", ascending=True)


def _target(run: dg.DagsterRun) -> str:
    if run.job_name != ASSET_JOB:
        return f"job:{run.job_name}"
    chosen = sorted(key.to_user_string() for key in run.asset_selection or ())
    checked = sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in run.asset_check_selection or ())
    return f"assets:{','.join(chosen or checked)}"


def _ended_at(record: dg.RunRecord) -> Instant:
    return int(record.update_timestamp.replace(tzinfo=UTC).timestamp() * SECOND)


def _is_made(instance: dg.DagsterInstance, failure: Failure) -> bool:
    """Say whether all that a run was to make has been made since."""
    chosen = [dg.AssetKey.from_user_string(name) for name in failure.assets]
    made = [record.asset_entry.last_materialization_record for record in instance.get_asset_records(chosen)]
    since = [record for record in made if record is not None and record.timestamp * SECOND > failure.at]
    return bool(chosen) and len(since) == len(chosen)


def _failure(instance: dg.DagsterInstance, record: dg.RunRecord, target: str) -> Failure:
    run = record.dagster_run
    entries = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE})
    steps = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
    errors = [step.step_failure_data.error for step in steps]
    causes = [cause for error in errors for cause in _chain(error)]
    conflict = any(cause.cls_name == CONFLICT for cause in causes)
    said = [
        f"{step.step_key}: {list(_chain(step.step_failure_data.error))[-1].message.strip()}"
        for step in steps
        if step.step_failure_data.error
    ]
    what = "; ".join(said) or "it failed before its first step"
    words = f"run {run.run_id[:8]} of {target.replace(':', ' ', 1)} failed: {what}"
    chosen = sorted(key.to_user_string() for key in run.asset_selection or ())
    return Failure("delta_conflict" if conflict else "run_failed", words[:LONGEST_WORDS], _ended_at(record), chosen)


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """Return an error and what it came of, the root last."""
    while error is not None:
        yield error
        error = error.cause
