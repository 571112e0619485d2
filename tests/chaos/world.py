"""A project that runs as a user's does, under traffic, and who is told of what goes wrong with it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import msgspec

from rtml.instants import SECOND, Instant, now, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.runtime.behind import behind
from rtml_assets.runtime.dagster_home import create_storage, prepare
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.project import Project, dagster_env
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.store import FeatureStore
from rtml_assets.watch.ledger import Alert, Ledger, ledger_file
from rtml_assets.watch.report import Report
from rtml_assets.watch.shown import read_file
from streaming.broker import connect
from streaming.mended import mended_count
from streaming.versions import live_version
from tests.chaos.definitions import SERVICE, SOURCE
from tests.chaos.traffic import CUSTOMERS, STORES, Traffic
from tests.chaos.truth import Truth
from tests.watch.receivers import Hook

FEATURES = "tests.chaos.definitions"
TILES, MIRROR = f"stream:{SOURCE}:tiles", f"stream:{SOURCE}:mirror"
LAKE_SIZE = "512m"
ENTITIES: list[dict[str, Any]] = [
    {"customer": f"c{number % (CUSTOMERS + 1)}", "store": f"s{number % (STORES + 1)}"}
    for number in range(CUSTOMERS + 1)
]
"""Every entity there is, and one of each kind that there is not."""
FLOWS = {"tiles": keys.position, "mirror": keys.mirrored}


class Answer(NamedTuple):
    """What the feature server said, and how long that took."""

    status: int
    body: dict[str, Any]
    seconds: float

    def column(self, name: str) -> list[Any]:
        """Return a feature's values."""
        place = self.body["features"].index(name)
        return [row[place] for row in self.body["rows"]]


class World:
    """The running platform, what it is sent, and what is true of it.

    Args:
        home: an empty folder.
        dagster: whether Dagster runs, too.
        disk: whether the lake gets a small disk of its own, where that is allowed.
        interval: the time between two looks of the watch.
    """

    def __init__(self, home: Path, *, dagster: bool = True, disk: bool = True, interval: str = "1s") -> None:
        """Choose the ports; nothing is started yet."""
        self.home, self._dagster, self._disk = home, dagster, disk
        self.has_own_disk = False
        self._stack = ExitStack()
        self._settings = Settings(
            features=FEATURES,
            home=str(home),
            port=free_port(),
            dagster_port=free_port(),
            tile_epoch="200ms",
            mirror_epoch="1s",
            log_epoch="1s",
            watch_interval=interval,
        )
        self.registry = load(FEATURES)

    def __enter__(self) -> World:
        """Start everything, and return when the watch has begun to tell."""
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        self.hook = stack.enter_context(Hook().running())
        self.has_own_disk = stack.enter_context(own_disk(self.home / "lake", wanted=self._disk))
        settings = msgspec.structs.replace(self._settings, alert_webhook=self.hook.url())
        self.project = stack.enter_context(Project(settings, [SOURCE], embedded=True, dagster=self._dagster))
        self.project.start_redis()
        self.project.start()
        self.project.wait_ready(timeout=300)
        self.client = stack.enter_context(connect(self.settings, timeout=10))
        self.store = stack.enter_context(FeatureStore(self.settings, self.registry))
        self.lake = Lake(self.settings.lake_root)
        self.truth = Truth(self.client, self.registry)
        self.traffic = Traffic(self.redis.port)
        self.traffic.start()
        stack.callback(self.traffic.stop)
        env = dagster_env(self.settings)
        if not self._dagster:
            create_storage(env)
        self.instance = stack.enter_context(dg.DagsterInstance.from_config(str(prepare(self.home))))
        until(lambda: self.looks() is not None, "the watch looks")
        self._started = time.monotonic()

    @property
    def settings(self) -> Settings:
        """Where everything is."""
        return self.project.settings

    @property
    def redis(self) -> EmbeddedRedis:
        """The embedded Redis."""
        found = self.project._redis
        assert found is not None
        return found

    @property
    def age(self) -> float:
        """For how many seconds the watch has looked."""
        return time.monotonic() - self._started

    def looks(self) -> Report | None:
        """Return what the watch saw last."""
        return read_file(self.home)

    # ---------------------------------------------------------------------------------------------------- processes

    def pid(self, process: str) -> int:
        """Return a process, as soon as it runs."""
        return until(lambda: self.project.status()[process].pid, f"{process} runs")

    def kill(self, process: str) -> None:
        """End a process as a failing machine would."""
        os.kill(self.pid(process), signal.SIGKILL)

    def rtml(self, *arguments: str) -> str:
        """Run the command `rtml`, and return what it said."""
        environment = {**dagster_env(self.settings), "PYTHONPATH": os.getcwd(), "COLUMNS": "200"}
        argv = [sys.executable, "-m", "rtml_assets.cli", *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"rtml {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # ----------------------------------------------------------------------------------------------- asking, waiting

    def ask(self, entities: list[dict[str, Any]], at: Instant | None = None) -> Answer:
        """Ask the feature server."""
        connection = http.client.HTTPConnection(self.settings.host, self.settings.port, timeout=20)
        body = {"entities": entities} | ({} if at is None else {"at": at})
        begun = time.monotonic()
        connection.request("POST", f"/v1/features/{SERVICE}", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return Answer(answer.status, said, time.monotonic() - begun)

    def settle(self, *flows: str, timeout: float = 240) -> Instant:
        """Return when flows (by default both) have passed on all that was sent, and up to which instant that is."""
        seconds, micros = self.client.time()
        present = int(seconds) * SECOND + int(micros)
        for flow in flows or FLOWS:
            lag = partial(behind, self.client, self.registry.source(SOURCE), FLOWS[flow](SOURCE), present)
            _until_none(lag, f"flow {flow!r} comes to {present}", timeout)
        return present

    def agree(self, *flows: str) -> int:
        """Hold every feature of every entity against the oracle, while nothing is sent; return how many values."""
        self.traffic.pause()
        present = self.settle(*flows)
        self.truth.read()
        answer = self.ask(ENTITIES, present)
        assert answer.status == 200, answer.body
        compared = self.truth.compare(ENTITIES, answer.column, present)
        self.traffic.resume()
        return compared

    def lost(self) -> int:
        """Return how many events that the broker has taken are nowhere in the lake, while nothing is sent."""
        self.traffic.pause()
        self.settle()
        self.truth.read()
        lost = len(self.truth.missing(self.traffic.taken)) + self.truth.check_lake(self.lake)
        self.traffic.resume()
        return lost

    # ---------------------------------------------------------------------------------------------------------- lake

    def compact(self, *, quiet: bool = False) -> None:
        """Build what was touched as Dagster's hourly run does, and publish what was late.

        Events go on meanwhile, unless it is to be `quiet`: then none is sent any more.
        """
        self.traffic.pause()
        published = self.settle()
        if not quiet:
            self.traffic.resume()
        materialize_days(self.settings, self.registry, instance=self.instance)
        self.truth.published = published

    def canary(self) -> bool:
        """Make the check that compares what was served with its offline recompute; say whether they agree."""
        job = definitions_of(Deployment(self.settings, self.registry)).resolve_job_def(f"canary_{SERVICE}")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = job.execute_in_process(run_config=quiet, instance=self.instance)
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation.passed

    def rebuilt(self) -> None:
        """Return when versions are served that were made with all decisions, and read the past no more."""
        count = mended_count(self.lake, self.registry.source(SOURCE))

        def live() -> bool:
            versions = [live_version(self.client, p.view, p.fingerprint) for p in self.registry.plans.values()]
            return all(version is not None and version.mended == count for version in versions)

        until(live, "versions with all decisions", 120)

    # -------------------------------------------------------------------------------------------------------- alerts

    def told(self, kind: str, alert: str, target: str, since: Instant = 0) -> list[dict[str, Any]]:
        """Return what the webhook was told of an alert."""
        return [
            said
            for said in list(self.hook.got)
            if (said["kind"], said["alert"], said["target"]) == (kind, alert, target)
            and to_instant(said["since"]) >= since
        ]

    def ledger(self) -> list[Alert]:
        """Return all alerts that ever fired."""
        with Ledger(ledger_file(self.home)) as ledger:
            return [*ledger.open(), *(alert for alert in ledger.recent(0) if alert.fired_at is not None)]

    def open(self) -> set[tuple[str, str]]:
        """Return the alerts that are open, with their targets."""
        return {(alert.alert, alert.target) for alert in self.ledger() if alert.resolved_at is None}


@contextmanager
def own_disk(folder: Path, *, wanted: bool) -> Iterator[bool]:
    """Put a small disk of its own under a folder, where that is wanted and allowed; yield whether it was."""
    folder.mkdir(parents=True)
    mount = shutil.which("mount")
    argv = [mount or "mount", "-t", "tmpfs", "-o", f"size={LAKE_SIZE}", "tmpfs", str(folder)]
    mounted = wanted and bool(mount) and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def until(condition: Callable[[], Any], what: str, timeout: float = 60, words: Callable[[], object] = str) -> Any:
    """Wait for something that other processes do, and return what it came to."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not in {timeout:g} s {words()}"
        time.sleep(0.05)
    return found


def _until_none(lag: Callable[[], str], what: str, timeout: float) -> None:
    until(lambda: not lag(), what, timeout, lag)


def seconds_between(start: Instant, end: Instant | None) -> float:
    """Return seconds between two instants; to now where there is no end."""
    return ((now() if end is None else end) - start) / SECOND
