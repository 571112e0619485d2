"""What the watch shows Prometheus: its last look at the platform, and what asset checks came to.

    registry.register(Exporter(lambda: watch.report, client))

`rtml_redis_*`, `rtml_server_*`, `rtml_process_*`, …: the platform. `rtml_stream_*`: each source's flows.
`rtml_view_*`, `rtml_service_*`: what is served. `rtml_sla_*`: every bound, its error budget and how fast that burns.
`rtml_check_*`: asset checks. `rtml_alerts`: open alerts. Times are seconds, sizes bytes, shares ratios from 0 to 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import redis
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from rtml.instants import SECOND
from rtml.online import keys
from rtml_assets.watch.families import Families
from rtml_assets.watch.report import Flow, Objective, Platform, Report, Service, Source, State, View

if TYPE_CHECKING:
    from redis import Redis

COUNTS = {
    "accepted": "Events that fit their contract",
    "late": "Accepted events that came after their source's lateness",
    "duplicates": "Accepted events that came before",
    "refused": "Events that broke their contract, and are quarantined",
    "future": "Those of the refused that were stamped in the future",
    "conflicting": "Events of a known id and instant with other values",
    "fenced": "Events set aside since a restart had them applied already",
    "damaged": "Entities whose raw records were lost",
    "cache_hits": "Entities of micro-batches that were in the tile writer's cache",
    "cache_misses": "Entities of micro-batches that were loaded from Redis",
}
"""What flows count, in words; a replay counts again."""
_log = logging.getLogger(__name__)


class Check(msgspec.Struct):
    """What an asset check came to, as Dagster's sensor wrote it into `rtml:watch:checks`."""

    passed: bool
    severity: str = "critical"
    at: int = 0


class Exporter(Collector):
    """Shows a look whenever Prometheus asks; nothing before the first.

    Args:
        report: returns the last look.
        client: a Redis client of little patience, for the checks; while Redis is away they are left out.
    """

    def __init__(self, report: Callable[[], Report | None], client: Redis) -> None:
        """Take what to show."""
        self._report, self._client = report, client

    def describe(self) -> list[Metric]:
        """Return nothing: what there is depends on the project, and looking for it here would need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all families of figures."""
        report = self._report()
        if report is None:
            return
        yield from families(report)
        yield from checks(self._checks())

    def _checks(self) -> dict[str, Check]:
        try:
            stored: dict[Any, Any] = self._client.hgetall(keys.WATCH_CHECKS)
        except redis.RedisError:
            return {}  # the report says that Redis is away
        found: dict[str, Check] = {}
        for name, body in stored.items():
            try:
                found[name.decode()] = msgspec.json.decode(body, type=Check)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                _log.warning("what Redis holds of check %r cannot be read: %s", name, error)
        return found


def families(report: Report) -> Iterator[Metric]:
    """Return the figures of one look. Pure."""
    out = Families()
    _platform(out, report.platform)
    for name, source in report.sources.items():
        _source(out, name, source, report.at)
    for name, view in report.views.items():
        _view(out, name, view)
    for name, service in report.services.items():
        _service(out, name, service)
    for objective in report.objectives:
        _objective(out, objective)
    for alert in report.alerts:
        labels = {"alert": alert.alert, "target": alert.target, "severity": alert.severity}
        out.gauge("rtml_alerts", "Alerts that are open", 1, **labels)
    out.gauge("rtml_alerts_open", "How many alerts are open", len(report.alerts))
    yield from out


def checks(found: dict[str, Check]) -> Iterator[Metric]:
    """Return the figures of asset checks, by `<asset/key>:<check>`. Pure."""
    out = Families()
    for name, check in found.items():
        asset, _, short = name.rpartition(":")
        labels = {"asset": asset, "check": short, "severity": check.severity}
        out.gauge("rtml_check_passed", "Whether an asset check passed when it last ran", check.passed, **labels)
        at = check.at / SECOND
        out.gauge("rtml_check_timestamp_seconds", "When an asset check last ran", at, asset=asset, check=short)
    yield from out


def _platform(out: Families, platform: Platform) -> None:
    store = platform.redis
    out.gauge("rtml_redis_up", "Whether Redis answers", store.up)
    out.seconds("rtml_redis_latency_seconds", "A round trip to Redis", store.latency_ms)
    out.gauge("rtml_redis_used_bytes", "What Redis holds: all state of features, and streams", store.used_bytes)
    out.gauge("rtml_redis_limit_bytes", "What Redis may hold", store.max_bytes)
    if store.policy is not None:
        evicts = store.policy != "noeviction"
        out.gauge("rtml_redis_evicts", "Whether Redis would give up what is served when it is full", evicts)
    server = platform.server
    out.gauge("rtml_server_up", "Whether the feature server answers", server.up)
    out.gauge("rtml_server_ready", "Whether the feature server can answer for all services", server.ready)
    out.seconds("rtml_server_latency_seconds", "A request of the watch to the feature server", server.latency_ms)
    for whose, offset in (("redis", store.clock_offset_ms), ("server", server.clock_offset_ms)):
        out.seconds("rtml_clock_offset_seconds", "How far a clock is ahead of the watch's", offset, clock=whose)
    out.gauge("rtml_dagster_up", "Whether Dagster's daemon runs", platform.dagster.up)
    out.gauge("rtml_lake_writable", "Whether the lake could be written to", platform.lake.writable)
    for name, disk in platform.disks.items():
        out.gauge("rtml_disk_free_bytes", "What is free on a disk", disk.free_bytes, disk=name)
        out.gauge("rtml_disk_size_bytes", "What a disk holds", disk.total_bytes, disk=name)
    for name, process in platform.processes.items():
        out.gauge("rtml_process_up", "Whether a process runs", process.pid is not None, process=name)
        out.count("rtml_process_restarts", "How often a process was started again", process.restarts, process=name)
        out.count("rtml_process_crashes", "Deaths that nobody asked for", process.crashes, process=name)
        recent = process.recent_crashes
        out.gauge("rtml_process_recent_crashes", "Such deaths in the last minutes", recent, process=name)


def _source(out: Families, name: str, source: Source, at: int) -> None:
    for state in get_args(State):
        words = "The state of a source: 1 for the one that it is in"
        out.gauge("rtml_stream_state", words, source.state == state, source=name, state=state)
    age = None if source.last_event_at is None else (at - source.last_event_at) / SECOND
    out.gauge("rtml_stream_last_event_age_seconds", "How long ago the newest event came", age, source=name)
    words = "A heartbeat, from the stream to an answer of the feature server"
    out.seconds("rtml_stream_server_heartbeat_seconds", words, source.server_heartbeat_ms, source=name)
    for flow, found in source.flows.items():
        _flow(out, found, source=name, flow=flow)


def _flow(out: Families, flow: Flow, /, **labels: str) -> None:
    for part in flow.partitions:
        where = {**labels, "partition": str(part.partition)}
        out.seconds("rtml_stream_lag_seconds", "How long the oldest entry has waited", part.lag_ms, **where)
        out.gauge("rtml_stream_lag_entries", "How many entries wait", part.lag_entries, **where)
        words = "How long the newest heartbeat took from the stream to the flow's end"
        out.seconds("rtml_stream_heartbeat_seconds", words, part.heartbeat_ms, **where)
        words = "How long the oldest heartbeat on its way has not come through"
        out.seconds("rtml_stream_heartbeat_missing_seconds", words, part.missing_ms, **where)
    freshness = {"0.5": flow.freshness_p50_ms, "0.99": flow.freshness_p99_ms}
    words = "From an event entering the stream to its being servable (tiles) or durable (mirror), last minute"
    out.summary("rtml_stream_freshness_seconds", words, freshness, **labels)
    words = "Events a second in the last minute"
    out.gauge("rtml_stream_events_per_second", words, flow.events_per_second, **labels)
    for kind, number in flow.counts.items():
        out.count(f"rtml_stream_{kind}", COUNTS.get(kind, f"Events counted as {kind}"), number, **labels)
    for kind, number in flow.minute.items():
        out.gauge("rtml_stream_recent_events", "Events of the last minute", number, **labels, kind=kind)
    for column, share in flow.nulls.items():
        words = "Which share of the last minute's events had no value"
        out.gauge("rtml_stream_null_ratio", words, share, **labels, column=column)
    if flow.hot is not None:
        words = "Which share of the last minute's events the most frequent entity had"
        out.gauge("rtml_stream_hot_key_ratio", words, flow.hot.share, **labels)
        words = "How many entities of its kind there are, at least: of few, none is hot"
        out.gauge("rtml_stream_hot_key_entities", words, flow.hot.keys, **labels)
    for stage, times in flow.stages.items():
        words = "What a stage took of a micro-batch, last minute"
        out.quantiles("rtml_stream_stage_seconds", words, times, **labels, stage=stage)
    cached = flow.cache.get("cached_entities")
    out.gauge("rtml_stream_cached_entities", "Entities in the tile writer's cache", cached, **labels)


def _view(out: Families, name: str, view: View) -> None:
    out.gauge("rtml_view_ready", "Whether a view is served", view.state == "ready", view=name)
    words = "How long ago its stream was servable to its end, beyond an epoch"
    out.seconds("rtml_view_age_seconds", words, view.age_ms, view=name)
    for feature, share in view.nulls.items():
        words = "Which share of the values served lately was null"
        out.gauge("rtml_view_null_ratio", words, share, view=name, feature=feature)


def _service(out: Families, name: str, service: Service) -> None:
    out.gauge("rtml_service_ready", "Whether a service can be answered", service.ready, service=name)
    out.gauge("rtml_service_probe_up", "Whether the watch's own request was answered", service.probe_ok, service=name)
    out.seconds("rtml_service_probe_seconds", "The watch's own request", service.probe_ms, service=name)
    out.quantiles("rtml_service_latency_seconds", "Answers of the last minute", service.latency, service=name)
    words = "Requests a second since the look before"
    out.gauge("rtml_service_requests_per_second", words, service.requests_per_second, service=name)
    if service.requests:
        words = "Which share of the requests since the look before failed by no fault of the client"
        out.gauge("rtml_service_error_ratio", words, (service.errors or 0) / service.requests, service=name)
    out.seconds("rtml_service_age_seconds", "The age of its oldest view", service.age_ms, service=name)


def _objective(out: Families, objective: Objective) -> None:
    labels = {"target": objective.target, "objective": objective.name}
    out.gauge("rtml_sla_good", "Whether a bound holds at this look", objective.good, **labels)
    if objective.unit == "ms":
        out.seconds("rtml_sla_value_seconds", "What was measured of a bound", objective.value, **labels)
        out.seconds("rtml_sla_bound_seconds", "The bound", objective.bound, **labels)
    else:
        out.gauge("rtml_sla_value_ratio", "What was measured of a bound", objective.value, **labels)
        out.gauge("rtml_sla_bound_ratio", "The bound", objective.bound, **labels)
    words = "The share of its error budget that is left; below 0 when more than all is spent"
    out.gauge("rtml_sla_budget_left_ratio", words, objective.left, **labels)
    for window, rate in objective.burn.items():
        words = "How many times faster than allowed its error budget burns"
        out.gauge("rtml_sla_burn_rate", words, rate, **labels, window=window)
