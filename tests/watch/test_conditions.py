"""What is wrong in a report, case by case; and which objectives of which SLA it meets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import rtml
from rtml.registry import Registry
from rtml_assets.watch.agreements import agreements
from rtml_assets.watch.catalog import CATALOG, entry
from rtml_assets.watch.conditions import Condition, conditions
from rtml_assets.watch.objectives import objectives
from rtml_assets.watch.report import (
    DagsterLook,
    Disk,
    Flow,
    HotKey,
    LakeLook,
    Objective,
    Partition,
    Platform,
    Process,
    Quantiles,
    RedisLook,
    Report,
    ServerLook,
    Service,
    Source,
    View,
    decode,
    encode,
)

REDIS = RedisLook(up=True, used_bytes=100, max_bytes=1_000, policy="noeviction", clock_offset_ms=2, clock_error_ms=1)
WELL = Platform(
    redis=REDIS,
    server=ServerLook(up=True, ready=True, clock_offset_ms=0.0, clock_error_ms=1.0),
    dagster=DagsterLook(up=True),
    lake=LakeLook(writable=True),
    disks={"home": Disk("/h", 500, 1_000)},
    processes={"stream:sales:tiles": Process(1, 3, 2, 0), "serve": Process(2, 0)},
)
TILES = Flow(
    partitions=[Partition(0, lag_ms=100.0, lag_entries=1, heartbeat_ms=4.0, missing_ms=0.0)],
    freshness_p99_ms=40.0,
    minute={"accepted": 10_000, "late": 100, "duplicates": 100, "refused": 10},
    nulls={"amount": 0.05},
)


def changed(struct: Any, **values: Any) -> Any:
    return msgspec.structs.replace(struct, **values)


def platform(**values: Any) -> Report:
    return Report(0, 1.0, changed(WELL, **values))


def source(state: str = "flowing", words: str = "", **tiles: Any) -> Report:
    return Report(0, 1.0, WELL, sources={"sales": Source(state, words, {"tiles": changed(TILES, **tiles)})})  # type: ignore[arg-type]


def objective(name: str, value: float | None, bound: float, unit: str = "ms", good: bool | None = False) -> Report:
    found = Objective("source:sales", name, value, bound, unit, good, 0.99, 1, promised=True)  # type: ignore[arg-type]
    return Report(0, 1.0, WELL, objectives=[found])


WRONG: list[tuple[Report, tuple[str, str, str], str]] = [
    (
        platform(redis=RedisLook(up=False, words="Redis does not answer: gone")),
        ("redis_unavailable", "platform", "critical"),
        "platform: Redis does not answer: gone",
    ),
    (
        platform(redis=changed(REDIS, used_bytes=850)),
        ("redis_memory", "platform", "warning"),
        "platform: Redis uses 85.0% of its memory, bound 80%",
    ),
    (
        platform(redis=changed(REDIS, used_bytes=990)),
        ("redis_memory", "platform", "critical"),
        "platform: Redis uses 99.0% of its memory, bound 80%",
    ),
    (
        platform(redis=changed(REDIS, policy="allkeys-lru")),
        ("redis_memory", "platform", "critical"),
        "platform: Redis has maxmemory-policy 'allkeys-lru', which loses features; expected 'noeviction'",
    ),
    (
        platform(redis=changed(REDIS, clock_offset_ms=-90_000.0)),
        ("clock_skew", "platform", "warning"),
        "platform: the clock of Redis is 90 s behind the watch's, bound 1 s",
    ),
    (
        platform(server=ServerLook(up=False, words="no answer")),
        ("serving_unavailable", "platform", "critical"),
        "platform: no answer",
    ),
    (
        platform(dagster=DagsterLook(up=False, words="silent")),
        ("dagster_down", "platform", "critical"),
        "platform: silent",
    ),
    (
        platform(lake=LakeLook(writable=False, words="read-only")),
        ("lake_unwritable", "platform", "critical"),
        "platform: read-only",
    ),
    (
        platform(disks={"home": Disk("/h", 500, 1_000), "lake": Disk("/l", 20, 1_000)}),
        ("disk_full", "platform", "critical"),
        "platform: the disk of /l has 2.0% free, bound 10%",
    ),
    (
        platform(processes={"stream:sales:tiles": Process(1, 3, 2, 1, -9)}),
        ("stream_restarts", "source:sales", "warning"),
        "source 'sales': process 'stream:sales:tiles' died once lately (exit code -9)",
    ),
    (
        platform(processes={"serve": Process(None, 3, 4, 3, 1)}),
        ("stream_restarts", "platform", "critical"),
        "platform: process 'serve' died 3 times lately (exit code 1)",
    ),
    (
        source("stalled", "flow 'tiles' passes nothing on"),
        ("stream_stalled", "source:sales", "critical"),
        "source 'sales': flow 'tiles' passes nothing on",
    ),
    (
        source(minute={"accepted": 900, "refused": 100, "future": 100}),
        ("clock_skew", "source:sales", "warning"),
        "source 'sales': 10.0% of the last minute's events are stamped in the future, bound 1%",
    ),
    (
        source(hot=HotKey("rtml:{shop|7}", 0.8, 0.004, keys=10)),
        ("hot_key", "source:sales", "warning"),
        "source 'sales': entity rtml:{shop|7} has 80.0% of the last minute's events, bound 50%",
    ),
    (
        objective("lag", 12_400.0, 5_000.0),
        ("stream_lag", "source:sales", "critical"),
        "source 'sales': lag 12.4 s, bound 5 s",
    ),
    (
        objective("nulls:amount", 0.25, 0.1, "share"),
        ("nulls", "source:sales", "warning"),
        "source 'sales': nulls of 'amount' 25 %, bound 10 %",
    ),
]


@pytest.mark.parametrize(("report", "kind", "words"), WRONG, ids=[words for *_, words in WRONG])
def test_what_is_wrong_is_said(report: Report, kind: tuple[str, str, str], words: str) -> None:
    (found,) = conditions(report)
    assert (found.alert, found.target, found.severity) == kind
    assert found.words == words
    assert found.alert in CATALOG


RIGHT = [
    source(),
    source("quiet", minute={}),
    source("replaying"),
    source("unwritten"),
    source(hot=HotKey("rtml:{shop|7}", 0.9, 0.004), minute={"accepted": 30}),  # too few to be hot
    source(hot=HotKey("rtml:{shop|7}", 0.9, 0.004, keys=2)),  # one of two
    platform(server=ServerLook(up=None)),
    platform(redis=changed(REDIS, clock_offset_ms=1_300.0, clock_error_ms=400.0)),  # within what was measured
    objective("late", None, 0.1, "share", good=None),
]


@pytest.mark.parametrize("report", RIGHT)
def test_what_is_right_is_not(report: Report) -> None:
    assert conditions(report) == []


def test_the_worst_of_an_alert_counts() -> None:
    crashes = {"stream:sales:mirror": Process(1, 1, 1, 1, 1), "stream:sales:tiles": Process(1, 5, 5, 5, -9)}
    (found,) = conditions(platform(processes=crashes))
    assert found == Condition(
        "stream_restarts",
        "source:sales",
        "critical",
        "source 'sales': process 'stream:sales:tiles' died 5 times lately (exit code -9)",
        5.0,
        3.0,
    )


def test_every_alert_has_a_runbook_and_an_unknown_one_its_neighbour() -> None:
    assert entry("redis_memory").runbook == "docs/runbooks/redis-memory.md"
    with pytest.raises(rtml.RtmlError, match="Did you mean 'hot_key'"):
        entry("hotkey")


class Sale(rtml.Event):
    at: rtml.Timestamp
    shop: int
    amount: float = rtml.Field(nullable=True)


def registry() -> Registry:
    sla = rtml.SLA(freshness="50ms", lag="1s", late=0.05, duplicates=0.05, nulls={"amount": 0.01}, objective=0.9)
    sales = rtml.EventSource(name="sales", schema=Sale, timestamp="at", stream=rtml.RedisStream("sales"), sla=sla)
    view = rtml.StreamFeatureView(
        name="shops", source=sales, entity=rtml.Entity("shop"), features=[rtml.Count(windows=["1h"])]
    )
    return Registry.of([rtml.FeatureService("model", features=[view], sla=rtml.SLA(p99="20ms", availability=0.999))])


def judged(report: Report) -> dict[str, tuple[float | None, bool | None]]:
    return {f"{o.target} {o.name}": (o.value, o.good) for o in objectives(report, agreements(registry()))}


def test_bounds_are_judged_by_what_was_seen() -> None:
    service = Service(requests=1_000, errors=2, latency=Quantiles(1, 2, 25), age_ms=100.0)
    report = msgspec.structs.replace(
        source(), views={"shops": View("sales", "f.1", "ready", 1, 9_000.0)}, services={"model": service}
    )
    assert judged(report) == {
        "source:sales freshness": (40.0, True),
        "source:sales lag": (100.0, True),
        "source:sales heartbeat": (0.0, True),
        "source:sales late": (0.01, True),
        "source:sales duplicates": (0.01, True),
        "source:sales refused": (10 / 10_010, True),
        "source:sales nulls:amount": (0.05, False),
        "view:shops freshness": (9_000.0, False),
        "service:model freshness": (100.0, True),
        "service:model p99": (25.0, False),
        "service:model availability": (0.998, False),
    }
    found = {o.name: o for o in objectives(report, agreements(registry())) if o.target == "service:model"}
    assert (found["availability"].total, found["availability"].bad, found["availability"].share) == (1_000, 2, 0.999)
    assert (found["p99"].total, found["p99"].bad, found["p99"].promised) == (1, 1, True)
    assert not found["freshness"].promised


def test_what_was_not_seen_is_neither_good_nor_bad() -> None:
    quiet = source("quiet", minute={}, nulls={}, freshness_p99_ms=None)
    verdicts = judged(quiet)
    assert {name for name, (_, good) in verdicts.items() if good is None} >= {
        "source:sales freshness",
        "source:sales late",
        "source:sales nulls:amount",
        "view:shops freshness",
        "service:model availability",
    }
    away = Report(0, 1.0, changed(WELL, redis=RedisLook(up=False, words="gone")))
    assert judged(away)["source:sales heartbeat"] == (None, False)
    assert [found.alert for found in conditions(away)] == ["redis_unavailable"]


def test_a_probe_that_fails_is_a_request_that_failed() -> None:
    lost = Service(probe_ok=False, words="no answer")
    report = Report(0, 1.0, WELL, services={"model": lost})
    assert judged(report)["service:model availability"] == (0.0, False)
    (found,) = conditions(report)
    assert (found.alert, found.target, found.words) == (
        "serving_unavailable",
        "service:model",
        "service 'model': no answer",
    )


def test_a_report_is_read_back_from_its_json() -> None:
    report = source(hot=HotKey("rtml:{shop|7}", 0.8, 0.004))
    assert decode(encode(report)) == report
