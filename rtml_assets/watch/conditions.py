"""What is wrong right now: a report → conditions. Pure; whether and when somebody is told is the ledger's business.

    Condition(alert="stream_lag", target="source:departures", severity="critical",
              words="source 'departures': lag 12.4 s, bound 5 s", value=12_400.0, bound=5_000.0)

`alert` is a name of the catalog; `target` is `"platform"`, `"source:<name>"`, `"view:<name>"`, `"service:<name>"` or
`"check:<asset/key>:<check>"`. At most one condition of a look has the same alert and target. `value` and `bound` are
milliseconds, shares or bytes, as the words say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rtml_assets.watch.catalog import CATALOG, Severity
from rtml_assets.watch.report import Disk, Flow, Objective, Platform, Process, RedisLook, Report, Source

MEMORY_WARNING, MEMORY_CRITICAL = 0.80, 0.95
"""Shares of Redis' memory."""
DISK_WARNING, DISK_CRITICAL = 0.10, 0.03
"""Shares that are free."""
SKEW_MS = 1_000.0
"""How far two clocks may be apart."""
FUTURE_SHARE = 0.01
"""Which share of a minute's events may be refused since they are of the future."""
MOST_CRASHES = 3
"""From so many recent deaths of a process on, something is broken for good."""
HOT_SHARE = 0.5
"""Which share of a minute's events one entity may have."""
HOT_EVENTS = 1_000
"""Of fewer events in a minute no entity is hot."""
LEAST_EVENTS = 20
"""Of fewer events in a minute no share is judged."""

_ALERTS = {
    "freshness": "freshness",
    "lag": "stream_lag",
    "heartbeat": "stream_lag",
    "late": "late",
    "duplicates": "duplicates",
    "refused": "refused",
    "nulls": "nulls",
    "p99": "serving_latency",
    "availability": "serving_unavailable",
}
"""What is raised when an objective is not met; a heartbeat that is missing while positions move is only slow."""


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong."""

    alert: str
    target: str
    severity: Severity
    words: str
    value: float | None = None
    bound: float | None = None


def conditions(report: Report) -> list[Condition]:
    """Return all that is wrong, each alert and target once: the worst of it."""
    found: dict[tuple[str, str], Condition] = {}
    for condition in _all(report):
        known = found.get((condition.alert, condition.target))
        if known is None or (known.severity == "warning" and condition.severity == "critical"):
            found[condition.alert, condition.target] = condition
    return list(found.values())


def _all(report: Report) -> Iterator[Condition]:
    platform = report.platform
    yield from _redis(platform.redis)
    yield from _disks(platform.disks)
    yield from _rest_of(platform)
    yield from _clocks(platform)
    yield from _crashes(platform.processes)
    for name, source in report.sources.items():
        yield from _source(f"source:{name}", source)
    for name, service in report.services.items():
        if service.probe_ok is False:
            yield _of("serving_unavailable", f"service:{name}", service.words)
    for objective in report.objectives:
        if objective.good is False and objective.value is not None:
            yield _broken(objective)


def _of(
    alert: str,
    target: str,
    words: str,
    value: float | None = None,
    bound: float | None = None,
    severity: Severity | None = None,
) -> Condition:
    kind, _, name = target.partition(":")
    subject = f"{kind} {name!r}" if name else kind
    return Condition(alert, target, severity or CATALOG[alert].severity, f"{subject}: {words}", value, bound)


def _redis(redis: RedisLook) -> Iterator[Condition]:
    if not redis.up:
        yield _of("redis_unavailable", "platform", redis.words)
        return
    if redis.policy not in (None, "noeviction"):
        words = f"Redis has maxmemory-policy {redis.policy!r}, which loses features; expected 'noeviction'"
        yield _of("redis_memory", "platform", words)
    elif redis.memory is not None and redis.memory >= MEMORY_WARNING:
        words = f"Redis uses {redis.memory:.1%} of its memory, bound {MEMORY_WARNING:.0%}"
        severity: Severity = "critical" if redis.memory >= MEMORY_CRITICAL else "warning"
        yield _of("redis_memory", "platform", words, redis.memory, MEMORY_WARNING, severity)


def _disks(disks: dict[str, Disk]) -> Iterator[Condition]:
    fullest = min(
        (disk for disk in disks.values() if disk.free is not None), key=lambda disk: disk.free or 0, default=None
    )
    if fullest is not None and (free := fullest.free or 0.0) < DISK_WARNING:
        words = f"the disk of {fullest.path} has {free:.1%} free, bound {DISK_WARNING:.0%}"
        severity: Severity = "critical" if free < DISK_CRITICAL else "warning"
        yield _of("disk_full", "platform", words, free, DISK_WARNING, severity)


def _rest_of(platform: Platform) -> Iterator[Condition]:
    if platform.lake.writable is False:
        yield _of("lake_unwritable", "platform", platform.lake.words)
    if platform.dagster.up is False:
        yield _of("dagster_down", "platform", platform.dagster.words)
    if platform.server.up is False:
        yield _of("serving_unavailable", "platform", platform.server.words)


def _clocks(platform: Platform) -> Iterator[Condition]:
    for name, look in (("Redis", platform.redis), ("the feature server", platform.server)):
        if look.clock_offset_ms is None:
            continue
        offset = max(0.0, abs(look.clock_offset_ms) - (look.clock_error_ms or 0.0))
        if offset > SKEW_MS:
            way = "ahead of" if look.clock_offset_ms > 0 else "behind"
            words = f"the clock of {name} is {_time(offset)} {way} the watch's, bound {_time(SKEW_MS)}"
            yield _of("clock_skew", "platform", words, offset, SKEW_MS)


def _crashes(processes: dict[str, Process]) -> Iterator[Condition]:
    """A flow's deaths are its source's; the others' the platform's."""
    for name, process in processes.items():
        if not process.recent_crashes:
            continue
        severity: Severity = "critical" if process.recent_crashes >= MOST_CRASHES else "warning"
        times = "once" if process.recent_crashes == 1 else f"{process.recent_crashes} times"
        words = f"process {name!r} died {times} lately (exit code {process.exit_code})"
        target = f"source:{name.removeprefix('stream:').partition(':')[0]}" if ":" in name else "platform"
        yield _of("stream_restarts", target, words, float(process.recent_crashes), float(MOST_CRASHES), severity)


def _source(target: str, source: Source) -> Iterator[Condition]:
    tiles = source.flows.get("tiles")
    if source.state == "stalled":
        yield _of("stream_stalled", target, source.words)
    if source.held:
        yield _of("check_failed", target, source.held, severity="critical")
    if tiles is None:
        return
    accepted, refused = tiles.minute.get("accepted", 0), tiles.minute.get("refused", 0)
    future = tiles.minute.get("future", 0)
    if accepted + refused >= LEAST_EVENTS and future > FUTURE_SHARE * (accepted + refused):
        share = future / (accepted + refused)
        words = f"{share:.1%} of the last minute's events are stamped in the future, bound {FUTURE_SHARE:.0%}"
        yield _of("clock_skew", target, words, share, FUTURE_SHARE)
    yield from _hot(target, tiles)


def _hot(target: str, tiles: Flow) -> Iterator[Condition]:
    hot = tiles.hot
    if hot is None or hot.is_of_few or tiles.minute.get("accepted", 0) < HOT_EVENTS:
        return
    if hot.share > HOT_SHARE:
        words = f"entity {hot.entity} has {hot.share:.1%} of the last minute's events, bound {HOT_SHARE:.0%}"
        yield _of("hot_key", target, words, hot.share, HOT_SHARE)


def _broken(objective: Objective) -> Condition:
    name, _, column = objective.name.partition(":")
    alert = _ALERTS[name]
    what = f"{name} of {column!r}" if column else name
    value, bound = shown(objective.value or 0.0, objective.unit), shown(objective.bound, objective.unit)
    words = f"{what} {value}, bound {bound}"
    if objective.words:
        words += f" ({objective.words})"
    return _of(alert, objective.target, words, objective.value, objective.bound)


def shown(value: float, unit: str) -> str:
    """Return an objective's value for people: a time, or a share in percent."""
    return _time(value) if unit == "ms" else f"{100 * value:.4g} %"


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1_000:.4g} s" if milliseconds >= 1_000 else f"{milliseconds:.4g} ms"
