"""Redis, and what it holds of streams and views: positions, lag, figures, heartbeats, live versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import redis

from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml_assets.watch.report import Flow, HotKey, Partition, Quantiles, RedisLook
from streaming.positions import Position, arrived_at, parse_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

MOST_COUNTED = 1_000
"""So many waiting entries are counted at most."""
POSITIONS = {"tiles": keys.position, "mirror": keys.mirrored}
COUNTERS = (
    "accepted", "late", "duplicates", "refused", "future", "conflicting", "fenced", "damaged", "cache_hits",
    "cache_misses",
)  # fmt: skip

_WAITING = f"""
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', {MOST_COUNTED})
return {{#found, found[1] and found[1][1] or '', redis.call('EXISTS', KEYS[1])}}
"""


def look_at_redis(client: Redis, now: Callable[[], Instant]) -> RedisLook:
    """Return how Redis is; never raises."""
    try:
        client.ping()  # one that is loading answers the rest, and nobody else
        begun = now()
        seconds, micros = client.time()
        ended = now()
        info: dict[str, Any] = client.info("memory")
    except redis.RedisError as error:
        return RedisLook(up=False, words=f"Redis does not answer: {error}")
    clock = int(seconds) * 1_000_000 + int(micros)
    return RedisLook(
        up=True,
        latency_ms=round((ended - begun) / 1_000, 3),
        used_bytes=info.get("used_memory"),
        max_bytes=info.get("maxmemory") or info.get("total_system_memory"),
        policy=info.get("maxmemory_policy"),
        clock_offset_ms=round((clock - (begun + ended) / 2) / 1_000, 3),
        clock_error_ms=round((ended - begun) / 2_000, 3),
    )


class StreamSeen(NamedTuple):
    """What Redis holds of one source."""

    flows: dict[str, Flow]
    replayed: bool
    rewinding: bool
    written: bool
    """Whether any partition of the stream exists."""
    last_event_at: Instant | None
    watermark: Instant
    held: str = ""


def look_at_source(client: Redis, source: EventSource, clock: Instant) -> StreamSeen:
    """Return how far a source's flows are, and their figures; `clock` is Redis' time.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    pipeline = client.pipeline(transaction=False)
    for flow, position in POSITIONS.items():
        pipeline.hgetall(position(source.name))
        pipeline.hgetall(keys.figures(source.name, flow))
    pipeline.exists(keys.replay_time(source.name))
    pipeline.exists(keys.rewinding(source.name))
    pipeline.hget(keys.contract(source.name), keys.HELD)
    *stored, replayed, rewinding, held = pipeline.execute()
    count = source.stream.partitions
    positions = {flow: parse_positions(found, count) for flow, found in zip(POSITIONS, stored[::2], strict=True)}
    figures = dict(zip(POSITIONS, stored[1::2], strict=True))
    for flow in POSITIONS:
        for partition in range(count):
            pipeline.eval(_WAITING, 1, source.stream.key(partition), positions[flow][partition].offset)
    waiting = pipeline.execute()
    flows: dict[str, Flow] = {}
    for number, flow in enumerate(POSITIONS):
        of_flow = waiting[number * count : (number + 1) * count]
        parts = [
            _partition(partition, positions[flow][partition], found, clock) for partition, found in enumerate(of_flow)
        ]
        flows[flow] = flow_of(figures[flow], parts)
    instants = [figures[flow].get(b"last_event_at") for flow in POSITIONS]
    return StreamSeen(
        flows,
        bool(replayed),
        bool(rewinding),
        any(found[2] for found in waiting),
        max((int(instant) for instant in instants if instant is not None), default=None),
        min(position.ingested_at for position in positions["tiles"]),
        held.decode() if held else "",
    )


def _partition(partition: int, position: Position, found: tuple[int, bytes, int], clock: Instant) -> Partition:
    entries, first, exists = found
    lag = max(0.0, (clock - arrived_at(first)) / 1_000) if entries else 0.0
    ingested = None if position.ingested_at == BEGINNING else position.ingested_at
    if not exists:
        return Partition(partition, position.offset, ingested)
    return Partition(partition, position.offset, ingested, round(lag, 3), entries)


def flow_of(stored: Mapping[bytes, bytes], partitions: list[Partition]) -> Flow:
    """Return a flow by its figures."""
    figures = {name.decode(): text for name, text in stored.items()}

    def number(name: str) -> float | None:
        return float(figures[name]) if name in figures else None

    def whole(name: str) -> int | None:
        return int(figures[name]) if name in figures else None

    minute = msgspec.json.decode(figures.get("minute", b"{}"), type=dict[str, int])
    cache = {name: found for name in ("cached_entities", "cache_hits", "cache_misses") if (found := whole(name))}
    return Flow(
        partitions=partitions,
        updated_at=whole("updated_at"),
        freshness_p50_ms=number("freshness_p50_ms"),
        freshness_p99_ms=number("freshness_p99_ms"),
        events_per_second=number("events_per_second"),
        counts={name: int(figures[name]) for name in COUNTERS if name in figures},
        minute=minute,
        nulls=msgspec.json.decode(figures.get("nulls", b"{}"), type=dict[str, float]),
        hot=msgspec.json.decode(figures.get("hot", b"null"), type=HotKey | None),
        stages=msgspec.json.decode(figures.get("stages", b"{}"), type=dict[str, Quantiles]),
        cache=cache,
    )


class ViewSeen(NamedTuple):
    """Which version of a view is served."""

    version: str | None
    state: str | None


def look_at_views(
    client: Redis, views: Mapping[str, StreamFeatureView], fingerprints: Mapping[str, str]
) -> dict[str, ViewSeen]:
    """Return which version of each view's present meaning is served; of another meaning where there is none.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    pipeline = client.pipeline(transaction=False)
    for name in views:
        pipeline.hgetall(keys.live(name))
    found: dict[str, str] = {}
    for name, stored in zip(views, pipeline.execute(), strict=True):
        live = stored.get(fingerprints[name].encode()) or next(iter(stored.values()), None)
        if live is not None:
            found[name] = live.decode()
    for name, version in found.items():
        pipeline.hget(keys.meta(name, version), "state")
    states = dict(zip(found, pipeline.execute(), strict=True))
    return {
        name: ViewSeen(found[name], states[name].decode() if states[name] else None)
        if name in found
        else ViewSeen(None, None)
        for name in views
    }
