"""What servers know of feature services: the record that each serves, and those that it served before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from rtml.errors import NotReadyError, UnknownNameError
from rtml.instants import Instant
from rtml.online import keys
from rtml.plan import Plan
from rtml.staleness import OnStale

if TYPE_CHECKING:
    from redis import Redis

    from rtml.define.service import FeatureService

MOST_FORMER = 10
"""How many records of a service are remembered."""

_REPLACE = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
return 1
"""


class Service(msgspec.Struct, frozen=True):
    """A feature service as a server needs it: its columns, and the fingerprint that it expects of each view."""

    name: str
    version: int
    columns: tuple[tuple[str, str], ...]
    fingerprints: dict[str, str]
    description: str = ""
    log: float = 0.0
    """Which share of all entities has its served vectors logged."""
    on_stale: OnStale = "serve"
    defaults: dict[str, Any] = {}
    """By column: what is given instead of a value that is too old; an empty window's value where there is none."""

    @property
    def names(self) -> list[str]:
        """The columns, as `view__feature`."""
        return [f"{view}__{feature}" for view, feature in self.columns]

    @staticmethod
    def of(service: FeatureService, plans: dict[str, Plan]) -> Service:
        """Return the service of a definition."""
        fingerprints = {view.name: plans[view.name].fingerprint for view in service.views}
        columns = tuple((view.name, feature) for view, feature in service.columns)
        return Service(
            service.name,
            service.version,
            columns,
            fingerprints,
            service.description,
            float(service.log),
            service.on_stale,
            service.served_defaults,
        )

    def means_the_same(self, other: Service) -> bool:
        """Whether a model would read the same of what is up to date: words, the log and staleness may differ."""
        return (self.version, self.columns, self.fingerprints) == (other.version, other.columns, other.fingerprints)


class Former(msgspec.Struct, frozen=True):
    """A record that was replaced, and when (wall clock, µs)."""

    service: Service
    replaced_at: Instant


def write_services(client: Redis, services: Iterable[Service]) -> None:
    """Tell the servers which services there are."""
    for service in services:
        client.hset(keys.SERVICES, service.name, msgspec.json.encode(service))


def read_services(client: Redis) -> dict[str, Service]:
    """Return the services that servers know."""
    stored: dict[Any, Any] = client.hgetall(keys.SERVICES)
    return {name.decode(): msgspec.json.decode(text, type=Service) for name, text in stored.items()}


def add_service(client: Redis, service: Service) -> None:
    """Tell the servers of a service, unless there is one of its name."""
    client.hsetnx(keys.SERVICES, service.name, msgspec.json.encode(service))


def reword_service(client: Redis, service: Service, known: Service) -> None:
    """Change what does not matter to a model, such as words, unless the service was changed since it was looked at."""
    former = read_former(client).get(service.name, [])
    if read_services(client).get(service.name) == known:
        replace_service(client, service.name, service, former)


def read_former(client: Redis) -> dict[str, list[Former]]:
    """Return, by service, the records that it served before, the newest first."""
    stored: dict[Any, Any] = client.hgetall(keys.FORMER_SERVICES)
    return {name.decode(): msgspec.json.decode(text, type=list[Former]) for name, text in stored.items()}


def replace_service(client: Redis, name: str, service: Service | None, former: list[Former]) -> None:
    """Serve another record, or none, at once, and remember those of before.

    Raises:
        NotReadyError: somebody else replaced it at the same moment.
    """
    stored: Any = client.hget(keys.SERVICES, name)
    old, new = stored or b"", b"" if service is None else msgspec.json.encode(service)
    remembered = msgspec.json.encode(former[:MOST_FORMER])
    names = (keys.SERVICES, keys.FORMER_SERVICES)
    if not client.eval(_REPLACE, len(names), *names, name, old, new, remembered):
        raise NotReadyError(f"service {name!r} was changed by somebody else at this moment; look, and try again")


def serve_record(client: Redis, service: Service, now: Instant) -> None:
    """Serve a record instead of the one that is served, which can be rolled back to."""
    served = read_services(client).get(service.name)
    former = read_former(client).get(service.name, [])
    replace_service(client, service.name, service, former if served is None else [Former(served, now), *former])


def retire_service(client: Redis, name: str, now: Instant) -> None:
    """Serve a service no longer; what it served can be rolled back to.

    Raises:
        UnknownNameError: there is none of that name.
    """
    services = read_services(client)
    if name not in services:
        raise UnknownNameError.of("service", name, services, "what is served")
    former = read_former(client).get(name, [])
    replace_service(client, name, None, [Former(services[name], now), *former])


def meanings_in_use(client: Redis, since: Instant) -> dict[str, set[str]]:
    """Return, by view, the fingerprints that a service reads, or has read since an instant (wall clock, µs)."""
    replaced = [one for records in read_former(client).values() for one in records if one.replaced_at >= since]
    found: dict[str, set[str]] = {}
    for record in (*read_services(client).values(), *(one.service for one in replaced)):
        for view, fingerprint in record.fingerprints.items():
            found.setdefault(view, set()).add(fingerprint)
    return found
