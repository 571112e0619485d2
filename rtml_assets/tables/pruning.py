"""Old versions leave Redis once nobody reads them, nor may roll back to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rtml.instants import Instant
from rtml.online import keys
from rtml.plan import Plan
from streaming.services import meanings_in_use
from streaming.versions import Version, find_version, live_names, read_version, version_names

if TYPE_CHECKING:
    from redis import Redis

AT_ONCE = 1_000


def prune_versions(client: Redis, plan: Plan, since: Instant) -> list[str]:
    """Remove what is in Redis of a view's versions that are of no use any longer, and return their names.

    Kept are what the definition means now, what services read or have read since an instant (wall clock, µs), what a
    flow writes, and what was made since then and no flow has begun to write. It may die anywhere and be repeated.
    """
    gone = [version for version in _versions(client, plan.view) if not _is_kept(client, plan, version, since)]
    for version in gone:
        _remove_entities(client, version)
        pipeline = client.pipeline(transaction=True)
        if live_names(client, version.view).get(version.plan.fingerprint) == version.version:
            pipeline.hdel(keys.live(version.view), version.plan.fingerprint)
        pipeline.delete(keys.meta(version.view, version.version), keys.late_entities(version.view, version.version))
        pipeline.srem(keys.versions(version.view), version.version)
        pipeline.execute()
    return [version.version for version in gone]


def _versions(client: Redis, view: str) -> Iterator[Version]:
    for name in sorted(version_names(client, view)):
        if (version := read_version(client, view, name)) is not None:
            yield version


def _is_kept(client: Redis, plan: Plan, version: Version, since: Instant) -> bool:
    newest = find_version(client, plan)
    if (newest is not None and newest.version == version.version) or (
        not version.adopted and version.created_at >= since
    ):
        return True
    if client.sismember(keys.written(version.plan.source), version.name):
        return True
    fingerprint = version.plan.fingerprint
    in_use = {plan.fingerprint, *meanings_in_use(client, since).get(plan.view, ())}
    return fingerprint in in_use and live_names(client, plan.view).get(fingerprint) == version.version


def _remove_entities(client: Redis, version: Version) -> None:
    pattern = "rtml:{*}" + keys.versioned(version.view, version.version)
    found: list[Any] = []
    for end in ("", ":r*", ":s"):
        for key in client.scan_iter(match=pattern + end, count=AT_ONCE):
            found.append(key)
            if len(found) == AT_ONCE:
                client.unlink(*found)
                found = []
    if found:
        client.unlink(*found)
