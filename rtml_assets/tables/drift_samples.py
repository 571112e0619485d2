"""The rows that drift is told from: what was served now and in the week before, and the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
from deltalake import DeltaTable

from rtml.define.drift import Against, Drift
from rtml.define.service import FeatureService
from rtml.errors import NotReadyError, near_miss
from rtml.lake import EVENT_DATE, Lake, training_schema
from rtml.registry import Registry
from rtml_assets.tables.delta import open_table, rows_by_day, scan
from rtml_assets.tables.served import of_meaning, service_schema, whole_served
from rtml_assets.tables.training_days import training_meaning

TRAINING_DAYS = 28
"""So many of the newest days of a training set are looked at."""
SERVED_DAYS = 7
"""Where a day has too few rows, those before it are joined to it, up to so many in all."""
WEEK = 7
_PLACE = "place"


@dataclass(frozen=True)
class Sample:
    """Rows of some days, evenly chosen; columns are the features, as `view__feature`, and the day."""

    days: tuple[date, ...]
    rows: pl.DataFrame

    def __str__(self) -> str:
        """Say what the rows are."""
        return f"{self.rows.height:,} rows of {span(self.days)}"


@dataclass(frozen=True)
class Samples:
    """Where a service's rows are taken from."""

    lake: Lake
    registry: Registry
    service: FeatureService
    held: Drift
    served: DeltaTable
    counts: Mapping[date, int]
    """By day, how many rows were logged, of whatever meaning."""

    def now(self, today: date, asked: date | None) -> Sample:
        """Return what was served on the newest day that is over, or on a day that is asked for.

        Raises:
            NotReadyError: nothing was logged on that day.
        """
        if asked is None:
            newest = max((day for day in self.counts if day < today), default=max(self.counts))
        elif asked in self.counts:
            newest = asked
        else:
            near = near_miss(str(asked), [str(day) for day in self.counts])
            raise NotReadyError(f"nothing that service {self.service.name!r} served on {asked} is logged.{near}")
        return self._served(self._enough(newest))

    def reference(self, against: Against, now: Sample) -> Sample | str:
        """Return the rows of a reference, or a sentence that says why there are none."""
        return self._training(now.days[0]) if against == "training" else self._week(now.days)

    def _enough(self, newest: date) -> tuple[date, ...]:
        """Return a day, and those before it that it takes for a verdict on all features."""
        least = max((self.held.bounds(feature).minimum for feature in features_of(self.service)), default=0)
        days = [newest]
        for back in range(1, SERVED_DAYS):
            if sum(self.counts[day] for day in days) >= least:
                break
            if (before := newest - timedelta(days=back)) in self.counts:
                days.append(before)
        return tuple(sorted(days))

    def _week(self, days: Sequence[date]) -> Sample | str:
        before = tuple(days[0] - timedelta(days=back) for back in range(WEEK, 0, -1))
        if not (logged := tuple(day for day in before if day in self.counts)):
            return f"Not compared with the week before: nothing that was served on {span(before)} is logged."
        found = self._served(logged)
        if not found.rows.height:
            return f"Not compared with the week before: {span(logged)} is of another meaning or version."
        return found

    def _served(self, days: tuple[date, ...]) -> Sample:
        """Return what was served on some days, of the meaning and version that the service has now."""
        plans = self.registry.plans
        rows = whole_served(self.served, service_schema(self.service, plans))
        return Sample(days, self._evenly(rows.filter(_on(days) & of_meaning(self.service, plans))))

    def _training(self, before: date) -> Sample | str:
        """Return the newest days of the training set: where there are any, of those before what was served."""
        name = self.service.name
        if self.service.training is None:
            return "Not compared with training: the service has no training set."
        table = open_table(self.lake.training(name))
        counts = rows_by_day(table)
        if table is None or not counts:
            return f"Not compared with training: training/{name} is not built yet."
        if table.metadata().description != training_meaning(self.registry, name):
            return f"Not compared with training: training/{name} is of another meaning than now; build it again."
        days = tuple(sorted([day for day in counts if day < before] or counts)[-TRAINING_DAYS:])
        rows = scan(table, training_schema(self.service, self.registry.plans), days)
        return Sample(days, self._evenly(rows))

    def _evenly(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return as many rows as are asked for, or all: spread evenly, and the same ones every time."""
        features = rows.select(*features_of(self.service), EVENT_DATE)
        count = features.select(pl.len()).collect().item()
        if count <= self.held.sample:
            return features.collect()
        place = pl.col(_PLACE).cast(pl.Int64)
        step = (place + 1) * self.held.sample // count > place * self.held.sample // count
        return features.with_row_index(_PLACE).filter(step).drop(_PLACE).collect()


def samples(lake: Lake, registry: Registry, service: FeatureService, held: Drift) -> Samples | None:
    """Return where a service's rows are taken from; None while nothing that it served is logged."""
    table = open_table(lake.served(service.name))
    counts = rows_by_day(table)
    return Samples(lake, registry, service, held, table, counts) if table is not None and counts else None


def features_of(service: FeatureService) -> list[str]:
    """Return a service's features that are single values, as `view__feature`."""
    return [f"{view.name}__{name}" for view, name in service.columns if not view.resolved[name].output.width]


def lists_of(service: FeatureService) -> list[str]:
    """Return a service's features that are lists, as `view__feature`: no measure is told of them."""
    return [f"{view.name}__{name}" for view, name in service.columns if view.resolved[name].output.width]


def span(days: Sequence[date]) -> str:
    """Return some days in words, such as `2024-03-01` or `2024-03-01 to 2024-03-03`."""
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _on(days: Sequence[date]) -> pl.Expr:
    return pl.col(EVENT_DATE).is_in(list(days))
