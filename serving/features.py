"""A request for features: what is asked, by whom, at which instant, and the answer with its statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import redis

from rtml import instants
from rtml.errors import InstantError, RequestError, UnavailableError, near_miss
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml.plan import Plan
from serving.reader import Command, Turns, ViewLookup, last_event
from serving.state import ServingState, Snapshot
from streaming.broker import connect
from streaming.versions import Service, Version

if TYPE_CHECKING:
    from redis import Redis

LeadingEdge = Literal["wall_clock", "watermark"]
LEADING_EDGES = ("wall_clock", "watermark")
Status = Literal["fresh", "stale", "partial", "missing", "damaged"]
_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool}


class FeatureVectors(msgspec.Struct, frozen=True):
    """Served features: one row an entity, in the order asked.

    `status` gives for every view one of `fresh`, `stale`, `partial`, `missing`, `damaged` a row; `watermark` is the
    instant (µs) up to which all of the service's sources are servable, `null` when nothing is; `age_ms` how far that
    lies before `at`.
    """

    features: list[str]
    rows: list[list[float | int | None]]
    status: dict[str, list[Status]]
    at: Instant
    watermark: Instant | None
    age_ms: float


class Lookup:
    """One request, without its I/O: send `commands()`, hand the replies to `absorb`, until it is not `unfinished`."""

    def __init__(
        self,
        snapshot: Snapshot,
        turns: Turns,
        service: Service,
        entities: Sequence[Mapping[str, Any]],
        at: Instant,
        epoch: int,
    ) -> None:
        """Check the request and plan its reads.

        Raises:
            RequestError: an entity lacks a join key, or has one of another type.
            NotReadyError: a view is not servable.
            InstantError: `at` lies before what can still be answered.
        """
        self.service = service
        self.at = at
        self.epoch = epoch
        self.snapshot = snapshot
        versions = snapshot.versions(service)
        self.watermark = snapshot.watermark(versions)
        for version in versions:
            _check_instant(version, snapshot.reach(version), at)
        tags = {version.plan.entity: entity_tags(version.plan, entities) for version in versions}
        self.views = [
            ViewLookup(version, turns.at(version.plan, at), tags[version.plan.entity], at) for version in versions
        ]

    def commands(self) -> list[Command]:
        """The commands of this round trip."""
        return [command for view in self.views for command in view.commands()]

    def absorb(self, replies: Sequence[Any]) -> None:
        """Take the replies to `commands`."""
        remaining = iter(replies)
        for view in self.views:
            view.absorb(remaining)

    @property
    def unfinished(self) -> bool:
        """Whether another round trip is needed."""
        return any(view.unfinished for view in self.views)

    def vectors(self) -> FeatureVectors:
        """Return the answer."""
        answers = {view.plan.view: view.answer().features for view in self.views}
        columns = []
        for view, feature in self.service.columns:
            values, valid = answers[view][feature]
            present = zip(values.tolist(), valid.tolist(), strict=True)
            columns.append([value if there else None for value, there in present])
        return FeatureVectors(
            features=self.service.names,
            rows=[list(row) for row in zip(*columns, strict=True)],
            status={view.plan.view: list(self._statuses(view)) for view in self.views},
            at=self.at,
            watermark=None if self.watermark == BEGINNING else self.watermark,
            age_ms=max(0, self.at - self.watermark) / 1_000 if self.watermark != BEGINNING else 0.0,
        )

    def _statuses(self, view: ViewLookup) -> Iterator[Status]:
        plan, version = view.plan, view.version
        age = self.at - self.snapshot.reach(version)
        stale = age > plan.freshness + self.epoch
        partial = version.history_from > self.at - plan.longest
        for row in view.rows:
            if row.damaged:
                yield "damaged"
            elif not row.fetched.known:
                yield "missing"
            elif partial:
                yield "partial"
            elif stale or (plan.ttl is not None and self.at - last_event(row, plan) > plan.ttl):
                yield "stale"
            else:
                yield "fresh"


def entity_tags(plan: Plan, entities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the entities' key tags.

    Raises:
        RequestError: a join key is missing, or of another type.
    """
    tags = []
    for row, entity in enumerate(entities):
        values = []
        for name, kind in plan.keys:
            value = entity.get(name)
            if type(value) is not _TYPES[kind]:
                raise _bad_key(plan, row, entity, name, kind)
            values.append(value)
        tags.append(keys.entity_tag(plan.entity, values))
    return tags


def _bad_key(plan: Plan, row: int, entity: Mapping[str, Any], name: str, kind: str) -> RequestError:
    words = {"str": "a string", "int": "an integer", "bool": "a boolean"}[kind]
    where = f"entity {row}: key {name!r} of entity {plan.entity!r} (view {plan.view!r})"
    if name not in entity:
        return RequestError(f"{where} is missing.{near_miss(name, [str(key) for key in entity])}")
    return RequestError(f"{where} must be {words}; got {entity[name]!r}")


def _check_instant(version: Version, reach: Instant, at: Instant) -> None:
    if reach == BEGINNING:
        return
    earliest = max(reach - version.plan.lateness, version.boundary)
    if at < earliest:
        raise InstantError(
            f"view {version.view!r} can be asked from {instants.to_text(earliest)} on (its watermark less lateness); "
            f"got {instants.to_text(at)}"
        )


class FeatureClient:
    """Reads features in this process, straight from Redis.

    Args:
        client: a Redis client or URL.
        epoch: how often the stream's position moves, in microseconds; staleness is counted beyond it.
        background: refresh versions and positions every 100 ms by a thread; without it, before every request.
    """

    def __init__(self, client: Redis | str, *, epoch: int = instants.SECOND, background: bool = True) -> None:
        """Connect."""
        self._client: Redis = connect(client, timeout=5) if isinstance(client, str) else client
        self._epoch = epoch
        self._background = background
        self._turns = Turns()
        self.state = ServingState(self._client)
        if background:
            self.state.refresh()
            self.state.start()

    def __enter__(self) -> FeatureClient:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop refreshing."""
        self.state.stop()

    def snapshot(self) -> Snapshot:
        """Return what is served now."""
        return self.state.snapshot if self._background else self.state.refresh()

    def get(
        self,
        service: str,
        entities: Sequence[Mapping[str, Any]],
        *,
        at: object = None,
        leading_edge: LeadingEdge = "wall_clock",
    ) -> FeatureVectors:
        """Return a service's features of entities, each a mapping of join keys.

        Args:
            service: a feature service's name.
            entities: one mapping of join keys a row.
            at: the instant that windows end at; by default the `leading_edge`.
            leading_edge: `wall_clock` (now), or `watermark`: up to where the service's sources are servable.

        Raises:
            UnknownNameError, RequestError, NotReadyError, InstantError, UnavailableError.
        """
        lookup = prepare(self.snapshot(), self._turns, service, entities, at, leading_edge, self._epoch)
        try:
            while lookup.unfinished:
                pipeline = self._client.pipeline(transaction=False)
                for command in lookup.commands():
                    pipeline.execute_command(*command)
                lookup.absorb(pipeline.execute())
        except redis.RedisError as error:
            raise UnavailableError(f"Redis does not answer: {error}") from None
        return lookup.vectors()


def prepare(
    snapshot: Snapshot,
    turns: Turns,
    service: str,
    entities: Sequence[Mapping[str, Any]],
    at: object,
    leading_edge: str,
    epoch: int,
) -> Lookup:
    """Return the lookup of a request.

    Raises:
        UnknownNameError, RequestError, NotReadyError, InstantError: the request cannot be answered, and why.
    """
    found = snapshot.service(service)
    instant = _instant(snapshot, found, at, leading_edge)
    return Lookup(snapshot, turns, found, entities, instant, epoch)


def _instant(snapshot: Snapshot, service: Service, at: object, leading_edge: str) -> Instant:
    if leading_edge not in LEADING_EDGES:
        raise RequestError(f"leading_edge must be 'wall_clock' or 'watermark'; got {leading_edge!r}")
    if at is not None:
        return instants.to_instant(at)
    if leading_edge == "wall_clock":
        return instants.now()
    watermark = snapshot.watermark(snapshot.versions(service))
    if watermark == BEGINNING:
        raise InstantError(f"service {service.name!r} has no watermark yet: no event has come through all of its streams")
    return watermark
