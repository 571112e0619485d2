"""`training/<service>`: a service's own training set, by the days of its spine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import polars as pl

from rtml.columns import SPINE_TIME
from rtml.define.expression import meaning
from rtml.lake import EVENT_DATE, Lake, training_schema
from rtml.registry import Registry
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.delta import Built, meaning_of, open_table, rebuild_days, rows_by_day
from rtml_assets.tables.events import in_chunks, load_events
from rtml_assets.tables.spans import ROWS_AT_ONCE
from rtml_assets.tables.training_set import TrainingSet, training_rows

SPINE_EVENTS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class TrainingDay:
    """The figures of one day of a training set."""

    day: date
    rows: int
    mature: dict[str, float]
    """By label source: which share of the rows has a horizon that has passed."""
    nulls: dict[str, float]
    """By feature and label: which share of the rows has no value."""


@dataclass(frozen=True)
class BuiltTraining:
    """What became of some days, and what to warn of: what rows look at that is not in `events/`."""

    days: list[TrainingDay]
    missing: list[str]


def build_training(
    lake: Lake,
    registry: Registry,
    service: str,
    days: Sequence[date],
    limit: int = ROWS_AT_ONCE,
    arrivals: Arrivals | None = None,
) -> BuiltTraining:
    """Build days of `training/<service>`, as of what serving had.

    Raises:
        UnknownNameError, DefinitionError: there is no such service, or it has no training set.
        NotReadyError: a view's source has no table `events/`.
    """
    definition = registry.service(service)
    spine = definition.spine()
    wanted = TrainingSet.of(lake, registry, service, "serving", spine.labels, limit, arrivals)
    counts = rows_by_day(open_table(lake.events(spine.source.name)))
    schema, told = training_schema(definition, registry.plans), training_meaning(registry, service)
    figures: list[TrainingDay] = []
    missing: dict[str, None] = {}
    for some in in_chunks({day: counts.get(day, 0) for day in days}, SPINE_EVENTS_AT_ONCE):
        build = partial(_build, wanted, some)
        done = rebuild_days(lake.training(service), schema, told, build)
        figures += done.days
        missing |= dict.fromkeys(done.missing)
    return BuiltTraining(figures, list(missing))


def _build(wanted: TrainingSet, counts: dict[date, int]) -> Built[BuiltTraining]:
    service, days = wanted.service, list(counts)
    events = load_events(wanted.lake, service.spine().source, days)
    spine = wanted.check(training_rows(service, events))
    missing = wanted.missing(spine)
    rows = wanted.compute(spine).with_columns(pl.col(SPINE_TIME).dt.date().alias(EVENT_DATE))
    return Built(rows, counts, BuiltTraining(list(_figures(wanted, rows, days)), missing))


def training_meaning(registry: Registry, service: str) -> str:
    """Return what the rows of a training set mean: what its features, rows and labels do."""
    definition = registry.service(service)
    spine = definition.spine()
    where = None if spine.where is None else meaning(f"{spine.place}: where", spine.where)
    labels = [(label.name, label.source.name, label.join_keys, label.horizon_us) for label in spine.labels]
    prints = [registry.plans[view.name].fingerprint for view in definition.views]
    schema = training_schema(definition, registry.plans)
    return meaning_of(service, prints, spine.source.name, where, labels, schema)


def _figures(wanted: TrainingSet, rows: pl.DataFrame, days: Sequence[date]) -> Iterator[TrainingDay]:
    matures = {label.name: pl.col(label.mature).mean().fill_null(1.0) for label in wanted.labels}
    matured = {label.mature for label in wanted.labels}
    values = [name for name in wanted.columns if name not in matured]
    for day in days:
        some = rows.filter(pl.col(EVENT_DATE) == day)
        shares = some.select(**matures).row(0, named=True) if matures else {}
        nulls = {name: some[name].null_count() / some.height for name in values} if some.height else {}
        yield TrainingDay(day, some.height, shares, nulls)
