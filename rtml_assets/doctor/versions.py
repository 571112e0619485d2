"""What is defined against what is served, and whether this release can read what Redis holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from rtml.errors import CodecError
from rtml.instants import HOUR, Instant
from rtml.online.codec import CODEC, Header
from rtml.registry import Registry
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from streaming.services import Service, read_services
from streaming.versions import Version, live_version, read_version, version_names

if TYPE_CHECKING:
    from redis import Redis

LONG = HOUR
"""A version that is built for longer may wait for somebody."""
SAMPLE = 500
"""So many keys are looked through for entities, whose codec is read."""


class VersionState(NamedTuple):
    """What Redis holds of versions and services."""

    defined: dict[str, Service]
    served: dict[str, Service]
    versions: list[Version]
    live: dict[tuple[str, str], Version | None]
    """By view and fingerprint that a service reads."""
    unreadable: list[str]
    """Why what cannot be read cannot be."""


def examine(subject: Subject) -> list[Finding]:
    """Look, and judge."""
    return list(judge(look(subject.client, subject.registry), subject.now))


def look(client: Redis, registry: Registry) -> VersionState:
    """Return what Redis holds.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    defined = {name: Service.of(service, registry.plans) for name, service in registry.services.items()}
    unreadable: list[str] = []
    versions: list[Version] = []
    live: dict[tuple[str, str], Version | None] = {}
    try:
        served = read_services(client)
    except (ValueError, KeyError) as error:
        return VersionState(defined, {}, [], {}, [f"the services: {error}"])
    views = {*registry.views, *(view for service in served.values() for view in service.fingerprints)}
    for view in sorted(views):
        for name in version_names(client, view):
            try:
                if (version := read_version(client, view, name)) is not None:
                    versions.append(version)
            except (ValueError, KeyError) as error:
                unreadable.append(f"version {name} of view {view!r}: {error!r}")
    if not unreadable:
        wanted = {pair for service in served.values() for pair in service.fingerprints.items()}
        live = {pair: live_version(client, *pair) for pair in wanted}
    return VersionState(defined, served, versions, live, [*unreadable, *_unreadable_entities(client)])


def _unreadable_entities(client: Redis) -> Iterator[str]:
    """Read the codec of some entities: that of all is the same unless two releases write."""
    names: Any = client.scan(0, match="rtml:{*", count=SAMPLE, _type="HASH")[1]
    for name in names:
        header: Any = client.hget(name, "h")
        try:
            if header is not None:
                Header.decode(header)
        except CodecError as error:
            yield f"{name.decode()}: {error}"
            return


def judge(state: VersionState, now: Instant) -> Iterator[Finding]:
    """Return what is not as it is defined, or cannot be served."""
    for words in state.unreadable:
        yield found("unreadable", words, codec=CODEC)
    for name, service in state.defined.items():
        served = state.served.get(name)
        if served is None:
            yield found("service_not_served", "it is defined, and not served", f"service:{name}")
        elif not service.means_the_same(served):
            views = sorted(view for view, mark in service.fingerprints.items() if served.fingerprints.get(view) != mark)
            words = f"version {served.version} is served, as it was before its definition changed"
            yield found(
                "service_not_served",
                words,
                f"service:{name}",
                defined=service.version,
                served=served.version,
                views=views,
            )
    yield from _live(state)
    yield from _versions(state, now)


def _live(state: VersionState) -> Iterator[Finding]:
    for name, service in state.served.items():
        for view, fingerprint in service.fingerprints.items():
            if (view, fingerprint) not in state.live:
                continue
            version = state.live[view, fingerprint]
            if version is None or version.state != "ready":
                got = "no version of it" if version is None else f"{version.version}, which is {version.state}"
                words = f"service {name!r} reads {fingerprint} of it, and there is {got}"
                yield found("version_not_ready", words, f"view:{view}", service=name, fingerprint=fingerprint)


def _versions(state: VersionState, now: Instant) -> Iterator[Finding]:
    for version in state.versions:
        hours = (now - version.created_at) / HOUR
        if version.state == "lost":
            words = f"version {version.version} has a hole, and is given up"
            yield found("version_lost", words, f"view:{version.view}", version=version.version)
        elif version.state != "ready" and now - version.created_at > LONG:
            words = f"version {version.version} has been {version.state} for {hours:.1f} h"
            yield found("version_lost", words, f"view:{version.view}", version=version.version, hours=round(hours, 1))
