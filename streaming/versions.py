"""A view's versions: their meta in Redis, which one is served, and the services that read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml.plan import Plan

if TYPE_CHECKING:
    from redis import Redis

    from rtml.define.service import FeatureService

State = Literal["building", "ready"]

_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""


class Version(msgspec.Struct, frozen=True):
    """One version of a view. Instants are in the source's own time."""

    plan: Plan
    version: str
    state: State
    boundary: Instant = BEGINNING
    """B: history before it is publish's, events from it on are the stream's."""
    history_from: Instant = BEGINNING
    """Where published history begins; windows that reach behind it are partial."""
    folded_to: Instant = BEGINNING
    """Late events from before the boundary that were ingested before this instant are in the published tiles."""
    published_to: Instant = BEGINNING
    """Late events that were ingested before this instant have been published."""

    adopted: bool = False
    """Whether a tiles flow has begun to write it; only flows write this field."""

    @property
    def view(self) -> str:
        """The view's name."""
        return self.plan.view

    @property
    def name(self) -> str:
        """The view and the version, as keys carry them."""
        return f"{self.view}@{self.version}"

    def encode(self) -> dict[Any, bytes | str | int]:
        """Return the hash that holds it."""
        return {
            "plan": self.plan.encode(),
            "state": self.state,
            "boundary": self.boundary,
            "history_from": self.history_from,
            "folded_to": self.folded_to,
            "published_to": self.published_to,
        }

    @staticmethod
    def decode(version: str, stored: Mapping[Any, Any]) -> Version:
        """Return the version that a hash holds."""
        plan = Plan.decode(stored[b"plan"])
        instants = {
            name: int(stored[name.encode()]) for name in ("boundary", "history_from", "folded_to", "published_to")
        }
        state: State = "ready" if stored[b"state"] == b"ready" else "building"
        return Version(plan, version, state, **instants, adopted=b"adopted" in stored)


class Service(msgspec.Struct, frozen=True):
    """A feature service as a server needs it: its columns, and the fingerprint that it expects of each view."""

    name: str
    version: int
    columns: tuple[tuple[str, str], ...]
    fingerprints: dict[str, str]
    description: str = ""
    log: float = 0.0
    """Which share of all entities has its served vectors logged."""

    @property
    def names(self) -> list[str]:
        """The columns, as `view__feature`."""
        return [f"{view}__{feature}" for view, feature in self.columns]

    @staticmethod
    def of(service: FeatureService, plans: dict[str, Plan]) -> Service:
        """Return the service of a definition."""
        fingerprints = {view.name: plans[view.name].fingerprint for view in service.views}
        columns = tuple((view.name, feature) for view, feature in service.columns)
        return Service(service.name, service.version, columns, fingerprints, service.description, service.log)


def read_version(client: Redis, view: str, version: str) -> Version | None:
    """Return one version of a view, if it is there."""
    stored = client.hgetall(keys.meta(view, version))
    return Version.decode(version, stored) if stored else None


def live_version(client: Redis, view: str) -> Version | None:
    """Return the version of a view that is served, if any."""
    name: Any = client.get(keys.live(view))
    return read_version(client, view, name.decode()) if name else None


def find_version(client: Redis, plan: Plan) -> Version | None:
    """Return the newest build of a plan's fingerprint, if any."""
    found = None
    build = 1
    while version := read_version(client, plan.view, f"{plan.fingerprint}.{build}"):
        found, build = version, build + 1
    return found


def create_version(client: Redis, version: Version) -> Version:
    """Write a new version, or return the one that somebody else wrote first."""
    fields = [part for pair in version.encode().items() for part in pair]
    client.eval(_CREATE, 1, keys.meta(version.view, version.version), *fields)
    stored = read_version(client, version.view, version.version)
    if stored is None:
        raise NotReadyError(f"version {version.version} of view {version.view!r} vanished while it was created")
    return stored


def save_version(client: Redis, version: Version) -> None:
    """Write a version's meta anew."""
    client.hset(keys.meta(version.view, version.version), mapping=version.encode())


def promote(client: Redis, version: Version) -> None:
    """Serve this version of its view from now on."""
    client.set(keys.live(version.view), version.version)


def write_services(client: Redis, services: Iterable[Service]) -> None:
    """Tell the servers which services there are."""
    for service in services:
        client.hset(keys.SERVICES, service.name, msgspec.json.encode(service))


def read_services(client: Redis) -> dict[str, Service]:
    """Return the services that servers know."""
    stored: dict[Any, Any] = client.hgetall(keys.SERVICES)
    return {name.decode(): msgspec.json.decode(text, type=Service) for name, text in stored.items()}


def remove_services(client: Redis, *, keep: Iterable[str]) -> None:
    """Forget the services that no definition has."""
    gone = set(read_services(client)) - set(keep)
    if gone:
        client.hdel(keys.SERVICES, *gone)
