"""Which versions of each view a tiles flow writes: the definitions' own, and former ones that are still read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rtml import instants
from rtml.define.source import EventSource
from rtml.errors import DefinitionError, UnknownNameError
from rtml.instants import BEGINNING, DAY, Duration
from rtml.online import keys
from rtml.plan import Plan
from rtml.projection import Projection, RowWise
from rtml.registry import Registry
from streaming.positions import has_begun
from streaming.rewind import oldest
from streaming.services import Service, add_service, meanings_in_use, read_services, reword_service
from streaming.versions import (
    Version,
    create_version,
    find_version,
    go_live,
    live_names,
    next_version,
    read_version,
    reword_version,
    set_state,
)

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)


class Adoption:
    """The versions that one run of a source's tiles flow writes.

    A new version is given the whole stream, from its beginning: by I1 that changes nothing for the others. Where the
    stream does not hold all (history was landed, or entries were trimmed), a version begins at the boundary that
    publish fixes; until it has, the view is `waiting`, and the others go on. Versions that a service reads, or has
    read within the `grace`, go on as well, whatever the definitions say by now.
    """

    def __init__(
        self, client: Redis, registry: Registry, source: EventSource, grace: Duration = DAY, mended: int = 0
    ) -> None:
        """Decide, and write down what this flow writes from now on; `mended` decisions on events are known to it."""
        self._client = client
        self._registry = registry
        self._source = source
        self._plans = {view.name: registry.plans[view.name] for view in registry.views_of(source.name)}
        self.views: list[tuple[RowWise, Version]] = []
        self.waiting: list[Plan] = []
        self._grace = grace
        self._mended = mended
        self._former: list[Version] = []
        self._is_live = False
        self._adopt()

    def _adopt(self) -> None:
        stored: set[Any] = self._client.smembers(keys.written(self._source.name))
        written = {name.decode() for name in stored}
        for plan in self._plans.values():
            version = self._begin(plan, find_version(self._client, plan), written)
            if version is None:
                self.waiting.append(plan)
            else:
                self.views.append((self._registry.views[plan.view], version))
        if self._source.name in self._registry.sources:
            self._go_on(written)
        else:
            self._go_on_as_before(written)
        self._write_down()
        self.look()

    def _begin(self, plan: Plan, found: Version | None, written: set[str]) -> Version | None:
        """Return the version to write: the one that was written all along, a new one, or none before publish."""
        partial = self._client.exists(keys.landed(self._source.name), keys.trimmed(self._source.name))
        if found is not None and found.adopted and found.name not in written:
            found = self._lose(found)
        if found is None or found.state == "lost":
            if partial:
                log.warning("view %s waits for its history: compaction publishes it", plan.view)
                return None
            projection = Projection.of(self._registry.views[plan.view])
            name, at = next_version(self._client, plan), instants.now()
            made = Version(plan, name, "building", created_at=at, mended=self._mended, projection=projection)
            return create_version(self._client, made)
        if found.state != "replaying" and not found.adopted and not self._is_followed(found):
            log.warning("version %s has to be caught up again: the stream was trimmed meanwhile", found.name)
            found = set_state(self._client, found, "lost" if found.from_stream_alone else "replaying")
        return None if found.state in ("lost", "replaying") else found

    def _is_followed(self, version: Version) -> bool:
        """Whether the stream still holds all that a version needs of it."""
        if version.from_stream_alone:
            return not self._client.exists(keys.trimmed(self._source.name))
        reached = version.caught_up_to if version.caught_up_to != BEGINNING else version.boundary - version.plan.skew
        begins = [oldest(self._client, self._source, part) for part in range(self._source.stream.partitions)]
        return all(begin is None or begin <= reached for begin in begins)

    def _lose(self, version: Version) -> Version:
        """The stream went on without it: what passed in the meantime is missing from it for ever."""
        if version.state != "lost":
            log.warning("version %s was not written for a while; it is built anew", version.name)
        return set_state(self._client, version, "lost")

    def _go_on(self, written: set[str]) -> None:
        """Write on what is still read: former meanings of a view, and builds that a newer one is to replace."""
        chosen = {version.name for _, version in self.views}
        in_use = self._in_use()
        for view in {*in_use, *self._plans}:
            for fingerprint, name in live_names(self._client, view).items():
                ours = view in self._plans and self._plans[view].fingerprint == fingerprint
                version = read_version(self._client, view, name)
                if version is None or version.name in chosen or version.plan.source != self._source.name:
                    continue
                if (ours or fingerprint in in_use.get(view, ())) and (kept := self._kept(version, written)):
                    self.views.append((kept, version))
                    self._former.append(version)

    def _go_on_as_before(self, written: set[str]) -> None:
        """Write what was written, and nothing else: the definitions may not be followed, or cannot be loaded."""
        found = written_views(self._client, self._source, written)
        self.views += [(view, version) for view, version in found if self._is_computable(version)]

    @staticmethod
    def _is_computable(version: Version) -> bool:
        """Whether the functions of its custom aggregates are known, though the definitions may not be loaded."""
        try:
            version.plan.require_functions()
        except (DefinitionError, UnknownNameError) as error:
            log.error("version %s cannot be written: %s", version.name, error)
            return False
        return True

    def _in_use(self) -> dict[str, set[str]]:
        return meanings_in_use(self._client, instants.now() - self._grace)

    def _kept(self, version: Version, written: set[str]) -> RowWise | None:
        """Return the view that a version was made of, unless there is a hole in it."""
        if version.state != "ready" or (version.adopted and version.name not in written):
            self._lose(version)
            return None
        if version.projection is None:
            return None
        try:
            version.plan.require_functions()
            return version.projection.over(version.view, self._source)
        except (DefinitionError, UnknownNameError) as error:
            log.error("version %s cannot be written any longer: %s", version.name, error)
            self._lose(version)
            return None

    def _write_down(self) -> None:
        source = self._source
        # A version that no flow has written yet has been given nothing of what was read so far.
        fresh = any(not version.adopted for _, version in self.views)
        if fresh and has_begun(self._client, source.name, source.stream.partitions):
            self._client.delete(keys.rewind_from(source.name))
            self._client.sadd(keys.rewinding(source.name), *range(source.stream.partitions))
        pipeline = self._client.pipeline(transaction=True)
        pipeline.delete(keys.written(source.name))
        for _, version in self.views:
            pipeline.sadd(keys.written(source.name), version.name)
            pipeline.hset(keys.meta(version.view, version.version), "adopted", 1)
        pipeline.execute()

    def look(self) -> None:
        """Go live, once, when all partitions are where they were before, whichever process reads them."""
        if not self._is_live and not self._client.exists(keys.rewinding(self._source.name)):
            self.go_live()

    def go_live(self) -> None:
        """Serve the versions that are complete: the stream has been read to where it was before."""
        self._is_live = True
        for plan in self._plans.values():
            version = find_version(self._client, plan)
            if version is None or not version.adopted:
                continue
            version = reword_version(self._client, version, plan)
            if version.state == "building" and version.from_stream_alone:
                version = set_state(self._client, version, "ready")
            if version.state == "ready":
                go_live(self._client, version)
        self._write_services()

    def _write_services(self) -> None:
        """Tell servers of services that are new to them; one that is served changes by promotion only."""
        services = self._registry.services
        ours = [service for service in services.values() if any(view.source is self._source for view in service.views)]
        served = read_services(self._client)
        for service in ours:
            record = Service.of(service, self._registry.plans)
            known = served.get(service.name)
            if known is None:
                add_service(self._client, record)
            elif not record.means_the_same(known):
                log.warning("service %s is served as it was before its definition changed: promote it", service.name)
            elif record != known:
                reword_service(self._client, record, known)

    def has_news(self) -> bool:
        """Whether other versions are to be written by now: then a new process should do so."""
        if any(_is_begun(find_version(self._client, plan)) for plan in self._plans.values()):
            return True
        in_use = self._in_use() if self._former else {}
        return not all(self._is_needed(version, in_use) for version in self._former)

    def _is_needed(self, version: Version, in_use: dict[str, set[str]]) -> bool:
        plan = self._plans.get(version.view)
        meant = {plan.fingerprint} if plan else set()
        if version.plan.fingerprint not in in_use.get(version.view, set()) | meant:
            return False
        return live_names(self._client, version.view).get(version.plan.fingerprint) == version.version


def written_views(client: Redis, source: EventSource, names: Iterable[str]) -> list[tuple[RowWise, Version]]:
    """Return versions by their names, each with the view that it was made of, whatever the definitions say by now."""
    found: list[tuple[RowWise, Version]] = []
    for name in sorted(names):
        view, _, number = name.rpartition("@")
        version = read_version(client, view, number)
        if version is not None and version.projection is not None:
            found.append((version.projection.over(view, source), version))
    return found


def _is_begun(version: Version | None) -> bool:
    return version is not None and not version.adopted and version.state in ("building", "ready")
