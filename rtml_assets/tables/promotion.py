"""Promotion: which definition of a service is served. It changes at once, only to what is proven, and can go back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtml.errors import NotReadyError, RequestError, near_miss
from rtml.instants import Duration, Instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import Registry
from rtml_assets.tables.touched import unbuilt_days
from streaming.services import Former, Service, read_former, read_services, replace_service, serve_record
from streaming.versions import Version, find_version, live_version

if TYPE_CHECKING:
    from redis import Redis

Prove = Callable[[Service], Iterator[str]]
"""Holds a record's values online against the lake, and says what does not agree."""


@dataclass(frozen=True)
class Promotion:
    """What a service serves now, and what it served before."""

    service: Service
    before: Service | None

    @property
    def changed(self) -> bool:
        """Whether models read anything else by it."""
        return self.before is None or not self.service.means_the_same(self.before)

    @property
    def words(self) -> str:
        """What is served instead of what, in one line for the audit."""
        served = ", ".join(f"{view} {fingerprint}" for view, fingerprint in self.service.fingerprints.items())
        before = "nothing" if self.before is None else f"v{self.before.version}" if self.changed else "the same"
        return f"v{self.service.version} of {served}; was {before}"


def promote(
    lake: Lake, client: Redis, registry: Registry, name: str, now: Instant, prove: Prove = lambda _: iter(())
) -> Promotion:
    """Serve a service as it is defined now, once all that it reads is complete and proven.

    Args:
        lake: where its views' tables are.
        client: where its versions are.
        registry: the definitions.
        name: the service's.
        now: the wall clock, µs; the record that is replaced can be rolled back to for the grace from then on.
        prove: asked last, when nothing else is in the way.

    Raises:
        UnknownNameError: no such service is defined.
        NotReadyError: something is in the way; names all of it, and what to do.
    """
    record = Service.of(registry.service(name), registry.plans)
    served = read_services(client).get(name)
    if served is not None and record.means_the_same(served):
        return Promotion(record, served)
    reasons = list(hindrances(lake, client, registry, record)) or list(prove(record))
    if reasons:
        raise NotReadyError(
            "\n".join([f"service {name!r} cannot be promoted:", *(f"- {reason}" for reason in reasons)])
        )
    serve_record(client, record, now)
    return Promotion(record, served)


def rollback(client: Redis, name: str, now: Instant, grace: Duration) -> Promotion:
    """Serve a service as it was before the last promotion, if that was within the grace.

    Raises:
        RequestError: it never was anything else.
        NotReadyError: what it read then is no longer kept.
    """
    former = read_former(client).get(name, [])
    if not former:
        near = "" if name in read_services(client) else near_miss(name, read_services(client))
        raise RequestError(
            f"service {name!r} was never promoted over anything: there is nothing to roll back to.{near}"
        )
    earlier, served = former[0].service, read_services(client).get(name)
    reasons = [
        f"view {view!r}: {fingerprint} is written no longer: its grace (RTML_VERSION_GRACE) is over, or no flow runs"
        for view, fingerprint in earlier.fingerprints.items()
        if former[0].replaced_at < now - grace or not _is_written(client, live_version(client, view, fingerprint))
    ]
    if reasons:
        raise _refused(name, "rolled back", reasons)
    remembered = [] if served is None else [Former(served, now)]
    replace_service(client, name, earlier, [*remembered, *former[1:]])
    return Promotion(earlier, served)


def hindrances(lake: Lake, client: Redis, registry: Registry, record: Service) -> Iterator[str]:
    """Say what is in the way of serving a record, and what to do about it."""
    for view, fingerprint in record.fingerprints.items():
        plan = registry.plans[view]
        if not _is_ready(live_version(client, view, fingerprint)):
            yield f"view {view!r}: {_unready(client, plan)}"
        if days := unbuilt_days(lake, registry.views[view].source, plan):
            yield f"tiles/{view}: {len(days)} days are not built, {days[0]} to {days[-1]}: `rtml backfill {view}`"


def _is_written(client: Redis, version: Version | None) -> bool:
    """Whether a version is complete, and goes on being so."""
    if version is None or version.state != "ready":
        return False
    source = version.plan.source
    streams = client.exists(keys.figures(source, "tiles"))
    return not streams or bool(client.sismember(keys.written(source), version.name))


def _refused(name: str, what: str, reasons: list[str]) -> NotReadyError:
    return NotReadyError("\n".join([f"service {name!r} cannot be {what}:", *(f"- {reason}" for reason in reasons)]))


def _is_ready(version: Version | None) -> bool:
    return version is not None and version.state == "ready"


def _unready(client: Redis, plan: Plan) -> str:
    found = find_version(client, plan)
    if found is None or found.state == "lost":
        return f"{plan.fingerprint} has no version yet: `rtml deploy`, then `rtml backfill {plan.view}`"
    if found.state == "ready":
        return f"{found.version} is complete, and goes live when the stream has caught up"
    if found.from_stream_alone:
        return f"{found.version} is being filled by the stream, and goes live when that has caught up"
    return f"{found.version} waits for its history: `rtml backfill {plan.view}`"
