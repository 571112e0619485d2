"""Which version of each view a tiles flow writes; new ones are made here (design §8)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rtml import instants
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import Registry
from streaming.positions import START, read_positions
from streaming.versions import Service, Version, create_version, find_version, promote, save_version, write_services

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)


class Adopted(NamedTuple):
    """The views of a source with the versions that are written, and what to do when all of the stream was read."""

    views: list[tuple[StreamFeatureView, Version]]
    caught_up: Callable[[], None]


def adopt(
    client: Redis, registry: Registry, source: EventSource, sleep: Callable[[float], None] = time.sleep
) -> Adopted:
    """Return the version of each of a source's views that its definition means, made where there is none.

    A new version is given the whole stream, from its beginning: by I1 that changes nothing for the others. Where the
    stream does not hold it (history was landed, or trimmed), the version begins at the boundary that publish fixes, and
    this waits for it.
    """
    plans = {view.name: registry.plans[view.name] for view in registry.views_of(source.name)}
    versions = {name: find_version(client, plan) for name, plan in plans.items()}
    missing = [plan for name, plan in plans.items() if versions[name] is None]
    if missing:
        versions |= {plan.view: _begin(client, source, plan, sleep) for plan in missing}
        client.sadd(keys.rewinding(source.name), *range(source.stream.partitions))
    services = [
        service for service in registry.services.values() if any(view.source is source for view in service.views)
    ]
    write_services(client, [Service.of(service, registry.plans) for service in services])
    if not _has_come_far(client, source):
        client.delete(keys.rewinding(source.name))
    if not client.exists(keys.rewinding(source.name)):
        go_live(client, plans.values())
    views = [(registry.views[name], version) for name, version in versions.items() if version is not None]
    return Adopted(views, lambda: go_live(client, plans.values()))


def go_live(client: Redis, plans: Iterable[Plan]) -> None:
    """Serve the newest version of each plan that the stream has made complete."""
    for plan in plans:
        version = find_version(client, plan)
        if version is None:
            continue
        if version.state == "building" and version.boundary == BEGINNING:
            version = msgspec.structs.replace(version, state="ready")
            save_version(client, version)
        if version.state == "ready":
            promote(client, version)


def _has_come_far(client: Redis, source: EventSource) -> bool:
    """Whether the tiles flow has read anything of the stream before."""
    positions = read_positions(client, keys.position(source.name), source.stream.partitions)
    return any(position.offset != START for position in positions)


def _begin(client: Redis, source: EventSource, plan: Plan, sleep: Callable[[float], None]) -> Version:
    if not client.exists(keys.landed(source.name), keys.trimmed(source.name)):
        return create_version(client, Version(plan, f"{plan.fingerprint}.1", "building"))
    log.warning("view %s has history and no version: waiting until its history is published", plan.view)
    while (version := find_version(client, plan)) is None:
        sleep(0.5)
    log.warning("view %s: version %s begins at %s", plan.view, version.version, instants.to_text(version.boundary))
    return version
