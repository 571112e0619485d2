"""A request for features: what is asked, of which entities, at which instant; and the answer with its statuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rtml import instants
from rtml.algebra.family import Output
from rtml.edges import Edges, edges_of
from rtml.errors import InstantError, NotReadyError, RequestError, StaleError
from rtml.instants import BEGINNING, DAY, Duration, Instant
from rtml.online.commands import AnyCommand
from rtml.plan import Plan, PlannedFeature
from rtml.staleness import REPLACED, OnStale, Status, is_stale
from serving.entities import Rows, entity_tags
from serving.merging import ViewMerge, spread
from serving.reader import Turns, ViewLookup
from serving.state import Snapshot
from serving.texts import Strings
from streaming.services import Service
from streaming.versions import Version

if TYPE_CHECKING:
    import polars as pl

LeadingEdge = Literal["wall_clock", "watermark"]
LEADING_EDGES = ("wall_clock", "watermark")
Value = float | int | str | list[float] | list[int] | list[str] | None
"""A feature's value; a list where its aggregate gives one."""
Row = tuple[str, ...]
"""One entity of a request: its key's tag for each view of the service."""

LATEST: Instant = instants.to_instant("2100-01-01")
"""No request lies later: beyond it, numbers of the finest tiles would not fit their 32 bits."""


class FeatureVectors(msgspec.Struct, frozen=True):
    """Served features: one row an entity, in the order asked.

    `status` gives for every view one of `rtml.staleness.Status` a row, and `on_stale` what the service does about old
    values; `watermark` is the instant (µs) up to which all of the service's sources are servable, and `age_ms` how far
    that lies before `at`; both are `None` while nothing is servable. `last_ingested` is by view and row the newest
    event that the entity's stream had, and `published_to` by view up to when late events were published before the
    read: the beginning of time where there was nothing. `outputs` are the features' types, `edges` what each covers.
    """

    features: list[str]
    rows: list[list[Value]]
    status: dict[str, list[Status]]
    at: Instant
    watermark: Instant | None
    age_ms: float | None
    last_ingested: dict[str, list[Instant]] = {}
    published_to: dict[str, Instant] = {}
    on_stale: OnStale = "serve"
    outputs: list[Output] = []
    planned: list[tuple[PlannedFeature, Duration]] = []
    """The features' plans, each with the finest tile of its view."""

    @property
    def edges(self) -> dict[str, Edges]:
        """By feature its window `[start, end)` in this answer, whether that is exact, and by how much it is off."""
        told = [edges_of(feature, finest, self.at) for feature, finest in self.planned]
        return dict(zip(self.features, told, strict=True))

    def part(self, start: int, stop: int) -> FeatureVectors:
        """Return the answer to some of the rows."""
        return msgspec.structs.replace(
            self,
            rows=self.rows[start:stop],
            status={view: found[start:stop] for view, found in self.status.items()},
            last_ingested={view: found[start:stop] for view, found in self.last_ingested.items()},
        )

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
        first = parts[0]
        return msgspec.structs.replace(
            first,
            rows=[row for part in parts for row in part.rows],
            status={view: [one for part in parts for one in part.status[view]] for view in first.status},
            last_ingested={
                view: [one for part in parts for one in part.last_ingested[view]] for view in first.last_ingested
            },
        )

    def replaced(self, view: str) -> list[bool]:
        """Return in which rows the service gave other values of a view than were computed, as those were too old."""
        statuses = REPLACED[self.on_stale]
        return [status in statuses for status in self.status[view]]

    @property
    def replaced_rows(self) -> int:
        """How many rows have such values, of any view."""
        if not REPLACED[self.on_stale]:
            return 0
        return sum(map(any, zip(*(self.replaced(view) for view in self.status), strict=True)))

    def to_polars(self, *, statuses: bool = True) -> pl.DataFrame:
        """Return a frame: a column a feature, then one a view, `<view>__status`; rows as they were asked."""
        from serving.frames import frame_of  # noqa: PLC0415  # Polars, for those who want it

        return frame_of(self, statuses=statuses)


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
            UnknownNameError, RequestError, NotReadyError, StaleError, InstantError: it cannot be answered, and why.
        """
        found = snapshot.service(service)
        versions = snapshot.versions(found)
        instant = _instant(snapshot, found, versions, at, leading_edge)
        for version in versions:
            _check_instant(version, snapshot.reach(version), instant)
        if found.on_stale == "refuse":
            _check_freshness(snapshot, versions, instant, epoch)
        return cls(snapshot, found, versions, instant, epoch)

    @property
    def watermark(self) -> Instant:
        """Up to where all of the service's sources are servable."""
        return self.snapshot.watermark(self.versions)

    @property
    def planned(self) -> list[tuple[PlannedFeature, Duration]]:
        """The service's features as their plans have them, each with the finest tile of its view."""
        plans = {version.view: version.plan for version in self.versions}
        return [(plans[view].feature(feature), plans[view].tiles.finest) for view, feature in self.service.columns]

    def is_stale(self, version: Version) -> bool:
        """Whether a version is further behind than its view's `freshness`."""
        return is_stale(self.at, self.snapshot.reach(version), version.plan.freshness, self.epoch)

    def rows(self, entities: Rows, first: int = 0) -> list[Row]:
        """Return the entities' key tags; errors count them from `first`.

        Raises:
            RequestError: an entity lacks a join key, or has one of another type.
        """
        tags = {entity: entity_tags(plan, entities, first) for entity, plan in self._plans.items()}
        return list(zip(*(tags[version.plan.entity] for version in self.versions), strict=True))

    @cached_property
    def _plans(self) -> dict[str, Plan]:
        """A plan of each entity, which knows its join keys."""
        return {version.plan.entity: version.plan for version in self.versions}


class Lookup:
    """The reading of some rows, without its I/O: while `unfinished`, send `commands()` and `absorb` the replies.

    Each entity of a view is read and merged once, in however many rows it stands.
    """

    def __init__(self, question: Question, turns: Turns, rows: Sequence[Row]) -> None:
        """Plan the reads."""
        self.question = question
        self.rows = rows
        at = question.at
        self.views: list[ViewLookup] = []
        self._merges: list[ViewMerge] = []
        for number, version in enumerate(question.versions):
            tags = [row[number] for row in rows]
            view = ViewLookup(version, turns.at(version.plan, at, version.based_to), list(dict.fromkeys(tags)), at)
            self.views.append(view)
            self._merges.append(ViewMerge(view, question.service, question.is_stale(version), tags))
        self.strings = Strings(self._merges, turns.texts)
        """To be read when all is merged, before `vectors`."""

    def commands(self) -> list[AnyCommand]:
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

    def merge(self, most: int) -> Iterator[None]:
        """Merge what was read, at most so many entities of a view at a time; others may be served between them.

        Raises:
            OverflowedError: an integer sum needs more than 64 bits.
        """
        for merge in self._merges:
            yield from merge.run(most)

    def vectors(self) -> FeatureVectors:
        """Return the answer, after a merge of all that was not merged before.

        Raises:
            OverflowedError: an integer sum needs more than 64 bits.
        """
        for _ in self.merge(max(1, len(self.rows))):
            pass
        self.strings.resolve()
        question, watermark, planned = self.question, self.question.watermark, self.question.planned
        merges = {merge.view: merge for merge in self._merges}
        columns = [merges[view].column(feature) for view, feature in question.service.columns]
        return FeatureVectors(
            features=question.service.names,
            rows=[list(row) for row in zip(*columns, strict=True)],
            status={view: spread(merge.statuses, merge.places) for view, merge in merges.items()},
            at=question.at,
            watermark=None if watermark == BEGINNING else watermark,
            age_ms=None if watermark == BEGINNING else max(0, question.at - watermark) / 1_000,
            last_ingested={view: spread(merge.last_ingested, merge.places) for view, merge in merges.items()},
            published_to={view: merge.lookup.version.published_to for view, merge in merges.items()},
            on_stale=question.service.on_stale,
            outputs=[feature.output for feature, _ in planned],
            planned=planned,
        )


def prepare(
    snapshot: Snapshot,
    turns: Turns,
    service: str,
    entities: Rows,
    at: object,
    leading_edge: str,
    epoch: int,
) -> Lookup:
    """Return the lookup of a request.

    Raises:
        UnknownNameError, RequestError, NotReadyError, StaleError, InstantError: it cannot be answered, and why.
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


def _check_freshness(snapshot: Snapshot, versions: Sequence[Version], at: Instant, epoch: Duration) -> None:
    for version in versions:
        plan, reach = version.plan, snapshot.reach(version)
        if is_stale(at, reach, plan.freshness, epoch):
            bound = f"{plan.freshness / instants.SECOND:g} s, and {epoch / instants.SECOND:g} s for an epoch"
            age = "nothing is servable yet" if reach == BEGINNING else f"{(at - reach) / instants.SECOND:.3f} s behind"
            raise StaleError(
                f"view {plan.view!r} is stale, and its service refuses that: {age}; its freshness is {bound}"
            )
