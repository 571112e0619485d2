"""A running project as operators see it: `ops/` in a real Prometheus that scrapes it, its traces and its logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from rtml.instants import SECOND, now
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.project import Project
from rtml_assets.watch.catalog import CATALOG
from streaming.broker import connect
from streaming.producer import Producer
from tests.runtime.processes import until
from tests.serving.collector import Collector, attributes
from tests.watch.shops import payments

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / "ops"
DASHBOARD = json.loads((OPS / "grafana/rtml.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
PATIENCE_SECONDS = 90

pytestmark = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("CI"), reason=f"{' and '.join(MISSING)} not installed (Debian: prometheus)"
)


def promtool(*arguments: str, given: str | None = None) -> None:
    run = subprocess.run(["promtool", *arguments], input=given, cwd=OPS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_rules_and_the_configuration_are_valid_and_alert_when_they_should():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")


@dataclass(frozen=True)
class Running:
    """A project, and a Prometheus that scrapes it."""

    project: Project
    serving: str
    watch: str
    prometheus: httpx.Client
    collector: Collector

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self.prometheus.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return answer.json()["data"]["result"]


def filled_in(expression: str) -> str:
    """A panel's query, as Grafana would send it with all sources, views and services."""
    return re.sub(r"\$(source|view|service)\b", ".*", expression).replace("$__rate_interval", "5s")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("project")
    settings = Settings(
        features="tests.watch.shops",
        home=str(home),
        tile_epoch="200ms",
        mirror_epoch="200ms",
        watch_interval="500ms",
        watch_port=free_port(),
        port=free_port(),
        log_format="json",
        otel_endpoint=collector.url,
    )
    with Project(settings, ["payments"], embedded=True, dagster=False) as project:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PYTHONPATH", str(ROOT))
            patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
            project.start_redis()
            project.start()
        serving, watch = project.server_url, f"http://127.0.0.1:{settings.watch_port}"
        project.wait_ready()
        with connect(project.settings.redis_url) as client:
            until(lambda: client.hexists(keys.figures("payments", "tiles"), "updated_at"), PATIENCE_SECONDS)
            send(client)
            until(lambda: ask(serving).status_code == 200, PATIENCE_SECONDS)
        with Prometheus(home, settings) as client:
            yield Running(project, serving, watch, client, collector)


def send(client: Any) -> None:
    frame = pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(200)],
            "event_time": pl.Series([now()] * 200, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "card": [number % 7 for number in range(200)],
            "amount": [float(number) for number in range(200)],
        }
    )
    Producer(client, payments).send(frame)


def ask(serving: str) -> httpx.Response:
    return httpx.post(f"{serving}/v1/features/fraud", json={"entities": [{"card": 1}]}, timeout=30)


class Prometheus:
    """A Prometheus of the repository's own configuration, but for its ports and its pace."""

    def __init__(self, home: Path, settings: Settings) -> None:
        text = (OPS / "prometheus.yml").read_text().replace("5s", "1s").replace("alerts.yml", str(OPS / "alerts.yml"))
        text = text.replace(":8815", f":{settings.port}").replace(":8816", f":{settings.watch_port}")
        file = home / "prometheus.yml"
        file.write_text(text)
        port = free_port()
        self._log = (home / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={home / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def __enter__(self) -> httpx.Client:
        until(self._is_up, PATIENCE_SECONDS)
        return self._http

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _is_up(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False


def test_what_both_servers_show_is_well_formed(running):
    until(lambda: len(running.query("up == 1")) == 2, PATIENCE_SECONDS)
    for url in (running.serving, running.watch):
        promtool("check", "metrics", given=httpx.get(f"{url}/metrics").text)


def test_both_are_scraped(running):
    until(lambda: len(running.query("up == 1")) == 2, PATIENCE_SECONDS)
    assert {found["metric"]["job"] for found in running.query("up")} == {"rtml-serving", "rtml-watch"}


def test_every_panel_s_query_is_valid_and_what_can_have_data_has(running):
    # Nothing fails, no check has run, Dagster does not, and no column of this project may be null.
    empty = {"Alerts", "Bounds that do not hold", "Checks that fail", "Checks that pass", "Time since a parity check"}
    empty |= {"Dagster", "Nulls by column"}
    queries = {
        (panel["title"], filled_in(target["expr"]))
        for panel in PANELS
        for target in panel["targets"]
        if panel["title"] not in empty
    }
    end = time.monotonic() + PATIENCE_SECONDS
    while missing := {one for one in queries if not running.query(one[1])}:
        assert time.monotonic() < end, f"no data: {sorted(missing)}"
        ask(running.serving)
        with connect(running.project.settings) as client:
            send(client)
        time.sleep(0.5)
    for panel in PANELS:
        for target in panel["targets"]:
            running.query(filled_in(target["expr"]))


def test_panels_have_names_places_and_the_chosen_datasource():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}
    assert len(places) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "source", "view", "service"]


def test_there_is_a_rule_for_every_alert_and_prometheus_can_evaluate_each(running):
    def evaluated() -> list[dict[str, Any]]:
        groups = running.prometheus.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in evaluated()), PATIENCE_SECONDS)
    rules = evaluated()
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert {rule["name"] for rule in rules} == {*CATALOG, "watch_down"}
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        if rule["name"] in CATALOG:
            assert rule["annotations"]["runbook"] == CATALOG[rule["name"]].runbook


def test_a_check_that_fails_alerts_and_one_that_cannot_be_read_does_no_harm(running):
    failed: dict[str, Any] = {"passed": False, "severity": "warning", "at": now(), "words": "too few"}
    with connect(running.project.settings) as client:
        client.hset(keys.WATCH_CHECKS, "events/payments:contract", msgspec.json.encode(failed))
        client.hset(keys.WATCH_CHECKS, "events/payments:volume", b"{")

    def firing() -> list[dict[str, Any]]:
        return running.query('ALERTS{alertname="check_failed", alertstate="firing"}')

    until(firing, PATIENCE_SECONDS)
    (alert,) = firing()
    assert (alert["metric"]["asset"], alert["metric"]["check"]) == ("events/payments", "contract")
    (checked,) = running.query("rtml_check_timestamp_seconds")
    assert float(checked["value"][1]) == pytest.approx(failed["at"] / SECOND, abs=1)


def test_micro_batches_and_commits_are_traced(running):
    named = {"micro-batch": "tiles", "append": "mirror"}

    def found() -> dict[str, Any]:
        return {span.name: span for span in list(running.collector.spans) if span.name in named}

    with connect(running.project.settings) as client:
        send(client)
    until(lambda: found().keys() == named.keys(), PATIENCE_SECONDS)
    for name, span in found().items():
        said = attributes(span)
        assert (said["rtml.source"], said["rtml.flow"]) == ("payments", named[name])
    whole = next(span for span in list(running.collector.spans) if span.name == "micro-batch")
    assert attributes(whole)["rtml.events"] > 0
    until(lambda: len(running.collector.trace(whole.trace_id.hex())) == 5, PATIENCE_SECONDS)
    stages = [span for span in running.collector.trace(whole.trace_id.hex()) if span is not whole]
    assert [span.name for span in stages] == ["read", "gate", "route", "write"]
    assert all(span.parent_span_id == whole.span_id for span in stages)
    assert running.collector.services == {"rtml-serving", "rtml-stream"}


def test_every_line_of_every_process_s_log_is_json(running):
    with connect(running.project.settings) as client:
        Producer(client, payments).send_bytes([b'{"event_id": "broken", "amount": "much"}'])

    def lines(name: str) -> list[dict[str, Any]]:
        read = [json.loads(line) for line in running.project.log(name, 1_000).splitlines()]
        # The flow that starts first registers the contract, and says so.
        return [line for line in read if not line["message"].endswith("is in force")]

    def refusals() -> list[dict[str, Any]]:
        return [line for line in lines("stream:payments:mirror") if "event_id" in line]

    until(refusals, PATIENCE_SECONDS)
    (refused,) = refusals()
    assert (refused["process"], refused["source"], refused["flow"]) == ("stream", "payments", "mirror")
    assert (refused["message"], refused["event_id"]) == ("refused an event: missing_field", "broken")
    assert "much" not in json.dumps(refused)
    assert [line["process"] for line in lines("serve")] == ["serving"]
    assert {line["process"] for line in lines("stream:payments:tiles")} <= {"stream"}
    assert all(line for line in lines("watch"))
