"""The assets of a feature view: `tiles/`, and what is published of it to Redis."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's context.

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from rtml.algebra.counting import ROWS
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, Instant, format_duration, now, to_text
from rtml.lake import tiles_schema
from rtml.plan import Plan, describe_window
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import ONE_RUN, beta_is_meant, daily, key_of, table_metadata, tags_of
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.late import BOUND
from rtml_assets.tables.pruning import prune_versions, prune_views
from rtml_assets.tables.publish import Published, publish
from rtml_assets.tables.tiles import TilesDay, compact_tiles

LEVELS_AGREE, LATE_BOUND = "levels_agree", "late_bound"
DELTA = {"deltalake", "polars"}


def view_assets(deployment: Deployment, view: StreamFeatureView) -> list[dg.AssetsDefinition]:
    """Return the assets of a view."""
    return [_tiles_asset(deployment, view), _published_asset(deployment, view)]


def _tiles_asset(deployment: Deployment, view: StreamFeatureView) -> dg.AssetsDefinition:
    plan, key = deployment.plan(view), key_of("tiles", view.name)
    check = dg.AssetCheckSpec(
        LEVELS_AGREE,
        asset=key,
        blocking=True,
        description="At every level, the tiles together count every event that the view keeps once.",
    )
    counts = ROWS in plan.states.names
    with beta_is_meant():

        @dg.asset(
            key=key,
            deps=[key_of("events", view.source.name)],
            partitions_def=daily(view.source),
            backfill_policy=ONE_RUN,
            description=f"States of every {view.entity.name}, in tiles of {_ladder(plan)}.",
            kinds=DELTA,
            metadata=table_metadata(deployment.lake.tiles(view.name), tiles_schema(plan)),
            check_specs=[check] if counts else [],
            group_name=view.name,
            owners=list(view.owners),
            tags=tags_of(view.tags),
            code_version=plan.fingerprint,
        )
        def tiles(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
            days = [date.fromisoformat(name) for name in context.partition_keys]
            compacted = compact_tiles(deployment.lake, view, plan, days)
            for day in compacted:
                figures = {
                    "dagster/partition_row_count": day.rows,
                    "tiles": day.rows,
                    "entities": day.entities,
                    "events": day.events,
                }
                context.add_asset_metadata(figures, asset_key=key, partition_key=str(day.day))
            yield dg.MaterializeResult()
            if counts:
                yield _levels_result(compacted)

    return tiles


def _levels_result(days: list[TilesDay]) -> dg.AssetCheckResult:
    wrong = {str(day.day): f"{day.events:,} events, by level {day.counted}" for day in days if not day.agrees}
    return dg.AssetCheckResult(
        passed=not wrong,
        check_name=LEVELS_AGREE,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{day}: {words}" for day, words in wrong.items())[:1_000] or None,
        metadata={"events": sum(day.events for day in days), "days": len(days), **wrong},
    )


def _published_asset(deployment: Deployment, view: StreamFeatureView) -> dg.AssetsDefinition:
    plan, key = deployment.plan(view), key_of("published", view.name)
    bound = dg.AssetCheckSpec(
        LATE_BOUND, asset=key, description=f"No {view.entity.name} has more than {BOUND} late events to be read."
    )

    @dg.asset(
        key=key,
        deps=[key_of("tiles", view.name), key_of("events", view.source.name)],
        description=f"{view.description or view.name}. Here: its history up to the boundary, and late events.",
        kinds={"redis"},
        metadata=_explained(view, plan),
        check_specs=[bound],
        group_name=view.name,
        owners=list(view.owners),
        tags=tags_of(view.tags),
        code_version=plan.fingerprint,
    )
    def published(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with deployment.redis() as client:
            since = now() - deployment.settings.version_grace_us
            pruned = prune_versions(client, plan, since) + prune_views(client, deployment.registry.plans, since)
            outcome = publish(deployment.lake, client, view, plan)
        if outcome.remembered:
            kept = sum(rows_by_day(open_table(deployment.lake.late(view.source.name))).values())
            appended: dict[str, Any] = {"rows": outcome.remembered, "view": view.name, "dagster/row_count": kept}
            context.log_event(dg.AssetMaterialization(key_of("late", view.source.name), metadata=appended))
        yield dg.MaterializeResult(metadata=_outcome(outcome) | ({"pruned": pruned} if pruned else {}))
        yield _late_result(outcome)

    return published


def _late_result(outcome: Published) -> dg.AssetCheckResult:
    most = outcome.late.most if outcome.late else 0
    return dg.AssetCheckResult(
        passed=most <= BOUND,
        check_name=LATE_BOUND,
        severity=dg.AssetCheckSeverity.ERROR,
        description=None
        if most <= BOUND
        else f"one has {most}: the version was built anew, with late events in its tiles",
        metadata={"most_late_events": most, "bound": BOUND},
    )


def _outcome(outcome: Published) -> dict[str, Any]:
    if outcome.version is None:
        return {"state": outcome.why}
    version, found = outcome.version, dict[str, Any]()
    if outcome.history is not None:
        history = outcome.history
        found |= {"history_events": history.events, "history_tiles": history.tiles, "history_keys": history.keys}
    if outcome.caught_up:
        found["caught_up_events"] = outcome.caught_up
    if outcome.late is not None:
        late = outcome.late
        found |= {
            "late_events": late.events,
            "late_new": late.new,
            "late_entities": late.entities,
            "late_most": late.most,
        }
    return {
        "version": version.version,
        "state": version.state,
        "boundary": _instant(version.boundary),
        "history_from": _instant(version.history_from),
        "published_to": _instant(version.published_to),
        **found,
    }


def _instant(instant: Instant) -> Any:
    return to_text(instant) if instant == BEGINNING else dg.MetadataValue.timestamp(instant / 1e6)


def _ladder(plan: Plan) -> str:
    return ", ".join(format_duration(size) for size in plan.ladder)


def _explained(view: StreamFeatureView, plan: Plan) -> dict[str, Any]:
    """Return what each feature means, as a table."""
    cells = [
        (f"`{item.name}`", item.called, item.column or "(events)", describe_window(item.span, plan.tiles))
        for item in plan.features
    ]
    lines = [f"| {' | '.join(row)} |" for row in [("feature", "aggregate", "column", "window"), ("---",) * 4, *cells]]
    return {
        "features": dg.MetadataValue.md("\n".join(lines)),
        "entity": f"{view.entity.name} ({', '.join(plan.key_names)})",
        "lateness": format_duration(plan.lateness) if plan.lateness else "none",
        "fingerprint": plan.fingerprint,
    }
