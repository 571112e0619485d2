"""What was promised, as asset checks: the watch measures all day, and a sensor reports what it found."""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor's context.

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
import redis

from rtml.define.service import FeatureService
from rtml.errors import NotReadyError
from rtml.instants import MINUTE, SECOND, Instant
from rtml.instants import now as present
from rtml.online import keys
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import key_of
from rtml_assets.tables.delta import meaning_of
from rtml_assets.watch.agreements import Agreement, agreements
from rtml_assets.watch.conditions import shown
from rtml_assets.watch.report import Objective, Report, decode
from rtml_assets.watch.shown import read_file

INTERVAL_SECONDS = 15
REPEATED_EVERY = 10 * MINUTE
"""How often what has not changed is reported again, so that it is plotted.

Dagster keeps all of it: 5 KB a time, for 20 promises 14 MB a day (and each minute, 140).
"""
OLD_AFTER = MINUTE
"""A report that is older says nothing of now."""
PATIENCE_SECONDS = 2.0
TABLES = {"source": "stream", "view": "published", "service": "serving"}
"""Which asset a target's promises are checked on."""
ERRORS = frozenset({"freshness", "lag", "heartbeat", "availability"})
"""The promises whose breach is an error; that of the others is a warning."""


class Promise(NamedTuple):
    """One bound of one target, as a check."""

    target: str
    objective: str

    @property
    def asset(self) -> dg.AssetKey:
        """The asset that it is checked on."""
        kind, _, name = self.target.partition(":")
        return key_of(TABLES[kind], name)

    @property
    def check(self) -> str:
        """The check's name."""
        return f"sla_{self.objective.replace(':', '_')}"

    @property
    def key(self) -> dg.AssetCheckKey:
        """The check's key."""
        return dg.AssetCheckKey(self.asset, self.check)

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """How bad it is when it is broken."""
        woken = self.objective in ERRORS
        return dg.AssetCheckSeverity.ERROR if woken else dg.AssetCheckSeverity.WARN


def promises(deployment: Deployment) -> list[Promise]:
    """Return all bounds that somebody wrote down."""
    return [promise for agreement in agreements(deployment.registry).values() for promise in _of(agreement)]


def serving_assets(deployment: Deployment) -> list[dg.AssetSpec]:
    """Return `serving/<service>`, what servers answer, of every service that something was promised of."""
    promised = {promise.target for promise in promises(deployment)}
    services = deployment.registry.services.values()
    return [_serving_asset(service) for service in services if f"service:{service.name}" in promised]


def sla_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """Return the checks; one that is executed says what the watch's last look found."""
    return [_check(deployment, promise) for promise in promises(deployment)]


def sla_keys(deployment: Deployment) -> list[dg.AssetCheckKey]:
    """Return the keys of the checks: no job need make them."""
    return [promise.key for promise in promises(deployment)]


def sla_sensor(deployment: Deployment) -> dg.SensorDefinition:
    """Return the sensor that reports them: at once when one turns, else every ten minutes."""
    known = promises(deployment)

    @dg.sensor(
        name="slas",
        description="Whether what was promised is kept, as the watch measures it.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def slas(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if not known:
            return dg.SkipReason("nothing is promised: no definition has sla=SLA(...)")
        try:
            report = last_report(deployment, present())
        except NotReadyError as error:
            return dg.SkipReason(str(error))
        told: dict[str, Any] = json.loads(context.cursor or "{}")
        events = list(_due(known, report, told))
        words = dg.SkipReason(f"no run is needed: reported {len(events)} of {len(known)} promises")
        return dg.SensorResult(asset_events=events, cursor=json.dumps(told), skip_reason=words)

    return slas


def last_report(deployment: Deployment, now: Instant) -> Report:
    """Return the watch's last look: from Redis, or from its file where Redis is away.

    Raises:
        NotReadyError: there is none of the last minute.
    """
    report = _from_redis(deployment)
    file = read_file(deployment.settings.home_path)
    newest = max((each for each in (report, file) if each is not None), key=lambda each: each.at, default=None)
    if newest is None:
        raise NotReadyError("the watch has not looked yet: start it with `rtml up` or `rtml watch`")
    if (age := now - newest.at) > OLD_AFTER:
        raise NotReadyError(f"the watch last looked {age / SECOND:.0f} s ago: is `rtml watch` running?")
    return newest


def _of(agreement: Agreement) -> Iterator[Promise]:
    for name in sorted(agreement.promised):
        for each in [f"nulls:{column}" for column in agreement.sla.nulls] if name == "nulls" else [name]:
            yield Promise(agreement.target, each)


def _from_redis(deployment: Deployment) -> Report | None:
    try:
        with deployment.redis(PATIENCE_SECONDS) as client:
            body = client.get(keys.WATCH)
    except redis.RedisError:
        return None
    return decode(body) if isinstance(body, bytes) else None


def _due(known: Iterable[Promise], report: Report, told: dict[str, Any]) -> Iterator[dg.AssetCheckEvaluation]:
    """Return what is to be reported, and note in `told` (check → [passed, when]) that it was."""
    objectives = {(each.target, each.name): each for each in report.objectives}
    for promise in known:
        objective = objectives.get(promise)
        # What could not be judged is not reported: the check stays as it was.
        if objective is None or objective.good is None:
            continue
        name = f"{promise.target} {promise.objective}"
        before, at = told.get(name, (None, 0))
        if before == objective.good and report.at - at < REPEATED_EVERY:
            continue
        told[name] = (objective.good, report.at)
        yield dg.AssetCheckEvaluation(
            asset_key=promise.asset,
            check_name=promise.check,
            passed=objective.good,
            severity=promise.severity,
            description=_words(objective),
            metadata=_figures(objective),
        )


def _check(deployment: Deployment, promise: Promise) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=promise.asset,
        name=promise.check,
        description=f"What was promised of {promise.target}: {promise.objective}. The watch measures it; the sensor "
        "`slas` reports it.",
    )
    def check() -> dg.AssetCheckResult:
        try:
            report = last_report(deployment, present())
        except NotReadyError as error:
            return _unjudged(promise, str(error))
        found = [each for each in report.objectives if (each.target, each.name) == promise]
        if not found or found[0].good is None:
            return _unjudged(promise, found[0].words if found else "the watch looks at other definitions")
        objective = found[0]
        return dg.AssetCheckResult(
            passed=bool(objective.good),
            check_name=promise.check,
            severity=promise.severity,
            description=_words(objective),
            metadata=_figures(objective),
        )

    return check


def _unjudged(promise: Promise, why: str) -> dg.AssetCheckResult:
    """Return what someone is told who asks when there is nothing to be seen; it breaks no promise."""
    words = f"cannot be judged now: {why}"
    warning = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=False, check_name=promise.check, severity=warning, description=words)


def _words(objective: Objective) -> str:
    if objective.value is None:
        return objective.words
    return f"{shown(objective.value, objective.unit)}, bound {shown(objective.bound, objective.unit)}"


def _figures(objective: Objective) -> Mapping[str, Any]:
    figures = {"value": objective.value, "bound": objective.bound, "budget_left": objective.left}
    figures |= {f"burn_{window}": rate for window, rate in objective.burn.items()}
    return {name: float(value) for name, value in figures.items() if value is not None} | {"unit": objective.unit}


def _serving_asset(service: FeatureService) -> dg.AssetSpec:
    return dg.AssetSpec(
        key_of("serving", service.name),
        deps=[key_of("published", view.name) for view in service.views],
        description=f"{service.description or service.name}, as the feature servers answer it.",
        kinds={"redis"},
        group_name="services",
        owners=list(service.owners),
        code_version=meaning_of(service.name, service.version).rsplit(maxsplit=1)[-1],
    )
