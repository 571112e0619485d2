"""Which version of each view a tiles flow writes; new ones are made here (design §8)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import Registry
from streaming.positions import has_begun
from streaming.versions import (
    Service,
    Version,
    create_version,
    find_version,
    promote,
    remove_services,
    save_version,
    write_services,
)

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)


class Adoption:
    """The versions that one run of a source's tiles flow writes.

    A new version is given the whole stream, from its beginning: by I1 that changes nothing for the others. Where the
    stream does not hold all (history was landed, or entries were trimmed), a version begins at the boundary that
    publish fixes; until it has, the view is `waiting`, and the others go on.
    """

    def __init__(self, client: Redis, registry: Registry, source: EventSource) -> None:
        """Decide, and write down what this flow writes from now on."""
        self._client = client
        self._registry = registry
        self._source = source
        self._plans = {view.name: registry.plans[view.name] for view in registry.views_of(source.name)}
        self.views: list[tuple[StreamFeatureView, Version]] = []
        self.waiting: list[Plan] = []
        self._adopt()

    def _adopt(self) -> None:
        stored: set[Any] = self._client.smembers(keys.written(self._source.name))
        written = {name.decode() for name in stored}
        fresh = False
        for plan in self._plans.values():
            found = find_version(self._client, plan)
            version = self._begin(plan, found, written)
            if version is None:
                self.waiting.append(plan)
                continue
            fresh |= not version.adopted and version.boundary == BEGINNING
            self.views.append((self._registry.views[plan.view], version))
        self._write_down(fresh)
        if not self._client.exists(keys.rewinding(self._source.name)):
            self.go_live()

    def _begin(self, plan: Plan, found: Version | None, written: set[str]) -> Version | None:
        """Return the version to write: the one that was written all along, a new one, or none before publish."""
        partial = self._client.exists(keys.landed(self._source.name), keys.trimmed(self._source.name))
        if found is None:
            if partial:
                log.warning("view %s has history and no version: it waits until its history is published", plan.view)
                return None
            return create_version(self._client, Version(plan, f"{plan.fingerprint}.1", "building"))
        if found.adopted and found.name not in written:
            # The stream went on without it: what passed in the meantime is missing from it for ever.
            if partial:
                log.error("version %s was not written for a while, and the stream no longer holds that", found.name)
                save_version(self._client, msgspec.structs.replace(found, state="building"))
                return None
            build = int(found.version.rsplit(".", 1)[1]) + 1
            return create_version(self._client, Version(plan, f"{plan.fingerprint}.{build}", "building"))
        return found

    def _write_down(self, fresh: bool) -> None:
        source = self._source
        if fresh and has_begun(self._client, source.name, source.stream.partitions):
            self._client.sadd(keys.rewinding(source.name), *range(source.stream.partitions))
        pipeline = self._client.pipeline(transaction=True)
        pipeline.delete(keys.written(source.name))
        for _, version in self.views:
            pipeline.sadd(keys.written(source.name), version.name)
            pipeline.hset(keys.meta(version.view, version.version), "adopted", 1)
        pipeline.execute()

    def go_live(self) -> None:
        """Serve the versions that are complete: the stream has been read to where it was before."""
        for plan in self._plans.values():
            version = find_version(self._client, plan)
            if version is None:
                continue
            if version.state == "building" and version.boundary == BEGINNING and version.adopted:
                version = msgspec.structs.replace(version, state="ready")
                save_version(self._client, version)
            if version.state == "ready":
                promote(self._client, version)
        self._write_services()

    def _write_services(self) -> None:
        """Tell servers of the services, now that their views are what they expect, and of those that are no more."""
        services = self._registry.services
        ours = [service for service in services.values() if any(view.source is self._source for view in service.views)]
        write_services(self._client, [Service.of(service, self._registry.plans) for service in ours])
        remove_services(self._client, keep=services)

    def has_news(self) -> bool:
        """Whether a view that waits has got its version: then a new process should adopt it."""
        return any(_is_begun(find_version(self._client, plan)) for plan in self.waiting)


def _is_begun(version: Version | None) -> bool:
    return version is not None and not version.adopted
