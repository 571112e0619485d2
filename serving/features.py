"""A request for features: what is asked, of which entities, at which instant; and the answer with its statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from rtml import instants
from rtml.errors import InstantError, NotReadyError, RequestError, near_miss
from rtml.instants import BEGINNING, DAY, Instant
from rtml.online import keys
from rtml.plan import Plan
from rtml.values import to_list
from serving.reader import Command, Turns, ViewLookup, last_event
from serving.state import Snapshot
from streaming.services import Service
from streaming.versions import Version

LeadingEdge = Literal["wall_clock", "watermark"]
LEADING_EDGES = ("wall_clock", "watermark")
Status = Literal["fresh", "stale", "partial", "missing", "damaged"]
Value = float | int | str | list[float] | list[int] | list[str] | None
"""A feature's value; a list where its aggregate gives one."""
Row = tuple[str, ...]
"""One entity of a request: its key's tag for each view of the service."""

LATEST: Instant = instants.to_instant("2100-01-01")
"""No request lies later: beyond it, numbers of the finest tiles would not fit their 32 bits."""
_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool}
_WORDS = {"str": "a string", "int": "an integer", "bool": "a boolean"}


class FeatureVectors(msgspec.Struct, frozen=True):
    """Served features: one row an entity, in the order asked.

    `status` gives for every view one of `fresh`, `stale`, `partial`, `missing`, `damaged` a row; `watermark` is the
    instant (µs) up to which all of the service's sources are servable, and `age_ms` how far that lies before `at`;
    both are `None` while nothing is servable. `last_ingested` is by view and row the newest event that the entity's
    stream had, and `published_to` by view up to when late events were published before the read: the beginning of time
    where there was nothing.
    """

    features: list[str]
    rows: list[list[Value]]
    status: dict[str, list[Status]]
    at: Instant
    watermark: Instant | None
    age_ms: float | None
    last_ingested: dict[str, list[Instant]] = {}
    published_to: dict[str, Instant] = {}

    def part(self, start: int, stop: int) -> FeatureVectors:
        """Return the answer to some of the rows."""
        return self.at_places(range(start, stop))

    def at_places(self, places: Sequence[int]) -> FeatureVectors:
        """Return the answer to the rows at these places."""
        return msgspec.structs.replace(
            self,
            rows=[self.rows[place] for place in places],
            status={view: [found[place] for place in places] for view, found in self.status.items()},
            last_ingested={view: [found[place] for place in places] for view, found in self.last_ingested.items()},
        )

    @staticmethod
    def joined(parts: Sequence[FeatureVectors]) -> FeatureVectors:
        """Return answers to the same question as one, rows in order."""
        rows = [row for part in parts for row in part.rows]
        status = {view: [one for part in parts for one in part.status[view]] for view in parts[0].status}
        ingested = {
            view: [one for part in parts for one in part.last_ingested[view]] for view in parts[0].last_ingested
        }
        return msgspec.structs.replace(parts[0], rows=rows, status=status, last_ingested=ingested)


@dataclass(frozen=True)
class Question:
    """What is asked, at which instant: a service whose views can all answer it."""

    snapshot: Snapshot
    service: Service
    versions: list[Version]
    at: Instant
    epoch: int

    @classmethod
    def of(cls, snapshot: Snapshot, service: str, at: object, leading_edge: str, epoch: int) -> Question:
        """Find the service, its live versions and the instant.

        Raises:
            UnknownNameError, RequestError, NotReadyError, InstantError: it cannot be answered, and why.
        """
        found = snapshot.service(service)
        versions = snapshot.versions(found)
        instant = _instant(snapshot, found, versions, at, leading_edge)
        for version in versions:
            _check_instant(version, snapshot.reach(version), instant)
        return cls(snapshot, found, versions, instant, epoch)

    @property
    def watermark(self) -> Instant:
        """Up to where all of the service's sources are servable."""
        return self.snapshot.watermark(self.versions)

    def rows(self, entities: Sequence[Mapping[str, Any]], first: int = 0) -> list[Row]:
        """Return the entities' key tags; errors count them from `first`.

        Raises:
            RequestError: an entity lacks a join key, or has one of another type.
        """
        plans = {version.plan.entity: version.plan for version in self.versions}
        tags = {entity: entity_tags(plan, entities, first) for entity, plan in plans.items()}
        return list(zip(*(tags[version.plan.entity] for version in self.versions), strict=True))


class Lookup:
    """The reading of some rows, without its I/O: while `unfinished`, send `commands()` and `absorb` the replies."""

    def __init__(self, question: Question, turns: Turns, rows: Sequence[Row]) -> None:
        """Plan the reads."""
        self.question = question
        self.rows = rows
        at = question.at
        self.views = [
            ViewLookup(version, turns.at(version.plan, at, version.based_to), [row[number] for row in rows], at)
            for number, version in enumerate(question.versions)
        ]

    def commands(self) -> list[Command]:
        """The commands of this round trip."""
        return [command for view in self.views for command in view.commands()]

    def absorb(self, replies: Sequence[Any]) -> None:
        """Take the replies to `commands`."""
        remaining = iter(replies)
        for view in self.views:
            view.absorb(remaining)
            view.check_reach()

    @property
    def unfinished(self) -> bool:
        """Whether another round trip is needed."""
        return any(view.unfinished for view in self.views)

    def vectors(self) -> FeatureVectors:
        """Return the answer.

        Raises:
            OverflowedError: an integer sum needs more than 64 bits.
        """
        question, watermark = self.question, self.question.watermark
        return FeatureVectors(
            features=question.service.names,
            rows=self._values() if self.rows else [],
            status={view.plan.view: list(self._statuses(view)) for view in self.views},
            at=question.at,
            watermark=None if watermark == BEGINNING else watermark,
            age_ms=None if watermark == BEGINNING else max(0, question.at - watermark) / 1_000,
            last_ingested={
                view.plan.view: [row.fetched.header.last_ingested for row in view.rows] for view in self.views
            },
            published_to={view.plan.view: view.version.published_to for view in self.views},
        )

    def _values(self) -> list[list[Value]]:
        answers = {view.plan.view: view.answer().features for view in self.views}
        whole = {view.plan.view: [not row.damaged for row in view.rows] for view in self.views}
        columns = []
        for view, feature in self.question.service.columns:
            columns.append(to_list(answers[view][feature], whole[view]))
        return [list(row) for row in zip(*columns, strict=True)]

    def _statuses(self, view: ViewLookup) -> Iterator[Status]:
        plan, version, at = view.plan, view.version, self.question.at
        stale = at - self.question.snapshot.reach(version) > plan.freshness + self.question.epoch
        partial = version.history_from > at - plan.reach
        for row in view.rows:
            if row.damaged:
                yield "damaged"
            elif not row.fetched.known:
                yield "missing"
            elif partial:
                yield "partial"
            elif stale or (plan.ttl is not None and at - last_event(row, plan) > plan.ttl):
                yield "stale"
            else:
                yield "fresh"


def entity_tags(plan: Plan, entities: Sequence[Mapping[str, Any]], first: int = 0) -> list[str]:
    """Return the entities' key tags; errors count them from `first`.

    Raises:
        RequestError: a join key is missing, or of another type.
    """
    tags = []
    for row, entity in enumerate(entities, first):
        values: list[Any] = []
        for name, kind in plan.keys:
            value = entity.get(name)
            if type(value) is not _TYPES[kind]:
                raise _bad_key(plan, row, entity, name, kind)
            values.append(value)
        try:
            tags.append(keys.entity_tag(plan.entity, values))
        except UnicodeEncodeError:
            raise RequestError(f"entity {row}: a key is no text that UTF-8 can hold; got {values!r}") from None
    return tags


def _bad_key(plan: Plan, row: int, entity: Mapping[str, Any], name: str, kind: str) -> RequestError:
    where = f"entity {row}: key {name!r} of entity {plan.entity!r} (view {plan.view!r})"
    if name not in entity:
        return RequestError(f"{where} is missing.{near_miss(name, [str(key) for key in entity])}")
    return RequestError(f"{where} must be {_WORDS[kind]}; got {entity[name]!r}")


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
    question = Question.of(snapshot, service, at, leading_edge, epoch)
    return Lookup(question, turns, question.rows(entities))


def _instant(
    snapshot: Snapshot, service: Service, versions: Sequence[Version], at: object, leading_edge: str
) -> Instant:
    if leading_edge not in LEADING_EDGES:
        raise RequestError(f"leading_edge must be 'wall_clock' or 'watermark'; got {leading_edge!r}")
    if at is not None:
        return instants.to_instant(at)
    if leading_edge == "wall_clock":
        return instants.now()
    watermark = snapshot.watermark(versions)
    if watermark == BEGINNING:
        raise NotReadyError(
            f"service {service.name!r} has no watermark yet: no event has come through all of its streams"
        )
    return watermark


def _check_instant(version: Version, reach: Instant, at: Instant) -> None:
    plan = version.plan
    if not plan.longest + DAY <= at < LATEST:
        raise InstantError(
            f"an instant must lie between {instants.to_text(plan.longest + DAY)}, for the windows of view "
            f"{plan.view!r}, and {instants.to_text(LATEST)}; got {at} µs since 1970"
        )
    if reach == BEGINNING:
        return
    earliest = max(reach - plan.lateness, version.boundary)
    if at < earliest:
        raise InstantError(
            f"view {plan.view!r} can be asked from {instants.to_text(earliest)} on (its watermark less lateness); "
            f"got {instants.to_text(at)}"
        )
