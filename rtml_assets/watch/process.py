"""The watch: looks at the running platform every two seconds, and sees to it that what is wrong is told and mended."""

from __future__ import annotations

import logging
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import redis
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from rtml import logs
from rtml.instants import SECOND, Duration, Instant, parse_duration
from rtml.instants import now as present
from rtml.registry import Registry
from rtml.secrets import mask_logs
from rtml.settings import Settings
from rtml_assets.runtime.supervisor import restart_requests
from rtml_assets.watch import report as reports
from rtml_assets.watch.agreements import agreements
from rtml_assets.watch.budgets import Budgets, burning, with_budgets
from rtml_assets.watch.catalog import entry
from rtml_assets.watch.causes import followed, judged, watched
from rtml_assets.watch.channels import Channel, channels_of
from rtml_assets.watch.conditions import Condition, conditions
from rtml_assets.watch.exporter import Exporter
from rtml_assets.watch.ledger import Alert, Ledger, Notice, ledger_file
from rtml_assets.watch.message import Links
from rtml_assets.watch.observe import Observer
from rtml_assets.watch.outbox import Outbox
from rtml_assets.watch.remedy import Remedies, remedies
from rtml_assets.watch.report import Report
from rtml_assets.watch.scrapes import shown_to_prometheus
from rtml_assets.watch.shown import write_file, write_redis
from streaming.broker import connect

if TYPE_CHECKING:
    from redis import Redis

GRACE_LOOKS = 10
"""For so many looks after its own start the watch tells of nothing: what it looks at may just be starting, too."""
OWN_GRACE: Mapping[str, Duration] = {"dagster_down": 90 * SECOND}
"""What takes longer to start."""
PRUNED_EVERY = 3_600 * SECOND
REDIS_SECONDS = 1.0
Look = Callable[[], Report]
logger = logging.getLogger(__name__)


class Watch:
    """What is done at each look.

    Args:
        settings: where everything is.
        registry: the definitions, with their SLAs.
        look: makes a report; never raises.
        channels: who is told.
        now: the present.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        look: Look,
        channels: Sequence[Channel],
        now: Callable[[], Instant] = present,
    ) -> None:
        """Open the ledger."""
        home = settings.home_path
        self._settings, self._registry, self._look, self._now = settings, registry, look, now
        self._grace, self._looks = GRACE_LOOKS * settings.watch_interval_us, 0
        remind = parse_duration(settings.alert_remind)
        self.ledger = Ledger(ledger_file(home), [channel.name for channel in channels], remind)
        self.links = Links.of(settings)
        self.outbox = Outbox(self.ledger, channels, self.links, now)
        self._budgets = Budgets(self.ledger, settings.watch_interval_us)
        self._remedies = Remedies(self.ledger, agreements(registry), restart_requests(home), settings.mirror_epoch_us)
        self._redis: Redis = connect(settings, timeout=REDIS_SECONDS)
        self._pruned = now() - PRUNED_EVERY
        self._is_crippled = False
        self.report: Report | None = None
        """The last look, with budgets and open alerts."""

    def once(self) -> Report:
        """Look, and do what follows of it."""
        seen, now = self._look(), self._now()
        burns = self._budgets.count(seen.objectives, now)
        found = [*conditions(seen), *burning(burns)]
        self._settle(found, seen, now)
        opened = self.ledger.open()
        self._remedies.take(opened, seen, now)
        alerts = self._shown(opened)
        self.report = msgspec.structs.replace(seen, objectives=with_budgets(seen.objectives, burns), alerts=alerts)
        self._write(self.report)
        if now - self._pruned >= PRUNED_EVERY:
            self._pruned = now
            self.ledger.prune(now, self._budgets.longest)
        return self.report

    def exporter(self) -> Exporter:
        """Return what shows the last look to Prometheus."""
        return Exporter(lambda: self.report, self._redis)

    def run(self, stopped: threading.Event) -> None:
        """Look again and again until told to stop; what is to be told is sent beside."""
        interval = self._settings.watch_interval_us / SECOND
        self.outbox.start()
        try:
            while not stopped.is_set():
                begun = time.monotonic()
                self._once_or_told()
                stopped.wait(max(0.0, begun + interval - time.monotonic()))
        finally:
            self.outbox.stop()
            self.ledger.close()
            self._redis.close()

    def _once_or_told(self) -> None:
        """Look; where the disk takes no ledger any more, tell of that past it, and go on looking."""
        try:
            self.once()
            self._is_crippled = False
        except (sqlite3.OperationalError, OSError) as error:
            logger.exception("a look could not be written down")
            if not self._is_crippled:
                self._is_crippled = True
                now, words = self._now(), f"the watch cannot write to {self._settings.home_path}: {error}"
                alert = Alert("disk_full", "platform", "critical", words, None, None, now, now, now)
                self.outbox.tell_past_the_ledger(Notice("fired", alert, now))

    def _settle(self, found: list[Condition], seen: Report, now: Instant) -> None:
        # Looks are counted, not the clock's time: that may jump.
        self._looks += 1
        age = self._looks * self._settings.watch_interval_us
        kinds = {kind for kind in judged(seen) if age >= OWN_GRACE.get(kind, self._grace)}
        self.ledger.settle(found, now, kinds, untold=followed(found, seen, self._registry), own=watched)

    def _shown(self, opened: list[Alert]) -> list[reports.Alert]:
        """Return open alerts as the report has them, each with the last thing that was done about it."""
        done: dict[str, str] = {}
        for remedy in remedies(self.ledger, min((alert.since for alert in opened), default=self._now())):
            done.setdefault(remedy.target, str(remedy))
        return [
            reports.Alert(
                alert.alert,
                alert.target,
                "critical" if alert.severity == "critical" else "warning",
                alert.words,
                alert.since,
                alert.value,
                alert.bound,
                entry(alert.alert).runbook,
                self.links.to(alert.target),
                done.get(alert.target, ""),
            )
            for alert in opened
        ]

    def _write(self, report: Report) -> None:
        write_file(self._settings.home_path, report)
        if report.platform.redis.up:
            # One that goes away just now is a condition of the next look, and told as such.
            with suppress(redis.RedisError):
                write_redis(self._redis, report)


def metrics_of(watch: Watch) -> CollectorRegistry:
    """Return what Prometheus is shown on `watch_port`."""
    registry = CollectorRegistry()
    at = Gauge("rtml_watch_look_timestamp_seconds", "When the watch last looked.", registry=registry)
    at.set_function(lambda: watch.report.at / SECOND if watch.report else 0.0)
    took = Gauge("rtml_watch_look_seconds", "How long its last look took.", registry=registry)
    took.set_function(lambda: watch.report.took_ms / 1_000 if watch.report else 0.0)
    registry.register(watch.exporter())
    ProcessCollector(registry=registry)
    return registry


def run_watch(settings: Settings, registry: Registry) -> None:
    """Run the watch until SIGTERM or Ctrl-C."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopped.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    mask_logs(settings.secrets)
    logs.configure(settings.log_format, process="watch")
    with Observer(settings, registry) as observer:
        watch = Watch(settings, registry, observer.look, channels_of(settings, write_line))
        with shown_to_prometheus(settings, metrics_of(watch)):
            watch.run(stopped)


def write_line(line: str) -> None:
    """Write a line of the watch's log at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
