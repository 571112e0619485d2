"""Scratch versions: a view's tiles in Redis under a name that is never served, gone when they have been looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rtml import instants
from rtml.instants import HOUR, Duration, Instant
from rtml.online import keys
from rtml.plan import Plan
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

LONGEST_USE: Duration = 2 * HOUR
"""A scratch version that is older belongs to a run that was killed."""
KEYS_AT_ONCE = 2_000


@contextmanager
def scratch_version(client: Redis, plan: Plan, now: Instant | None = None) -> Iterator[Version]:
    """Give a version that nobody serves, and delete all of it afterwards, and what killed runs left behind."""
    now = instants.now() if now is None else now
    listed = keys.scratch(plan.view)
    stored: dict[Any, Any] = client.hgetall(listed)
    for name, begun in stored.items():
        if int(begun) + LONGEST_USE < now:
            _delete(client, plan.view, name.decode())
    version = Version(plan, f"scratch-{uuid4().hex[:12]}", "building")
    client.hset(listed, version.version, now)
    try:
        yield version
    finally:
        _delete(client, plan.view, version.version)


def _delete(client: Redis, view: str, version: str) -> None:
    """Delete all keys of a version: by a scan, since a killed run has left no list of them."""
    found: list[Any] = []
    for key in client.scan_iter(match=f"rtml:{{*}}{keys.versioned(view, version)}*", count=KEYS_AT_ONCE):
        found.append(key)
        if len(found) >= KEYS_AT_ONCE:
            client.unlink(*found)
            found = []
    if found:
        client.unlink(*found)
    client.hdel(keys.scratch(view), version)
