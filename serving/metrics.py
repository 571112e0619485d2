"""What a server tells Prometheus of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from rtml import instants
from rtml.errors import UnavailableError
from rtml.instants import BEGINNING, Instant
from serving.admission import Admission
from serving.budget import STAGES
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors
from serving.state import Snapshot
from serving.tallies import Distributions, Tallies, Tally
from serving.value_tally import ValueTally
from serving.wire import Reply

_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self, snapshot: Callable[[], Snapshot], now: Callable[[], Instant] = instants.now) -> None:
        """Start from zero; `snapshot` tells the watermarks when Prometheus asks."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_Watermarks(snapshot, now))
        self._requests = Tallies("rtml_requests", "Requests answered", ["route", "status"], registry)
        self.in_progress = Tally()
        in_progress = Gauge("rtml_requests_in_progress", "Requests begun and not yet answered", registry=registry)
        in_progress.set_function(lambda: self.in_progress.value)
        self._latency = Distributions("rtml_request_seconds", "From request to answer", ["route"], _BUCKETS, registry)
        stages = Distributions(
            "rtml_stage_seconds",
            "Parts of a feature request; those that are read for together share a round trip and a merge",
            ["stage"],
            _BUCKETS,
            registry,
        )
        self.queue, self.decode, self.redis, self.merge, self.encode = (stages.labels(stage) for stage in STAGES)
        self.overloaded = Counter("rtml_overloaded", "Feature requests refused for overload", registry=registry)
        self._late = Counter(
            "rtml_deadlines", "Feature requests whose time was up, by the stage it was in", ["stage"], registry=registry
        )
        self._rows = Tallies("rtml_rows", "Entities served", ["service"], registry)
        self._statuses = Tallies("rtml_row_statuses", "Rows by status", ["view", "status"], registry)
        replaced = "Entities whose features were"
        self._refused = Counter(
            "rtml_rows_refused", f"{replaced} refused, as they were too old", ["service"], registry=registry
        )
        self._defaulted = Counter(
            "rtml_rows_defaulted", f"{replaced} given as defaults, as they were too old", ["service"], registry=registry
        )
        self.pushed = Counter(
            "rtml_pushed_events", "Pushed events by what came of them", ["source", "outcome"], registry=registry
        )
        self.redis_failures = Counter("rtml_redis_failures", "Round trips that Redis did not answer", registry=registry)
        self.text_lookups = Counter(
            "rtml_text_lookups",
            "Entities whose strings took a second round trip, as their texts were not remembered",
            registry=registry,
        )
        self._service_requests = Tallies(
            "rtml_service_requests", "Requests for a service's features", ["service", "status"], registry
        )
        self._service_latency = Distributions(
            "rtml_service_seconds", "From request to features", ["service"], _BUCKETS, registry
        )
        self._snapshot, self._services = snapshot, set[str]()
        self.values = ValueTally(registry)

    def watch(self, log: FeatureLog) -> None:
        """Show what a log has written and given up."""
        self._registry.register(_Logged(log))

    def admit(self, admission: Admission) -> None:
        """Show how many feature requests there are, and how many there may be."""
        in_flight = Gauge("rtml_feature_requests_in_flight", "Feature requests in the works", registry=self._registry)
        in_flight.set_function(lambda: admission.in_flight)
        limit = Gauge("rtml_feature_requests_limit", "As many are taken on at once", registry=self._registry)
        limit.set_function(lambda: admission.limit)

    def late(self, stage: str) -> None:
        """Count a request whose time was up in a stage."""
        self._late.labels(stage).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def answered_by(self, service: str, status: int, seconds: float | None = None) -> None:
        """Count a service's answer; a name that no service ever had counts for none.

        Without seconds it counts for no latency: what is refused at once would make the rest look quick.
        """
        if service not in self._services and not self._is_known(service):
            return
        self._service_requests.labels(service, str(status)).inc()
        if seconds is not None:
            self._service_latency.labels(service).observe(seconds)

    def _is_known(self, service: str) -> bool:
        try:
            self._services.update(self._snapshot().services)
        except UnavailableError:
            return False
        return service in self._services

    def served(self, service: str, vectors: FeatureVectors) -> None:
        """Count the rows of an answer and their statuses."""
        self._rows.labels(service).inc(len(vectors.rows))
        for view, statuses in vectors.status.items():
            for status in set(statuses):
                self._statuses.labels(view, status).inc(statuses.count(status))
        if replaced := vectors.replaced_rows:
            (self._refused if vectors.on_stale == "refuse" else self._defaulted).labels(service).inc(replaced)
        self.values.take(vectors)

    def refused(self, service: str, rows: int) -> None:
        """Count the rows of requests that were refused, as a view was too old."""
        self._refused.labels(service).inc(rows)

    def reply(self) -> Reply:
        """Return all figures in Prometheus' text format."""
        return Reply(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)


class _Watermarks(Collector):
    """How old each source's watermark is at the moment of asking; nothing for a source without one."""

    def __init__(self, snapshot: Callable[[], Snapshot], now: Callable[[], Instant]) -> None:
        self._snapshot = snapshot
        self._now = now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        try:
            watermarks = self._snapshot().watermarks
        except UnavailableError:
            watermarks = {}
        now = self._now()
        for source, watermark in watermarks.items():
            if watermark != BEGINNING:
                family.add_metric([source], (now - watermark) / 1e6)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "rtml_watermark_age_seconds", "How far a source's watermark lies behind the clock", labels=["source"]
        )


class _Logged(Collector):
    """How many served rows were logged, and how many were given up."""

    def __init__(self, log: FeatureLog) -> None:
        self._log = log

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("rtml_log_rows", "Served rows appended to the lake", value=self._log.logged)
        dropped = "Served rows given up, since the lake could not be written"
        yield CounterMetricFamily("rtml_log_dropped_rows", dropped, value=self._log.dropped)
