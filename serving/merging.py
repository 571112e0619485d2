"""One view's part of an answer: each entity merged once, judged once, and given to all rows that it stands in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from rtml.instants import Instant
from rtml.kernel.answer import Columns, answer_columns
from rtml.online.salts import by_entity
from rtml.reading import Fetched
from rtml.staleness import REPLACED, Status, status_of
from serving.last_event import expired
from serving.reader import ViewLookup
from streaming.services import Service

Places = list[int] | None
"""Which entity each row is about; `None` where rows and entities are the same."""


class ViewMerge:
    """The values and statuses of one view's entities, as a service gives them.

    Args:
        lookup: what was read, each entity once.
        service: whose columns are wanted, and what it does about old values.
        stale: whether the view is further behind than its `freshness`.
        tags: each row's entity.
    """

    def __init__(self, lookup: ViewLookup, service: Service, stale: bool, tags: Sequence[str]) -> None:
        """Begin with nothing merged."""
        self.lookup = lookup
        self.view = lookup.plan.view
        self._service, self._stale = service, stale
        self._columns: dict[str, list[Any]] = {feature: [] for view, feature in service.columns if view == self.view}
        self.statuses: list[Status] = []
        distinct = {tag: place for place, tag in enumerate(dict.fromkeys(tags))}
        self.places: Places = None if len(distinct) == len(tags) else [distinct[tag] for tag in tags]

    @property
    def last_ingested(self) -> list[Instant]:
        """The newest event that each entity's stream had."""
        partials = [row.fetched.header.last_ingested for row in self.lookup.rows]
        return by_entity(self.lookup.plan, max, partials)

    def run(self, most: int) -> Iterator[None]:
        """Merge what is not merged yet, at most so many entities at a time.

        Raises:
            OverflowedError: an integer sum needs more than 64 bits.
        """
        while (start := len(self.statuses)) < self.lookup.entities:
            judged = self._judged(start, start + most)
            self._take(self.lookup.answer(start, start + most), judged)
            self.statuses += judged
            yield

    @property
    def values(self) -> dict[str, list[Any]]:
        """The features' values, entity by entity; strings are their hashes until they are resolved."""
        return self._columns

    def damage(self, place: int) -> None:
        """Give no values of an entity: not all of it is there."""
        self.statuses[place] = "damaged"
        for column in self._columns.values():
            column[place] = None

    def column(self, feature: str) -> list[Any]:
        """Return a feature's values, row by row."""
        return spread(self._columns[feature], self.places)

    def _judged(self, start: int, stop: int) -> list[Status]:
        plan, at = self.lookup.plan, self.lookup.at
        partial = self.lookup.version.history_from > at - plan.reach
        rows = self.lookup.rows_of(start, stop)
        damaged = by_entity(plan, any, [row.damaged for row in rows])
        known = by_entity(plan, any, [row.fetched.known for row in rows])
        # A partial that holds nothing is as old as can be.
        old = by_entity(plan, all, [plan.ttl is not None and expired(row.fetched, plan, at) for row in rows])
        if not any(damaged) and not any(old) and all(known):
            plain = status_of(damaged=False, known=True, expired=False, stale=self._stale, partial=partial)
            return [plain] * len(known)
        return [
            status_of(damaged=one, known=two, expired=three, stale=self._stale, partial=partial)
            for one, two, three in zip(damaged, known, old, strict=True)
        ]

    def _take(self, found: Columns, statuses: list[Status]) -> None:
        damaged = "damaged" in statuses
        old = REPLACED[self._service.on_stale].intersection(statuses)
        for feature in self._columns:
            values = found[feature]
            if damaged:
                pairs = zip(values, statuses, strict=True)
                values = [None if status == "damaged" else value for value, status in pairs]
            if old:
                instead = self._instead[feature]
                values = [instead if status in old else value for value, status in zip(values, statuses, strict=True)]
            self._columns[feature] += values

    @cached_property
    def _instead(self) -> dict[str, Any]:
        """What is given instead of each feature's values that are too old."""
        if self._service.on_stale == "refuse":
            return dict.fromkeys(self._columns)
        plan = self.lookup.plan
        empty = answer_columns(plan, self.lookup.at, [Fetched()] * plan.salts, self.lookup.version.based_to)
        defaults = self._service.defaults
        return {
            feature: defaults[name] if (name := f"{self.view}__{feature}") in defaults else empty[feature][0]
            for feature in self._columns
        }


def spread(values: list[Any], places: Places) -> list[Any]:
    """Return each row's value, of one for each entity."""
    return values if places is None else [values[place] for place in places]
