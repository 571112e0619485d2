"""Old versions leave Redis once nobody reads them, nor may roll back to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
    client.sadd(keys.VIEWS, plan.view)
    return _prune(client, plan.view, find_version(client, plan), {plan.fingerprint}, since)


def prune_views(client: Redis, defined: Collection[str], since: Instant) -> list[str]:
    """Remove likewise the versions of views that are defined no longer, and return their names."""
    known: set[Any] = client.smembers(keys.VIEWS)
    removed = []
    for view in sorted({name.decode() for name in known} - set(defined)):
        removed += [f"{view}@{version}" for version in _prune(client, view, None, set(), since)]
        if not client.exists(keys.versions(view)):
            client.delete(keys.live(view))
            client.srem(keys.VIEWS, view)
    return removed


def _prune(client: Redis, view: str, newest: Version | None, meant: set[str], since: Instant) -> list[str]:
    """Remove the versions of a view that are neither its newest one nor in use; `meant` fingerprints are."""
    in_use = meant | meanings_in_use(client, since).get(view, set())
    gone = [
        version
        for version in _versions(client, view)
        if (newest is None or newest.version != version.version) and not _is_kept(client, version, in_use, since)
    ]
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


def _is_kept(client: Redis, version: Version, in_use: Collection[str], since: Instant) -> bool:
    if not version.adopted and version.created_at >= since:
        return True
    if client.sismember(keys.written(version.plan.source), version.name):
        return True
    fingerprint = version.plan.fingerprint
    return fingerprint in in_use and live_names(client, version.view).get(fingerprint) == version.version


def _remove_entities(client: Redis, version: Version) -> None:
    """Remove the keys of all entities: hashes, and whatever is kept beside them under the same name and a colon."""
    suffix = keys.versioned(version.view, version.version).encode()
    found: list[Any] = []
    for key in client.scan_iter(match=b"rtml:{*}" + suffix + b"*", count=AT_ONCE):
        if not key.endswith(suffix) and suffix + b":" not in key:
            continue  # of a build whose number begins like this one's
        found.append(key)
        if len(found) >= AT_ONCE:
            client.unlink(*found)
            found = []
    if found:
        client.unlink(*found)
