"""The assets of an event source: what streams, what is mirrored, and `events/`, which Dagster builds."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's context.

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from rtml.define.source import EventSource
from rtml.lake import LATE, QUARANTINE, raw_schema
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
from rtml_assets.defs.profile_report import profile_figures
from rtml_assets.defs.quality_gates import gate_results, specs_of, waiting_words
from rtml_assets.tables.delta import meaning_of, open_table, rows_by_day
from rtml_assets.tables.events import CompactedEvents, EventsDay, compact_events, events_meaning
from rtml_assets.tables.quarantine import CONTRACT, HELD, STATE, summary
from rtml_assets.tables.touched import blocked_by

FAILING_AFTER, WARNING_AFTER = timedelta(minutes=5), timedelta(minutes=2)
DELTA = {"deltalake", "polars"}


def external_assets(deployment: Deployment, source: EventSource) -> list[dg.AssetSpec]:
    """Return what runs outside Dagster: the stream, `raw/` and `quarantine/`, and `late/`, which publishing writes."""
    lake, schema, contract = deployment.lake, raw_schema(source), _hash(events_meaning(source))
    fingerprints = [plan.fingerprint for plan in deployment.plans_of(source.name)]
    published = [key_of("published", view.name) for view in deployment.registry.views_of(source.name)]
    stream = dg.AssetSpec(
        key_of("stream", source.name),
        description=f"{source.description or source.name}, as they stream. Figures come from the stream itself.",
        kinds={"redis", "bytewax"},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=FAILING_AFTER, warn_window=WARNING_AFTER),
        code_version=contract,
    )
    raw = dg.AssetSpec(
        key_of("raw", source.name),
        deps=[stream.key],
        description="Every accepted event, at least once, appended by the mirror flow.",
        kinds={"deltalake", "bytewax"},
        partitions_def=daily(source),
        metadata=table_metadata(lake.raw(source.name), schema, contract_notes(source)),
        code_version=contract,
    )
    quarantine = dg.AssetSpec(
        key_of("quarantine", source.name),
        deps=[stream.key],
        description=(
            "Every event that was refused, as received, with the first reason's code and all reasons in words; and "
            "those that a check holds. `rtml quarantine` lists and mends them."
        ),
        kinds={"deltalake", "bytewax"},
        metadata=table_metadata(lake.quarantine(source.name), QUARANTINE),
        code_version=contract,
    )
    late = dg.AssetSpec(
        key_of("late", source.name),
        deps=published,
        description="When each late event became servable, in the source's own time.",
        kinds=DELTA,
        metadata=table_metadata(lake.late(source.name), LATE),
        code_version=_hash(meaning_of(source.name, *fingerprints)),
    )
    owners, tags = list(source.owners), tags_of(source.tags)
    return [
        spec.replace_attributes(
            group_name="late" if spec.key == late.key else source.name, owners=owners, tags={**spec.tags, **tags}
        )
        for spec in ([stream, raw, quarantine, late] if published else [stream, raw, quarantine])
    ]


def events_asset(deployment: Deployment, source: EventSource) -> dg.AssetsDefinition:
    """Return `events/<source>`, which is held against the contract and what is expected before it is written."""
    key = key_of("events", source.name)
    version = {"dagster/code_version": _hash(events_meaning(source))}
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
            code_version=_hash(events_meaning(source)),
            metadata=table_metadata(deployment.lake.events(source.name), raw_schema(source), contract_notes(source)),
            check_specs=[contract, *specs_of(source.expectations, key)],
            output_required=False,
        )
        def events(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
            days = [date.fromisoformat(name) for name in context.partition_keys]
            compacted = compact_events(deployment.lake, source, days)
            for entry in _mirrored(deployment, source, days):
                context.log_event(entry)
            context.log_event(_quarantined(deployment, source))
            waiting = {
                check: [day for day in blocked if day not in days]
                for check, blocked in blocked_by(deployment.lake, source).items()
            }
            results = [
                _contract_result(compacted, waiting.get(CONTRACT, [])),
                *gate_results(deployment, key, source.expectations, compacted.judged, waiting),
            ]
            if compacted.refused or compacted.blocked:
                # A result would mark all days of the run: the good ones are noted one by one.
                for day in compacted.days:
                    context.log_event(
                        dg.AssetMaterialization(key, partition=str(day.day), metadata=_figures(day), tags=version)
                    )
                yield from results
                return
            for day in compacted.days:
                context.add_asset_metadata(_figures(day), asset_key=key, partition_key=str(day.day))
            yield from results
            yield dg.MaterializeResult()

    return events


def _mirrored(deployment: Deployment, source: EventSource, days: list[date]) -> Iterator[dg.AssetMaterialization]:
    """Say how many rows `raw/` has of the days that events are built from: the mirror knows nothing of Dagster."""
    counts = rows_by_day(open_table(deployment.lake.raw(source.name)))
    for day in days:
        if count := counts.get(day):
            figures = {"dagster/partition_row_count": count}
            yield dg.AssetMaterialization(key_of("raw", source.name), partition=str(day), metadata=figures)


def _quarantined(deployment: Deployment, source: EventSource) -> dg.AssetObservation:
    """Say how many events wait in quarantine, by reason: neither the mirror nor a check tells Dagster."""
    waiting = summary(deployment.lake, source).filter(pl.col(STATE) == HELD)
    by_reason = waiting.group_by("reason").agg(pl.col("rows").sum()).sort("reason")
    figures = {"held": int(waiting["rows"].sum()), **{f"held: {reason}": rows for reason, rows in by_reason.rows()}}
    return dg.AssetObservation(key_of("quarantine", source.name), metadata=figures)


def _figures(day: EventsDay) -> dict[str, Any]:
    return {
        "dagster/partition_row_count": day.rows,
        "rows": day.rows,
        "duplicates": day.duplicates,
        "conflicting": day.conflicting,
        "late": day.late,
        **profile_figures(day.profile),
    }


def _hash(meaning: str) -> str:
    return meaning.rsplit(maxsplit=1)[-1]


def _contract_result(compacted: CompactedEvents, waiting: list[date]) -> dg.AssetCheckResult:
    words = [f"{day}: {verdict}" for day, verdict in compacted.refused.items()] + waiting_words(waiting)
    broken = {str(day): dg.MetadataValue.text(str(verdict)) for day, verdict in compacted.refused.items()}
    return dg.AssetCheckResult(
        passed=not words,
        check_name=CONTRACT,
        severity=dg.AssetCheckSeverity.WARN if waiting and not broken else dg.AssetCheckSeverity.ERROR,
        description="; ".join(words)[:1_000] or None,
        metadata={
            "rows": compacted.checked,
            "days": len(compacted.days) + len(compacted.blocked) + len(broken),
            **broken,
        },
    )
