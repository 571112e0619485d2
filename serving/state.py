"""What a server knows beside features: live versions, services, positions; refreshed from Redis in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import redis

from rtml.errors import NotReadyError, RtmlError, UnavailableError, UnknownNameError
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml.plan import Plan
from serving.custom import CustomAggregates
from streaming.positions import parse_positions, watermark
from streaming.services import Service, read_services
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

REFRESH_SECONDS = 0.1
KEPT_SECONDS = 2.0
"""So long the last look goes on to count while Redis answers too late: it may be this process that is busy. Its
positions promise less than there is, and never more."""

_log = logging.getLogger("rtml.serving")


class Snapshot(NamedTuple):
    """One consistent look at what is served."""

    services: dict[str, Service]
    live: dict[str, dict[str, Version]]
    """By view and fingerprint: the version that is served of each meaning."""
    watermarks: dict[str, Instant]
    """By source: up to where all is servable."""
    hindered: Mapping[tuple[str, str], str] = MappingProxyType({})
    """By view and fingerprint: why what is live cannot be computed here."""

    def service(self, name: str) -> Service:
        """Return a service, or an error with the nearest name."""
        try:
            return self.services[name]
        except KeyError:
            raise UnknownNameError.of("service", name, self.services) from None

    def versions(self, service: Service) -> list[Version]:
        """Return the live versions that a service reads, in its order.

        Raises:
            NotReadyError: a view serves nothing yet, or another meaning than the service expects.
        """
        reason = next(self._hindrances(service), None)
        if reason is not None:
            raise NotReadyError(reason)
        return [self.live[view][fingerprint] for view, fingerprint in service.fingerprints.items()]

    def version(self, view: str, fingerprint: str) -> Version | None:
        """Return the version that is served of one meaning of a view, if any."""
        return self.live.get(view, {}).get(fingerprint)

    def unready(self) -> list[str]:
        """Return why not every service can be served: one reason a view, none when all is well."""
        if not self.services:
            return ["no service is known: none was ever registered in this Redis"]
        return [reason for service in self.services.values() for reason in self._hindrances(service)]

    def _hindrances(self, service: Service) -> Iterator[str]:
        for view, expected in service.fingerprints.items():
            version = self.version(view, expected)
            if version is None:
                got = ", ".join(other.version for other in self.live.get(view, {}).values()) or "nothing yet"
            elif version.state != "ready":
                got = f"{version.version}, which is {version.state}"
            elif (view, expected) in self.hindered:
                got = f"{version.version}, which this server cannot compute: {self.hindered[view, expected]}"
            else:
                continue
            yield f"service {service.name!r}: view {view!r} must serve {expected}; it serves {got}"

    def watermark(self, versions: Sequence[Version]) -> Instant:
        """Return the least instant up to which the sources of some versions are servable."""
        return min((self.reach(version) for version in versions), default=BEGINNING)

    def reach(self, version: Version) -> Instant:
        """Return up to where a version is servable: its source's watermark, or its boundary where that is later."""
        return max(self.watermarks.get(version.plan.source, BEGINNING), version.boundary)


class ServingState:
    """Keeps a `Snapshot` at most `REFRESH_SECONDS` old, by a thread of its own once started."""

    def __init__(self, client: Redis, features: str = "") -> None:
        """Take a client, and where the definitions are; nothing is read before `refresh` or `start`."""
        self._client = client
        self._custom = CustomAggregates(features)
        self._metas: dict[tuple[str, str], tuple[dict[bytes, bytes], Version]] = {}
        self._latest: Snapshot | UnavailableError = UnavailableError("Redis was not read yet")
        self._seen_at = float("-inf")
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The latest look.

        Raises:
            UnavailableError: Redis could not be read the last time.
        """
        latest = self._latest
        if isinstance(latest, UnavailableError):
            raise UnavailableError(str(latest))
        return latest

    def refresh(self) -> Snapshot:
        """Look now.

        Raises:
            UnavailableError: Redis does not answer, or holds what this version cannot read.
        """
        self._look()
        return self.snapshot

    def _look(self, patience: float = 0.0) -> None:
        """Look now; what was seen less than `patience` seconds ago outlives a Redis that answers too late."""
        try:
            self._latest, self._seen_at = self._read(), monotonic()
        except redis.TimeoutError as error:
            if monotonic() - self._seen_at >= patience:
                self._latest = UnavailableError(f"Redis does not answer: {error}")
        except redis.RedisError as error:
            self._latest = UnavailableError(f"Redis does not answer: {error}")
        except (KeyError, ValueError, RtmlError) as error:
            self._latest = UnavailableError(f"what Redis holds of services and views cannot be read: {error!r}")

    def start(self) -> None:
        """Look again and again, until `stop`; the log says when Redis goes away, and when it is back."""
        self._thread = threading.Thread(target=self._run, name="rtml-serving-state", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        was: str | None = None
        while not self._stopped.wait(REFRESH_SECONDS):
            self._look(KEPT_SECONDS)
            try:
                _ = self.snapshot
            except UnavailableError as error:
                if was is None:
                    _log.warning("%s", error)
                was = str(error)
            else:
                if was is not None:
                    _log.warning("Redis answers again")
                was = None

    def _read(self) -> Snapshot:
        services = read_services(self._client)
        views = sorted({view for service in services.values() for view in service.fingerprints})
        live = self._read_live(views)
        plans = [version.plan for versions in live.values() for version in versions.values()]
        return Snapshot(services, live, self._read_watermarks(plans), self._hindered(plans))

    def _hindered(self, plans: list[Plan]) -> dict[tuple[str, str], str]:
        found = {(plan.view, plan.fingerprint): self._custom.hindrance(plan) for plan in plans}
        return {which: reason for which, reason in found.items() if reason is not None}

    def _read_live(self, views: list[str]) -> dict[str, dict[str, Version]]:
        pipeline = self._client.pipeline(transaction=False)
        for view in views:
            pipeline.hgetall(keys.live(view))
        named = zip(views, pipeline.execute(), strict=True)
        present = [(view, name.decode()) for view, stored in named for name in stored.values()]
        for view, name in present:
            pipeline.hgetall(keys.meta(view, name))
        live: dict[str, dict[str, Version]] = {}
        for (view, name), meta in zip(present, pipeline.execute(), strict=True):
            if meta:
                version = self._decoded(view, name, meta)
                live.setdefault(view, {})[version.plan.fingerprint] = version
        return live

    def _decoded(self, view: str, name: str, meta: dict[bytes, bytes]) -> Version:
        """Decode a meta once, for as long as it stays the same: plans cache what they derive."""
        known = self._metas.get((view, name))
        if known is None or known[0] != meta:
            version = Version.decode(name, meta)
            if known is not None and known[0][b"plan"] == meta[b"plan"]:
                version = msgspec.structs.replace(version, plan=known[1].plan)
            known = self._metas[view, name] = (meta, version)
        return known[1]

    def _read_watermarks(self, plans: list[Plan]) -> dict[str, Instant]:
        partitions = {plan.source: plan.partitions for plan in plans}
        pipeline = self._client.pipeline(transaction=False)
        for source in partitions:
            pipeline.hgetall(keys.position(source))
        read = zip(partitions.items(), pipeline.execute(), strict=True)
        return {source: watermark(parse_positions(stored, count)) for (source, count), stored in read}
