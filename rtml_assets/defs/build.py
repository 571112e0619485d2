"""A deployment → all that Dagster shows of it."""

from __future__ import annotations

import dagster as dg

from rtml.define.source import EventSource
from rtml_assets.defs.alerts import alerts_sensor
from rtml_assets.defs.compaction import building_job, compaction_job, hourly
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.drift_checks import drift_checks
from rtml_assets.defs.figures import figures_sensor
from rtml_assets.defs.parity_checks import parity
from rtml_assets.defs.promotion_assets import promotion_asset, promotion_job
from rtml_assets.defs.quality_checks import quality_of
from rtml_assets.defs.remedies import remedies_sensor
from rtml_assets.defs.sla_checks import serving_assets, sla_checks, sla_sensor
from rtml_assets.defs.source_assets import events_asset, external_assets
from rtml_assets.defs.training_assets import features_asset, trained_services, training_asset, training_job
from rtml_assets.defs.view_assets import view_assets


def compaction_of(deployment: Deployment, source: EventSource) -> dg.Definitions:
    """Return only what builds and publishes one source: a run in this process need not load the rest."""
    views = deployment.registry.views_of(source.name)
    return dg.Definitions(
        assets=[
            *external_assets(deployment, source),
            events_asset(deployment, source),
            *(asset for view in views for asset in view_assets(deployment, view)),
        ],
        jobs=[building_job(deployment, source)],
        executor=dg.in_process_executor,
    )


def definitions_of(deployment: Deployment) -> dg.Definitions:
    """Return the assets of every source, view and service, their jobs, schedules and sensors."""
    sources = list(deployment.registry.sources.values())
    jobs = [compaction_job(deployment, source) for source in sources]
    trained = trained_services(deployment)
    served, checking = parity(deployment)
    checking += [quality_of(deployment, source) for source in sources]
    checking += drift_checks(deployment)
    return dg.Definitions(
        assets=[
            *(spec for source in sources for spec in external_assets(deployment, source)),
            *(events_asset(deployment, source) for source in sources),
            *(promotion_asset(deployment, service) for service in deployment.registry.services.values()),
            *(asset for view in deployment.registry.views.values() for asset in view_assets(deployment, view)),
            *(features_asset(deployment, view) for view in deployment.registry.views.values()),
            *(training_asset(deployment, service) for service in trained),
            *served,
            *serving_assets(deployment),
        ],
        asset_checks=[*(check for some in checking for check in some.checks), *sla_checks(deployment)],
        jobs=[
            *jobs,
            *(training_job(service) for service in trained),
            *(promotion_job(service) for service in deployment.registry.services.values()),
            *(some.job for some in checking),
        ],
        schedules=[
            *(hourly(deployment, source, job) for source, job in zip(sources, jobs, strict=True)),
            *(some.schedule for some in checking),
        ],
        sensors=[
            figures_sensor(deployment),
            sla_sensor(deployment),
            alerts_sensor(deployment),
            remedies_sensor(deployment, jobs),
        ],
        executor=dg.in_process_executor,
    )
