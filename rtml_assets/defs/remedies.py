"""A sensor that starts the backfills that an SLA names as a remedy."""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor's context.

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from rtml.define.views import StreamFeatureView
from rtml.instants import now as present
from rtml_assets.defs.compaction import building, in_stretches, request_for
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import daily, key_of
from rtml_assets.tables.touched import touched_days
from rtml_assets.watch.ledger import Ledger, ledger_file
from rtml_assets.watch.remedy import BACKFILL, finish, waiting

INTERVAL_SECONDS = 30


def remedies_sensor(deployment: Deployment, jobs: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """Return the sensor; `jobs` are those that compact."""

    @dg.sensor(
        name="remedies",
        jobs=list(jobs),
        description="Compacts views whose SLA asks for it when it is broken: remedy=('backfill',).",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def remedies(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        del context
        requests: list[dg.RunRequest] = []
        with Ledger(ledger_file(deployment.settings.home_path)) as ledger:
            for remedy in waiting(ledger, BACKFILL):
                view = deployment.registry.views.get(remedy.what)
                started = list(_backfill(deployment, view, f"remedy-{remedy.id}")) if view else []
                outcome = f"started {len(started)} runs" if view else "the view is defined no longer"
                finish(ledger, remedy.id, present(), outcome)
                requests += started
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("no remedy is asked for")

    return remedies


def _backfill(deployment: Deployment, view: StreamFeatureView, name: str) -> Iterator[dg.RunRequest]:
    """Return the runs that build the days of a view that were touched; the last one publishes."""
    source, published = view.source, [key_of("published", view.name)]
    known = set(daily(source).get_partition_keys())
    touched = touched_days(deployment.lake, source, deployment.plans_of(source.name))
    stretches = list(in_stretches([day for day in touched if str(day) in known]))
    spans: list[tuple[date, date] | None] = [*stretches] or [None]
    for number, span in enumerate(spans):
        last = published if number == len(spans) - 1 else []
        chosen = [*(building(deployment, source, [view]) if span else []), *last]
        request = request_for(deployment, chosen, *(span or ()))
        # Under its key a run is started once, though the tick be repeated.
        yield request.with_replaced_attrs(job_name=f"compact_{source.name}", run_key=f"{name}-{number}")
