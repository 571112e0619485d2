"""What Dagster shows of promises, and what it tells of: real instances, real runs, a real Redis."""

from __future__ import annotations

import json
import ssl
from datetime import date
from typing import Any

import dagster as dg
import msgspec
import polars as pl
import pytest
import trustme
from deltalake.exceptions import CommitFailedError

from rtml.errors import RtmlError
from rtml.instants import DAY, MINUTE, SECOND, now, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.failed_runs import FailedRuns, Failure
from rtml_assets.runtime.ports import free_port
from rtml_assets.tables.land import land
from rtml_assets.watch.ledger import Alert, Ledger, ledger_file
from rtml_assets.watch.remedy import ask, remedies, waiting
from rtml_assets.watch.report import Objective, Platform, RedisLook, Report, ServerLook, encode
from rtml_assets.watch.shown import write_file
from streaming.broker import connect
from tests.watch.receivers import Hook, Mailbox
from tests.watch.shops import REGISTRY, payments

CONTRACT = dg.AssetCheckKey(dg.AssetKey(["events", "payments"]), "contract")
TILES = dg.AssetCheckKey(dg.AssetKey(["tiles", "spent"]), "tiles_versus_events")
QUIET: Any = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
EVENTS = pl.DataFrame(
    {
        "event_id": [str(number) for number in range(40)],
        "event_time": [to_instant("2024-03-01T10:00:00Z") + number * MINUTE for number in range(40)],
        "card": [number % 3 for number in range(40)],
        "amount": [float(number) for number in range(40)],
    }
).with_columns(pl.col("event_time").cast(pl.Datetime("us", "UTC")), pl.col("card").cast(pl.Int64))


@pytest.fixture(scope="module")
def hook():
    with Hook().running() as running:
        yield running


@pytest.fixture
def settings(redis_url, tmp_path, hook):
    hook.got.clear()
    hook.answers.clear()
    with connect(redis_url) as client:
        client.flushall()
    return Settings(home=str(tmp_path), redis_url=redis_url, accept_stamps=True, alert_webhook=hook.url())


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Sensor:
    """One sensor of a project, tick by tick."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str):
        self.definitions = definitions_of(Deployment(settings, REGISTRY))
        self.instance, self.cursor = instance, ""
        self.sensor: Any = next(each for each in self.definitions.sensors or () if each.name == name)

    def __call__(self) -> Any:
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=self.cursor or None, repository_def=repository)
        result = self.sensor(context)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor or self.cursor
        return result


def report(**goods: bool | None) -> Report:
    """A look that found these of lag, heartbeat, amount, freshness, p99, availability."""
    targets = {
        "lag": ("source:payments", "lag"),
        "heartbeat": ("source:payments", "heartbeat"),
        "amount": ("source:payments", "nulls:amount"),
        "freshness": ("view:spent", "freshness"),
        "availability": ("service:fraud", "availability"),
    }
    objectives = [
        Objective(
            *targets[name],
            12.5,
            5.0,
            "ms",
            good,
            0.99,
            30 * MINUTE,
            promised=True,
            left=0.75,
            burn={"1h": 2.0, "5m": 0.0},
        )
        for name, good in goods.items()
    ]
    return Report(now(), 3.0, Platform(RedisLook(True), ServerLook(True)), objectives=objectives)


def evaluate(instance: dg.DagsterInstance, key: dg.AssetCheckKey, passed: bool, **others: Any) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=passed, **others)
    )


def told(hook: Hook) -> list[tuple[str, str, str]]:
    found = [(said["kind"], said["alert"], said["target"]) for said in hook.got]
    hook.got.clear()
    return found


def test_promises_are_checks_and_services_have_an_asset(settings):
    graph = definitions_of(Deployment(settings, REGISTRY)).resolve_asset_graph()
    found = {f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys if "sla_" in key.name}
    assert found == {
        *(f"stream/payments:sla_{name}" for name in ("lag", "heartbeat", "nulls_amount")),
        "published/spent:sla_freshness",
        *(f"serving/fraud:sla_{name}" for name in ("p99", "availability")),
    }
    serving: Any = graph.get(dg.AssetKey(["serving", "fraud"]))
    assert serving.parent_keys == {dg.AssetKey(["published", "spent"])}
    assert serving.is_external
    jobs = definitions_of(Deployment(settings, REGISTRY))
    made = jobs.resolve_job_def("compact_payments").asset_layer.asset_graph
    assert not [key for key in made.asset_check_keys if key.name.startswith("sla_")], "no compaction makes them"


def test_the_sensor_reports_changes_at_once_and_the_rest_now_and_then(settings, instance, redis_url):
    slas = Sensor(settings, instance, "slas")
    assert "the watch has not looked yet" in str(slas().skip_message)
    first = report(lag=True, heartbeat=None, amount=False, freshness=True, availability=True)
    with connect(redis_url) as client:
        client.set(keys.WATCH, encode(first))
        result = slas()
        events = {event.check_name: event for event in result.asset_events}
        assert events.keys() == {"sla_lag", "sla_nulls_amount", "sla_freshness", "sla_availability"}
        assert {name: event.severity.value for name, event in events.items()} == {
            "sla_lag": "ERROR",
            "sla_nulls_amount": "WARN",
            "sla_freshness": "ERROR",
            "sla_availability": "ERROR",
        }
        lag = events["sla_lag"]
        assert lag.passed
        assert {name: value.value for name, value in lag.metadata.items()} == {
            "value": 12.5,
            "bound": 5.0,
            "budget_left": 0.75,
            "burn_1h": 2.0,
            "burn_5m": 0.0,
            "unit": "ms",
        }
        assert lag.description == "12.5 ms, bound 5 ms"
        later = msgspec.structs.replace(first, at=first.at + 9 * MINUTE)
        client.set(keys.WATCH, encode(later))
        assert slas().asset_events == [], "Dagster keeps all that it is told"
        client.set(keys.WATCH, encode(report(lag=False, amount=False, freshness=True, availability=None)))
        assert [event.check_name for event in slas().asset_events] == ["sla_lag"]
        past = msgspec.structs.replace(first, at=first.at - 10 * MINUTE)
        client.set(keys.WATCH, encode(past))
        assert "last looked 6" in str(slas().skip_message)
        slas.cursor = json.dumps(dict.fromkeys(("view:spent freshness", "source:payments lag"), (True, past.at)))
        client.set(keys.WATCH, encode(report(freshness=True, lag=True)))
        assert [event.check_name for event in slas().asset_events] == ["sla_lag", "sla_freshness"]


def test_promises_are_seen_while_redis_is_away(settings, instance, tmp_path):
    away = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    write_file(tmp_path, report(lag=False))
    assert [event.check_name for event in Sensor(away, instance, "slas")().asset_events] == ["sla_lag"]


def test_a_check_that_someone_executes_says_what_was_last_seen(settings, instance, tmp_path):
    definitions = definitions_of(Deployment(settings, REGISTRY))
    keys_ = [dg.AssetCheckKey(dg.AssetKey(["stream", "payments"]), f"sla_{name}") for name in ("lag", "heartbeat")]

    def executed() -> dict[str, Any]:
        job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=set(keys_))
        result = job.execute_in_process(QUIET, instance=instance)
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    unseen = executed()
    assert [each.passed for each in unseen.values()] == [False, False]
    assert "start it with `rtml up`" in str(unseen["sla_lag"].description)
    write_file(tmp_path, report(lag=False))
    seen = executed()
    assert (seen["sla_lag"].passed, seen["sla_lag"].severity.value) == (False, "ERROR")
    assert (seen["sla_heartbeat"].passed, seen["sla_heartbeat"].severity.value) == (False, "WARN")


def test_checks_that_fail_are_told_once_and_again_when_they_pass(settings, instance, redis_url, hook):
    alerts = Sensor(settings, instance, "check_alerts")
    assert "nothing new" in str(alerts().skip_reason)
    url = dg.MetadataValue.url("http://127.0.0.1/quality/1")
    evaluate(instance, CONTRACT, False, description="day 2 is bad", metadata={"report": url, "rows": 3})
    evaluate(instance, TILES, False, severity=dg.AssetCheckSeverity.WARN)
    alerts()
    assert sorted(told(hook)) == [
        ("fired", "check_failed", "check:events/payments:contract"),
        ("fired", "parity_broken", "check:tiles/spent:tiles_versus_events"),
    ]
    alerts()
    evaluate(instance, CONTRACT, False, description="day 3 is bad")
    alerts()
    assert told(hook) == []
    with Ledger(ledger_file(settings.home_path)) as ledger:
        found = {alert.alert: (alert.severity, alert.words) for alert in ledger.open()}
    assert found == {
        "check_failed": ("critical", "check 'contract' of events/payments: day 3 is bad"),
        "parity_broken": ("warning", "check 'tiles_versus_events' of tiles/spent: failed"),
    }
    with connect(redis_url) as client:
        client.hset(keys.WATCH_CHECKS, "events/gone:contract", b"{}")
        evaluate(instance, CONTRACT, True)
        alerts()
        shown = {name.decode(): json.loads(body) for name, body in client.hgetall(keys.WATCH_CHECKS).items()}
    assert told(hook) == [("resolved", "check_failed", "check:events/payments:contract")]
    assert {name: (each["passed"], each["severity"]) for name, each in shown.items()} == {
        "events/payments:contract": (True, "critical"),
        "tiles/spent:tiles_versus_events": (False, "warning"),
    }


def test_the_page_of_a_report_goes_with_the_check(settings, instance, redis_url):
    metadata = {"page": dg.MetadataValue.url("/quality/1.html")}
    evaluate(instance, CONTRACT, False, description="bad", metadata=metadata)
    Sensor(settings, instance, "check_alerts")()
    with connect(redis_url) as client:
        (body,) = client.hgetall(keys.WATCH_CHECKS).values()
    shown = json.loads(body)
    assert (shown["url"], shown["words"]) == ("/quality/1.html", "bad")
    assert abs(shown["at"] - now()) < 60 * SECOND


def test_runs_that_fail_are_told_once_and_again_when_the_job_succeeds(settings, instance, hook):
    away = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    alerts = Sensor(settings, instance, "check_alerts")

    def compacted(where: Settings) -> bool:
        job = definitions_of(Deployment(where, REGISTRY)).resolve_job_def("compact_payments")
        published = [dg.AssetKey(["published", "spent"])]
        return job.execute_in_process(QUIET, instance=instance, asset_selection=published, raise_on_error=False).success

    assert not compacted(away)
    alerts()
    alerts()
    assert told(hook) == [("fired", "run_failed", "job:compact_payments")]
    with Ledger(ledger_file(settings.home_path)) as ledger:
        (alert,) = ledger.open()
    assert "published__spent: " in alert.words
    assert "Connection refused" in alert.words
    assert compacted(settings)
    alerts()
    assert told(hook) == [("resolved", "run_failed", "job:compact_payments")]


def test_a_run_that_was_chosen_by_hand_is_over_when_all_of_it_is_made(instance):
    """Nobody will choose the very same again: what was chosen may be made by other runs, one by one."""

    @dg.asset
    def one() -> None: ...

    @dg.asset
    def two() -> None: ...

    def left_after(*chosen: dg.AssetsDefinition) -> list[str]:
        dg.materialize(list(chosen), instance=instance)
        known.forget(instance, ["compact_payments"], now())
        return list(known.failing)

    target = "assets:one,two"
    dg.materialize([one], instance=instance)
    known = FailedRuns(now(), {target: Failure("run_failed", "ill", now(), ["one", "two"])})
    assert left_after(two) == [target], "one was made before"
    assert left_after(one) == []


def test_a_run_that_nobody_repeats_is_forgotten(instance):
    failed = {target: Failure("run_failed", "ill", 0) for target in ("job:gone", "assets:one", "job:kept")}
    known = FailedRuns(now(), failed)
    known.forget(instance, ["kept"], DAY)
    assert list(known.failing) == ["job:gone", "assets:one", "job:kept"]
    known.forget(instance, ["kept"], DAY + 1)
    assert list(known.failing) == ["job:kept"]


def test_a_conflict_of_writers_is_told_as_such(settings, instance, hook):
    @dg.op
    def write() -> None:
        try:
            raise CommitFailedError("a concurrent transaction deleted data this operation read")
        except CommitFailedError as error:
            raise RtmlError("events/payments could not be written") from error

    @dg.job
    def conflicting() -> None:
        write()

    assert not conflicting.execute_in_process(QUIET, instance=instance, raise_on_error=False).success
    Sensor(settings, instance, "check_alerts")()
    assert told(hook) == [("fired", "delta_conflict", "job:conflicting")]


@pytest.mark.parametrize("security", ["ssl", "starttls"])
def test_mail_goes_by_dagsters_own_means(settings, instance, tmp_path, monkeypatch, security):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Mailbox(context, at_once=security == "ssl").running() as box:
        mailed = msgspec.structs.replace(
            settings,
            alert_email="ada@example.org",
            smtp_host="localhost",
            smtp_port=box.port,
            smtp_security=security,
            smtp_user="watch@example.org",
            smtp_password="hidden",
        )
        evaluate(instance, CONTRACT, False, description="−3 °C")
        Sensor(mailed, instance, "check_alerts")()
    (mail,) = box.mails
    assert mail["Subject"] == "rtml: CRITICAL check_failed check:events/payments:contract"
    assert "check 'contract' of events/payments: −3 °C" in mail.get_content()
    assert len(box.logins) == 1


def test_a_backfill_that_is_asked_for_is_started_once(settings, instance, redis_url):
    with connect(redis_url) as client:
        land(Lake(settings.lake_root), client, payments, EVENTS.with_columns(ingested_at="event_time"))
    sensor = Sensor(settings, instance, "remedies")
    assert isinstance(sensor(), dg.SkipReason)
    alert = Alert("freshness", "view:spent", "critical", "old", 9.0, 1.0, now(), now())
    with Ledger(ledger_file(settings.home_path)) as ledger:
        assert ask(ledger, "backfill", "spent", alert, now()) is not None
        assert ask(ledger, "backfill", "spent", alert, now()) is None
        (request,) = sensor().run_requests
        assert isinstance(sensor(), dg.SkipReason)
        assert waiting(ledger, "backfill") == []
        assert [str(each).split(" at ")[0] for each in remedies(ledger)] == ["backfill of spent: started 1 runs"]
    assert request.job_name == "compact_payments"
    assert {key.to_user_string() for key in request.asset_selection} == {
        "events/payments",
        "tiles/spent",
        "published/spent",
    }
    assert request.tags["dagster/asset_partition_range_start"] == str(date(2024, 3, 1))
    job = sensor.definitions.resolve_job_def(request.job_name).get_subset(
        asset_selection=set(request.asset_selection), asset_check_selection=set(request.asset_check_keys)
    )
    assert job.execute_in_process(QUIET, instance=instance, tags=request.tags).success
