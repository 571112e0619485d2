"""What people and models take away: `features/<view>` (values at chosen instants) and `training/<service>`."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's context.

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from rtml.columns import SPINE_TIME
from rtml.define.label import LabelSource
from rtml.define.service import FeatureService
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.instants import DAY, Duration, format_duration, now, to_datetime
from rtml.lake import features_schema, training_schema
from rtml.plan import Plan, PlannedFeature, describe_window
from rtml.tiles import LIFETIME
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import ONE_RUN, beta_is_meant, daily, in_process_job, key_of, table_metadata, tags_of
from rtml_assets.defs.quality_gates import gate_results, specs_of
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.gates import judge_values
from rtml_assets.tables.snapshots import SnapshotDay, build_snapshots, snapshots_meaning
from rtml_assets.tables.training_days import TrainingDay, build_training, training_meaning

DELTA = {"deltalake", "polars"}
COLUMNS_SHOWN, CELLS_SHOWN = 60, 12


def features_asset(deployment: Deployment, view: StreamFeatureView) -> dg.AssetsDefinition:
    """Return `features/<view>`: what people look at."""
    plan, key = deployment.plan(view), key_of("features", view.name)
    every = format_duration(view.snapshots_us)
    notes = {feature.name: in_words(feature, plan) for feature in plan.features}
    notes[SPINE_TIME] = "the instant that windows end at, which they do not include"
    with beta_is_meant():

        @dg.asset(
            key=key,
            deps=[_events_of(view.source, before=plan.reach + plan.tiles.finest)],
            partitions_def=daily(view.source),
            backfill_policy=ONE_RUN,
            description=f"{view.description or view.name}: the values of every {view.entity.name} with events in a "
            f"window, every {every}, by event time alone (hindsight).",
            kinds=DELTA,
            metadata=table_metadata(deployment.lake.features(view.name), features_schema(plan), notes),
            group_name=view.name,
            owners=list(view.owners),
            tags=tags_of(view.tags),
            code_version=_hash(snapshots_meaning(view, plan)),
            check_specs=specs_of(view.expectations, key),
        )
        def features(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
            days = _days(context)
            for day in build_snapshots(deployment.lake, view, plan, days):
                context.add_asset_metadata(_snapshot(day), asset_key=key, partition_key=str(day.day))
            yield dg.MaterializeResult()
            yield from gate_results(deployment, key, view.expectations, judge_values(deployment.lake, view, plan, days))

    return features


def training_asset(deployment: Deployment, service: FeatureService) -> dg.AssetsDefinition:
    """Return `training/<service>`: what a model is fitted to."""
    spine, key = service.spine(), key_of("training", service.name)
    registry, lake = deployment.registry, deployment.lake
    with beta_is_meant():

        @dg.asset(
            key=key,
            deps=_read_by(deployment, service),
            partitions_def=daily(spine.source),
            backfill_policy=ONE_RUN,
            description=f"{service.description or service.name}: a row for each event of {spine.source.name}"
            f"{'' if spine.where is None else f' where {spine.where}'}, with what serving had at its instant, and "
            "labels as they were known a horizon later.",
            kinds=DELTA,
            metadata=table_metadata(
                lake.training(service.name), training_schema(service, registry.plans), _notes(deployment, service)
            ),
            group_name=service.name,
            owners=list(service.owners),
            code_version=_hash(training_meaning(registry, service.name)),
        )
        def training(context: dg.AssetExecutionContext) -> None:
            settings = deployment.settings
            arrivals = Arrivals(settings, settings.mirror_epoch_us)
            built = build_training(lake, registry, service.name, _days(context), arrivals=arrivals)
            for words in built.missing:
                context.log.warning(words)
            for day in built.days:
                for label, share in day.mature.items():
                    if share < 1:
                        context.log.warning("%s: %.1f %% of %s are mature: build it again", day.day, 100 * share, label)
                context.add_asset_metadata(_trained(day), asset_key=key, partition_key=str(day.day))

    return training


def training_job(service: FeatureService) -> UnresolvedAssetJobDefinition:
    """Return the job that builds days of a service's training set."""
    selection = dg.AssetSelection.assets(key_of("training", service.name))
    words = f"events → training/{service.name}, for the days that are chosen."
    return in_process_job(f"training_{service.name}", selection, words)


def trained_services(deployment: Deployment) -> list[FeatureService]:
    """Return the services that have a training set."""
    return [service for service in deployment.registry.services.values() if service.training is not None]


def in_words(feature: PlannedFeature, plan: Plan) -> str:
    """Say what a feature is."""
    what = f"{feature.called} of {feature.column or 'events'}"
    return f"{what}, {describe_window(feature.span, plan.tiles)}"


def _read_by(deployment: Deployment, service: FeatureService) -> list[dg.AssetDep]:
    """Return what a training set is computed from, with the days around its own."""
    spine = service.spine()
    reach: dict[EventSource, tuple[Duration, Duration]] = {spine.source: (0, 0)}
    for view in service.views:
        plan = deployment.plan(view)
        before, after = reach.get(view.source, (0, 0))
        reach[view.source] = max(before, plan.reach + plan.tiles.finest), after
    for label in spine.labels:
        before, after = reach.get(label.source, (0, 0))
        reach[label.source] = before, max(after, label.horizon_us)
    late = [dg.AssetDep(key_of("late", source.name)) for source in dict.fromkeys(v.source for v in service.views)]
    return [*(_events_of(source, before, after) for source, (before, after) in reach.items()), *late]


def _events_of(source: EventSource, before: Duration = 0, after: Duration = 0) -> dg.AssetDep:
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-_days_of(_history(source) if before >= LIFETIME else before),
        end_offset=_days_of(after),
        allow_nonexistent_upstream_partitions=True,
    )
    return dg.AssetDep(key_of("events", source.name), partition_mapping=mapping)


def _history(source: EventSource) -> Duration:
    """Return what a lifetime window looks back on at most, before these definitions are loaded again."""
    last = source.last_day or to_datetime(now()).date()
    return max(1, (last - source.first_day).days + 366) * DAY


def _days_of(duration: Duration) -> int:
    return -(-duration // DAY)


def _notes(deployment: Deployment, service: FeatureService) -> dict[str, str]:
    spine = service.spine()
    notes = {SPINE_TIME: f"the event time of {spine.source.name}; the row's own event is in no window"}
    for view, name in service.columns:
        plan = deployment.plan(view)
        notes[f"{view.name}__{name}"] = in_words(plan.feature(name), plan)
    for label in spine.labels:
        notes |= _label_notes(label)
    return notes


def _label_notes(label: LabelSource) -> dict[str, str]:
    when = f"{format_duration(label.horizon_us)} after {SPINE_TIME}"
    labels = {label.column(name): f"{name} of {label.source.name}, as known {when}" for name in label.labels}
    return {**labels, label.mature: f"whether the instant {when} had passed when the row was made"}


def _days(context: dg.AssetExecutionContext) -> list[date]:
    return [date.fromisoformat(name) for name in context.partition_keys]


def _snapshot(day: SnapshotDay) -> dict[str, Any]:
    figures: dict[str, Any] = {"dagster/partition_row_count": day.rows, "rows": day.rows, "entities": day.entities}
    return figures | ({"sample": dg.MetadataValue.md(markdown(day.sample))} if day.rows else {})


def _trained(day: TrainingDay) -> dict[str, Any]:
    figures: dict[str, Any] = {"dagster/partition_row_count": day.rows, "rows": day.rows}
    figures |= {f"{name}_mature": share for name, share in day.mature.items()}
    if day.nulls:
        most = sorted(day.nulls.items(), key=lambda item: -item[1])
        figures["null_share"] = sum(day.nulls.values()) / len(day.nulls)
        figures["null_shares"] = dg.MetadataValue.md(
            _table(["column", "null"], [(f"`{name}`", f"{share:.1%}") for name, share in most[:COLUMNS_SHOWN]])
        )
    return figures


def markdown(rows: pl.DataFrame) -> str:
    """Return rows as a table; of many columns the first."""
    names = rows.columns[:CELLS_SHOWN]
    return _table(names, [[_cell(value) for value in row] for row in rows.select(names).rows()])


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(names)
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])


def _hash(meaning: str) -> str:
    return meaning.rsplit(maxsplit=1)[-1]
