"""A training set: the features of a service, and labels, as they were at each row's instant; larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array, Values
from rtml.columns import KEY_TYPES, SPINE_TIME
from rtml.define.label import LabelSource
from rtml.define.service import FeatureService
from rtml.define.source import EventSource
from rtml.lake import Lake
from rtml.point_in_time.join import point_in_time
from rtml.registry import Registry
from rtml.texts import Texts
from rtml.values import put_rows, to_series, value_type
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.gaps import check_history, gaps
from rtml_assets.tables.labels import chosen_labels, labels_of
from rtml_assets.tables.seen import AT, KNOWN_AT, SEEN, SEEN_LATE, Asked, KnownAt, check_known_at
from rtml_assets.tables.spans import ROWS_AT_ONCE, Reach, Span, entity_parts, spans
from rtml_assets.tables.spine import CheckedSpine, check_spine, service_keys

Progress = Callable[[int, int], None]
"""Told how many rows are done, of how many."""
SPINE_ROWS_AT_ONCE = 1_000_000
"""So many rows of a spine are in memory at a time when their training set is written."""


@dataclass(frozen=True)
class TrainingSet:
    """What is wanted of a service for rows that are given: its features as of what is known, and labels.

    `limit` is about how many events may be in memory at a time.
    """

    lake: Lake
    service: FeatureService
    asked: tuple[Asked, ...]
    known_at: KnownAt = "serving"
    labels: tuple[LabelSource, ...] = ()
    limit: int = ROWS_AT_ONCE
    keys: dict[str, str] = field(default_factory=dict)
    arrivals: Arrivals = field(default_factory=Arrivals)

    @classmethod
    def of(
        cls,
        lake: Lake,
        registry: Registry,
        service: str,
        known_at: str = "serving",
        labels: Sequence[str | LabelSource] | None = None,
        limit: int = ROWS_AT_ONCE,
        arrivals: Arrivals | None = None,
    ) -> TrainingSet:
        """Look up what is named.

        Raises:
            UnknownNameError: there is no such service or label source.
            RequestError: `known_at` or `labels` are not what they should be.
        """
        found = registry.service(service)
        asked = tuple(
            Asked.of(view, registry.plans[view.name], [name for owner, name in found.columns if owner is view])
            for view in found.views
        )
        chosen = chosen_labels(registry, labels)
        keys = {**service_keys(found), **{key: kind for label in chosen for key, kind in label.key_types.items()}}
        return cls(lake, found, asked, check_known_at(known_at), chosen, limit, keys, arrivals or Arrivals())

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns that are added to a spine: features in the service's order, then labels."""
        plans = {asked.view.name: asked.plan for asked in self.asked}
        features: dict[str, pl.DataType] = {
            f"{view.name}__{name}": value_type(plans[view.name].feature(name).output)
            for view, name in self.service.columns
        }
        return features | {name: dtype for label in self.labels for name, dtype in label.columns.items()}

    def check(self, spine: pl.DataFrame | pl.LazyFrame) -> CheckedSpine:
        """Return the spine, collected, if it can be answered; see `check_spine` for what is raised."""
        return check_spine(spine, self.keys, self.columns, f"spine of service {self.service.name!r}")

    def compute(self, spine: CheckedSpine, progress: Progress | None = None) -> pl.DataFrame:
        """Return the spine's columns and rows as they are, then the columns that are added."""
        values: dict[str, pl.Series] = {}
        for number, asked in enumerate(self.asked):
            told = None if progress is None else _share(progress, number, len(self.asked), len(spine))
            values |= self._features(asked, spine, told)
        parts = [labels_of(self.lake, label, spine, self.arrivals, self.limit) for label in self.labels]
        values |= {column.name: column for part in parts for column in part}
        return spine.rows.with_columns(values[name].alias(name) for name in self.columns)

    def pieces(self, spine: CheckedSpine, progress: Progress | None = None) -> Iterator[pl.DataFrame]:
        """Return the same in pieces of rows, in order."""
        total = len(spine)
        for start in range(0, total, SPINE_ROWS_AT_ONCE):
            rows = slice(start, start + SPINE_ROWS_AT_ONCE)
            part = CheckedSpine(spine.rows[rows], spine.keys[rows], spine.at[rows])
            yield self.compute(part)
            if progress is not None:
                progress(start + len(part), total)

    def missing(self, spine: CheckedSpine) -> list[str]:
        """Say of each source what rows look at that is not (or not wholly) in `events/`.

        Raises:
            NotReadyError: a view's source has no table `events/` at all.
        """
        wanted: dict[EventSource, Reach] = {}
        for asked in self.asked:
            check_history(self.lake, asked.view.source, asked.view.name)
            _widen(wanted, asked.view.source, Reach(asked.plan.reach, -1))
        for label in self.labels:
            _widen(wanted, label.source, Reach(0, label.horizon_us - 1))
        return [words for source, reach in wanted.items() for words in gaps(self.lake, source, reach, spine.at)]

    def _features(self, asked: Asked, spine: CheckedSpine, progress: Progress | None) -> dict[str, pl.Series]:
        plan, done = asked.plan, 0
        kept = {feature.name: feature.output.room(len(spine)) for feature in plan.features}
        keys = spine.keys.select(asked.whole.key_names).rename(asked.renamed, strict=False)
        counts = rows_by_day(open_table(self.lake.events(asked.view.source.name)))
        texts: list[Texts] = []
        latest = spine.at - 1  # of the events before a row's instant
        for span in spans(latest, asked.reach, counts, self.limit):
            inside = np.flatnonzero((latest >= span.first) & (latest <= span.last))
            for part in entity_parts(keys[inside], span.parts):
                rows = inside[part]
                found, known = self._part(asked, keys[rows], spine.at[rows], span)
                texts.append(known)
                for name, values in found.items():
                    put_rows(kept[name], rows, values)
                done += len(rows)
                if progress is not None:
                    progress(done, len(spine))
        known = Texts.joined(texts)
        return {f"{asked.view.name}__{name}": to_series(column, known) for name, column in kept.items()}

    def _part(self, asked: Asked, keys: pl.DataFrame, at: Array, span: Span) -> tuple[dict[str, Values], Texts]:
        """Return the features of some rows, and the texts of their strings."""
        events = load_part(self.lake, asked, keys, span, self.known_at)
        instants = [pl.Series(name, at) for name in (AT, SEEN, SEEN_LATE)]
        found = point_in_time(asked.plan, events, keys.with_columns(instants))
        return found, Texts.of(events, asked.plan.texts).only(found.values())


def _widen(reaches: dict[EventSource, Reach], source: EventSource, more: Reach) -> None:
    """Let what is looked at of a source reach as far as this, too."""
    before, after = reaches.get(source, more)
    reaches[source] = Reach(max(before, more.before), max(after, more.after))


def load_part(lake: Lake, asked: Asked, keys: pl.DataFrame, span: Span, known_at: KnownAt) -> pl.DataFrame:
    """Return the events of some entities that the rows of a span look at, but those that no row can know."""
    time = pl.col(EVENT_TIME)
    events = asked.events(lake, span.days, known_at)
    events = events.filter(
        time >= span.first - asked.reach.before,
        time <= span.last + asked.reach.after,
        pl.col(KNOWN_AT) <= span.last + 1,  # a row's instant, which its window does not include
    )
    names = list(asked.plan.key_names)
    return events.join(keys.unique().lazy(), on=names, how="semi").collect(engine="streaming")


def training_rows(service: FeatureService, events: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of a service's own training set, from its spine's events: keys and `timestamp`, in their order.

    Args:
        service: one with `training`.
        events: some of `events/` of the spine's source, with unsigned `id64`.
    """
    spine = service.spine()
    from_events = events if spine.where is None else events.filter(spine.where)
    keys = [pl.col(name).cast(KEY_TYPES[kind]) for name, kind in spine.columns(service.key_types).items()]
    return from_events.sort(spine.source.timestamp, ID64).select(
        *keys, pl.col(spine.source.timestamp).alias(SPINE_TIME)
    )


def _share(progress: Progress, number: int, count: int, total: int) -> Progress:
    """Tell of one of several passes over the rows as of a share of them."""
    return lambda done, _: progress((number * total + done) // count, total)
