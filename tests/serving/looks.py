"""Looks of the watch at the shop of `definitions.py`, as the watch writes them."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import redis

from rtml.instants import DAY, MINUTE, SECOND, Instant
from rtml.online import keys
from rtml_assets.watch.report import (
    Alert,
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
)
from rtml_assets.watch.shown import write_redis

GIB = 2**30


def report_of(at: Instant, *, p99: float = 4.2, lag: float = 640.0, rate: float = 118.0) -> Report:
    """Return a look at a platform that is well, but for a p99 beyond 50 ms or a lag beyond 5 s."""
    objectives = [
        bound("source:purchases", "lag", lag, 5_000.0, left=0.93),
        bound("source:purchases", "refused", 0.0004, 0.05, unit="share"),
        bound("view:user_purchases", "freshness", 220.0, 1_000.0, left=0.99),
        bound("service:spending", "p99", p99, 50.0, left=0.41 if p99 <= 50 else -0.2),
        msgspec.structs.replace(
            bound("service:spending", "availability", 0.9997, 0.99, unit="share", left=0.88), good=True, bad=0
        ),
    ]
    return Report(
        at,
        12.5,
        platform(at),
        {"purchases": purchases(at, lag, rate), "visits": Source("quiet", "", {"tiles": Flow([Partition(0)])})},
        {
            "user_purchases": View("purchases", "ab12cd34.1", "ready", at, 220.0, {"amount_mean_24h": 0.02}),
            "shop_visits": View("visits", "ef56ab78.2", "ready", at, 310.0),
        },
        {
            "spending": Service(3, True, 420, 0, 210.0, Quantiles(1.1, 2.6, p99), 220.0, 3.3, True),
            "shopping": Service(1, True, 1, 0, 0.5, None, 310.0, 2.9, True),
        },
        objectives,
        [alert(at, p99)] if p99 > 50 else [],
    )


def bound(
    target: str, name: str, value: float, most: float, *, unit: Any = "ms", left: float | None = None
) -> Objective:
    good = value <= most
    promised = left is not None
    return Objective(
        target, name, value, most, unit, good, 0.99, 30 * DAY, promised, 1, int(not good), "", left, {"1h": 0.4}
    )


def alert(at: Instant, p99: float) -> Alert:
    words = f"service 'spending': p99 {p99:.4g} ms, bound 50 ms"
    return Alert(
        "serving_latency",
        "service:spending",
        "warning",
        words,
        at - 4 * MINUTE,
        p99,
        50.0,
        "docs/runbooks/serving-latency.md",
        "http://127.0.0.1:3000/assets/serving/spending",
    )


def platform(at: Instant) -> Platform:
    return Platform(
        RedisLook(True, "", 0.31, 3 * GIB // 10, 2 * GIB, "noeviction", 0.2, 0.1),
        ServerLook(True, True, "", 1.9, 0.1, 0.9),
        DagsterLook(True),
        LakeLook(True, "", at),
        {"home": Disk("/srv/rtml", 41 * GIB, 100 * GIB)},
        {name: Process(4_000 + number, 0) for number, name in enumerate(["serve", "stream:purchases:tiles", "watch"])},
    )


def purchases(at: Instant, lag: float, rate: float) -> Source:
    parts = [Partition(number, f"{at // 1000}-{number}", at, lag / (number + 1), 77, 41.0, 0.0) for number in range(2)]
    minute = {"accepted": round(60 * rate), "late": 12, "duplicates": 3, "refused": 2}
    counts = {"accepted": 1_204_331, "late": 4_410, "duplicates": 977, "refused": 120}
    tiles = Flow(
        parts,
        at,
        at,
        18.0,
        240.0,
        rate,
        counts,
        minute,
        {"amount": 0.03},
        HotKey("rtml:{user|o%27hara}", 0.21, 0.01),
        {"gate": Quantiles(0.2, 0.3, 0.6), "write": Quantiles(1.2, 2.2, 4.0)},
    )
    return Source("flowing", "", {"tiles": tiles, "mirror": Flow(parts[:1], at, at)}, False, at, 130.0, 43.0)


def write_hour(client: redis.Redis, now: Instant) -> Report:
    """Write an hour of looks, two minutes of it over the bound of a p99, and what checks came to."""
    client.delete(keys.WATCH, keys.WATCH_HISTORY, keys.WATCH_CHECKS)
    for second in range(3_600, -1, -10):
        wave = 1 + 0.4 * math.sin(second / 240) + 0.2 * math.sin(second / 17)
        slow = 1_200 < second < 1_320
        write_redis(
            client,
            report_of(now - second * SECOND, p99=88.0 if slow else 4.2 * wave, lag=640 * wave, rate=118 * wave),
        )
    for name, passed, words in (
        ("events/purchases:contract", True, "all rows fit"),
        ("tiles/user_purchases:tiles_versus_events", True, "day 2013-03-01: 4,100 values agree"),
        ("served/spending:canary", True, "200 vectors agree"),
        ("features/user_purchases:quality", False, "amount_mean_24h: 4 % are null, at most 1 %"),
    ):
        body = {
            "passed": passed,
            "severity": "critical" if passed else "warning",
            "at": now - 7 * MINUTE,
            "words": words,
        }
        client.hset(keys.WATCH_CHECKS, name, json.dumps(body | ({} if passed else {"url": "/quality/features/1.html"})))
    last = report_of(now)
    write_redis(client, last)
    return last
