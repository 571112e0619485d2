"""Redis: whether it answers, keeps what it is given, and tells the right time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rtml.online import keys
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from rtml_assets.watch.conditions import MEMORY_CRITICAL, MEMORY_WARNING, SKEW_MS
from rtml_assets.watch.report import RedisLook, ServerLook

LEAST_VERSION = (6, 2)
_SAVES = {
    "aof_last_write_status": "writing the append-only file",
    "aof_last_bgrewrite_status": "rewriting the append-only file",
    "rdb_last_bgsave_status": "saving a snapshot",
}


class RedisState(NamedTuple):
    """What was seen; `info` is empty when Redis did not answer."""

    redis: RedisLook
    server: ServerLook
    info: Mapping[str, Any]
    accepts_stamps: bool
    replayed: list[str]
    """The sources that run on carried stamps."""


def examine(subject: Subject) -> list[Finding]:
    """Look, and judge."""
    return list(judge(look(subject)))


def look(subject: Subject) -> RedisState:
    """Ask Redis about itself.

    Raises:
        redis.RedisError: it answered before, and does not any more.
    """
    platform = subject.second.platform
    if not platform.redis.up:
        return RedisState(platform.redis, platform.server, {}, subject.settings.accept_stamps, [])
    info: dict[str, Any] = subject.client.info()
    replayed = [name for name in subject.registry.sources if subject.client.exists(keys.replay_time(name))]
    return RedisState(platform.redis, platform.server, info, subject.settings.accept_stamps, replayed)


def judge(state: RedisState) -> Iterator[Finding]:
    """Return what is wrong with it."""
    if not state.redis.up:
        yield found("redis_away", state.redis.words)
        return
    yield from _version(state.info)
    yield from _memory(state.redis)
    yield from _durability(state.info)
    yield from clocks(state.redis, state.server)
    if state.accepts_stamps:
        words = "entries may carry their own ingestion time (RTML_ACCEPT_STAMPS)"
        yield found("stamps_accepted", words, on_replay_time=state.replayed)


def _version(info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        yield found("redis_old", f"Redis is {version}; expected {wanted} or later", version=version)


def _memory(redis: RedisLook) -> Iterator[Finding]:
    if redis.policy not in (None, "noeviction"):
        words = f"maxmemory-policy is {redis.policy!r}; expected 'noeviction'"
        yield found("redis_evicts", words, policy=redis.policy)
    share = redis.memory
    if share is not None and share >= MEMORY_WARNING:
        yield found(
            "redis_full",
            f"Redis uses {share:.0%} of its memory",
            severity="critical" if share >= MEMORY_CRITICAL else "warning",
            used_bytes=redis.used_bytes,
            max_bytes=redis.max_bytes,
        )


def _durability(info: Mapping[str, Any]) -> Iterator[Finding]:
    for name, what in _SAVES.items():
        if info.get(name, "ok") != "ok":
            yield found("redis_cannot_save", f"{what} failed the last time", field=name, status=str(info[name]))
    if not info.get("aof_enabled", 1):
        unsaved = int(info.get("rdb_changes_since_last_save", 0))
        yield found("redis_forgets", "the append-only file is off", changes_since_last_save=unsaved)


def clocks(redis: RedisLook, server: ServerLook) -> Iterator[Finding]:
    """Return the clocks that differ from this machine's by more than the measure's own error and a bound."""
    for name, look_ in (("Redis", redis), ("the feature server", server)):
        if look_.clock_offset_ms is None:
            continue
        offset = max(0.0, abs(look_.clock_offset_ms) - (look_.clock_error_ms or 0.0))
        if offset > SKEW_MS:
            way = "ahead of" if look_.clock_offset_ms > 0 else "behind"
            words = f"the clock of {name} is {offset / 1_000:.1f} s {way} this machine's"
            yield found("clock_skew", words, offset_ms=look_.clock_offset_ms, error_ms=look_.clock_error_ms)
