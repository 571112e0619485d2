"""A sensor that tells of what went wrong inside Dagster: asset checks that fail, and runs that do."""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor's context.

from collections.abc import Collection, Mapping
from contextlib import suppress
from email.message import EmailMessage
from typing import Any, NamedTuple

import dagster as dg
import msgspec
import redis
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status
from dagster._utils.alert import send_email_via_ssl, send_email_via_starttls

from rtml.instants import Instant, parse_duration
from rtml.instants import now as present
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.failed_runs import FailedRuns
from rtml_assets.defs.parity_checks import CANARY, STREAM, TILES
from rtml_assets.watch.channels import Email, by_smtp, channels_of, recipients, sender
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.ledger import Alert, Ledger, Notice, ledger_file
from rtml_assets.watch.message import Links
from rtml_assets.watch.outbox import Outbox

INTERVAL_SECONDS = 15
DELIVERY_SECONDS = 15.0
"""For so long a tick sends; what is left is the watch's, or the next tick's."""
PATIENCE_SECONDS = 2.0
PARITY = frozenset({CANARY, STREAM, TILES})
DRIFT = "drift"
SLA = "sla_"
"""How the names of those checks begin that the watch itself settles."""
CHECK_ALERTS = frozenset({"check_failed", "parity_broken", "drift"})
RUN_ALERTS = frozenset({"run_failed", "delta_conflict"})


class Outcome(NamedTuple):
    """What an asset check last came to."""

    key: dg.AssetCheckKey
    passed: bool | None
    """`None` while it is being made."""
    severity: str = "warning"
    at: Instant = 0
    words: str = ""
    url: str | None = None

    @property
    def name(self) -> str:
        """`tiles/trades:canary`."""
        return f"{self.key.asset_key.to_user_string()}:{self.key.name}"

    @property
    def alert(self) -> str:
        """What its failure is told as."""
        return "parity_broken" if self.key.name in PARITY else "drift" if self.key.name == DRIFT else "check_failed"


def alerts_sensor(deployment: Deployment) -> dg.SensorDefinition:
    """Return the sensor over all asset checks and runs."""

    @dg.sensor(
        name="check_alerts",
        description="Tells of asset checks and runs that fail, once each, and when they are well again.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def check_alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        assert context.repository_def is not None
        known = [key for key in context.repository_def.asset_graph.asset_check_keys if not key.name.startswith(SLA)]
        outcomes = check_outcomes(context.instance, known)
        _show(deployment, outcomes)
        now = present()
        failed = FailedRuns.of(context.cursor, now)
        failed.read(context.instance, now)
        failed.forget(context.instance, context.repository_def.job_names, now)
        channels = channels_of(deployment.settings, context.log.info, dagster_email(deployment.settings))
        names = [channel.name for channel in channels]
        remind = parse_duration(deployment.settings.alert_remind)
        with Ledger(ledger_file(deployment.settings.home_path), names, remind) as ledger:
            found = [*_failing(outcomes, ledger.open()), *failed.conditions()]
            settled = ledger.settle(found, now, CHECK_ALERTS | RUN_ALERTS, looks=1, own=_is_dagsters)
            outbox = Outbox(ledger, channels, Links.of(deployment.settings), warn=context.log.warning)
            outbox.deliver_all(DELIVERY_SECONDS)
        words = _summary(list(settled.notices(now)), len(known))
        return dg.SensorResult(cursor=failed.cursor(), skip_reason=dg.SkipReason(words))

    return check_alerts


def check_outcomes(instance: dg.DagsterInstance, known: Collection[dg.AssetCheckKey]) -> list[Outcome]:
    """Return what checks last came to; those that were never made are left out."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(known))
    outcomes = []
    for key, record in found.items():
        entry = record.event.dagster_event if record.event else None
        if record.status in (Status.SUCCEEDED, Status.FAILED) and entry is not None:
            outcomes.append(_outcome(key, entry.asset_check_evaluation_data, record.create_timestamp))
        else:
            outcomes.append(Outcome(key, None))
    return outcomes


def dagster_email(settings: Settings) -> Email | None:
    """Return e-mail by Dagster's own means, which are for servers that ask for a login; the others get it plainly."""
    if not recipients(settings):
        return None
    return Email(settings, by_dagster if settings.smtp_user and settings.smtp_security != "none" else by_smtp)


def by_dagster(settings: Settings, mail: EmailMessage) -> None:
    """Hand a mail to the SMTP server of the settings as Dagster's e-mail alerts are."""
    post = send_email_via_ssl if settings.smtp_security == "ssl" else send_email_via_starttls
    addresses, server = recipients(settings), (settings.smtp_host, settings.smtp_port, settings.smtp_user)
    post(sender(settings), settings.smtp_password, addresses, mail.as_string(), *server)


def _outcome(key: dg.AssetCheckKey, evaluation: dg.AssetCheckEvaluation, at: float) -> Outcome:
    severity = "critical" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning"
    urls = [value.url for value in evaluation.metadata.values() if isinstance(value, dg.UrlMetadataValue)]
    words = evaluation.description or ""
    return Outcome(key, evaluation.passed, severity, int(at * 1e6), words, next(iter(urls), None))


def _failing(outcomes: Collection[Outcome], opened: Collection[Alert]) -> list[Condition]:
    """Return what fails; what is being made again is as it was before."""
    before = {(alert.alert, alert.target): alert for alert in opened}
    found = []
    for outcome in outcomes:
        target = f"check:{outcome.name}"
        last = before.get((outcome.alert, target))
        if outcome.passed is False:
            words = (
                f"check {outcome.key.name!r} of {outcome.key.asset_key.to_user_string()}: {outcome.words or 'failed'}"
            )
            severity: Any = outcome.severity
            found.append(Condition(outcome.alert, target, severity, words))
        elif outcome.passed is None and last is not None:
            again: Any = last.severity
            found.append(Condition(last.alert, target, again, last.words, last.value, last.bound))
    return found


def _is_dagsters(target: str) -> bool:
    """Say whether a target is a check or a run: the others are the watch's."""
    return target.startswith(("check:", "job:", "assets:"))


def _show(deployment: Deployment, outcomes: Collection[Outcome]) -> None:
    """Replace what Redis has of the checks, for those who look there."""
    fields: dict[str, bytes] = {}
    for outcome in outcomes:
        if outcome.passed is not None:
            body = {"passed": outcome.passed, "severity": outcome.severity, "at": outcome.at, "words": outcome.words}
            fields[outcome.name] = msgspec.json.encode(body | ({"url": outcome.url} if outcome.url else {}))
    # A Redis that is away is for the watch to tell.
    with suppress(redis.RedisError), deployment.redis(PATIENCE_SECONDS) as client:
        kept: Mapping[bytes, bytes] = client.hgetall(keys.WATCH_CHECKS)
        gone = [name for field in kept if (name := field.decode()) not in {outcome.name for outcome in outcomes}]
        if gone:
            client.hdel(keys.WATCH_CHECKS, *gone)
        if fields:
            client.hset(keys.WATCH_CHECKS, mapping=dict(fields))


def _summary(notices: list[Notice], known: int) -> str:
    if not notices:
        return f"no run is needed: nothing new of {known} checks and all runs"
    return "no run is needed: " + "; ".join(f"{each.kind} {each.alert.alert} {each.alert.target}" for each in notices)
