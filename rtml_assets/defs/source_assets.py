"""The assets of an event source: what streams, what is mirrored, and `events/`, which Dagster builds."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's context.

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg

from rtml.define.source import EventSource
from rtml.lake import LATE, raw_schema
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import (
    ONE_RUN,
    beta_is_meant,
    contract_notes,
    daily,
    key_of,
    table_metadata,
    tags_of,
)
from rtml_assets.tables.events import CompactedEvents, compact_events, events_meaning

FAILING_AFTER, WARNING_AFTER = timedelta(minutes=5), timedelta(minutes=2)
CONTRACT = "contract"
DELTA = {"deltalake", "polars"}


def external_assets(deployment: Deployment, source: EventSource) -> list[dg.AssetSpec]:
    """Return what runs outside Dagster: the stream, its mirror `raw/`, and `late/`, which publishing writes."""
    lake, schema = deployment.lake, raw_schema(source)
    published = [key_of("published", view.name) for view in deployment.registry.views_of(source.name)]
    stream = dg.AssetSpec(
        key_of("stream", source.name),
        description=f"{source.description or source.name}, as they stream. Figures come from the stream itself.",
        kinds={"redis", "bytewax"},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=FAILING_AFTER, warn_window=WARNING_AFTER),
    )
    raw = dg.AssetSpec(
        key_of("raw", source.name),
        deps=[stream.key],
        description="Every accepted event, at least once, appended by the mirror flow.",
        kinds={"deltalake", "bytewax"},
        partitions_def=daily(source),
        metadata=table_metadata(lake.raw(source.name), schema, contract_notes(source)),
    )
    late = dg.AssetSpec(
        key_of("late", source.name),
        deps=published,
        description="When each late event became servable, in the source's own time.",
        kinds=DELTA,
        metadata=table_metadata(lake.late(source.name), LATE),
    )
    owners, tags = list(source.owners), tags_of(source.tags)
    return [
        spec.replace_attributes(
            group_name="late" if spec.key == late.key else source.name, owners=owners, tags={**spec.tags, **tags}
        )
        for spec in ([stream, raw, late] if published else [stream, raw])
    ]


def events_asset(deployment: Deployment, source: EventSource) -> dg.AssetsDefinition:
    """Return `events/<source>`, which is held against the contract before it is written."""
    key = key_of("events", source.name)
    contract = dg.AssetCheckSpec(
        CONTRACT,
        asset=key,
        blocking=True,
        description="Every event keeps the contract (pandera); a day with one that does not is left as it was.",
    )
    with beta_is_meant():

        @dg.asset(
            key=key,
            deps=[key_of("raw", source.name)],
            partitions_def=daily(source),
            backfill_policy=ONE_RUN,
            description="Every event once, sorted by time and id64. Of duplicates the one that arrived first counts.",
            group_name=source.name,
            owners=list(source.owners),
            tags=tags_of(source.tags),
            kinds=DELTA,
            code_version=events_meaning(source).split()[-1],
            metadata=table_metadata(deployment.lake.events(source.name), raw_schema(source), contract_notes(source)),
            check_specs=[contract],
            output_required=False,
        )
        def events(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
            days = [date.fromisoformat(name) for name in context.partition_keys]
            compacted = compact_events(deployment.lake, source, days)
            for day in compacted.days:
                figures = {
                    "dagster/partition_row_count": day.rows,
                    "rows": day.rows,
                    "duplicates": day.duplicates,
                    "conflicting": day.conflicting,
                    "late": day.late,
                }
                context.add_asset_metadata(figures, asset_key=key, partition_key=str(day.day))
            yield _contract_result(compacted)
            if not compacted.refused:
                yield dg.MaterializeResult()

    return events


def _contract_result(compacted: CompactedEvents) -> dg.AssetCheckResult:
    broken = {str(day): dg.MetadataValue.text(str(verdict)) for day, verdict in compacted.refused.items()}
    return dg.AssetCheckResult(
        passed=not broken,
        check_name=CONTRACT,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{day}: {verdict}" for day, verdict in compacted.refused.items())[:1_000] or None,
        metadata={"rows": compacted.checked, "days": len(compacted.days) + len(broken), **broken},
    )
