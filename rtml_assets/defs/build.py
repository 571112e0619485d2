"""A deployment → all that Dagster shows of it."""

from __future__ import annotations

import dagster as dg

from rtml_assets.defs.compaction import compaction_job, hourly
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.figures import figures_sensor
from rtml_assets.defs.parity_checks import parity
from rtml_assets.defs.source_assets import events_asset, external_assets
from rtml_assets.defs.view_assets import view_assets


def definitions_of(deployment: Deployment) -> dg.Definitions:
    """Return the assets of every source and view, compaction, parity, their schedules, and the figures' sensor."""
    sources = list(deployment.registry.sources.values())
    jobs = [compaction_job(deployment, source) for source in sources]
    served, checking = parity(deployment)
    return dg.Definitions(
        assets=[
            *(spec for source in sources for spec in external_assets(deployment, source)),
            *(events_asset(deployment, source) for source in sources),
            *(asset for view in deployment.registry.views.values() for asset in view_assets(deployment, view)),
            *served,
        ],
        asset_checks=[check for some in checking for check in some.checks],
        jobs=[*jobs, *(some.job for some in checking)],
        schedules=[
            *(hourly(deployment, source, job) for source, job in zip(sources, jobs, strict=True)),
            *(some.schedule for some in checking),
        ],
        sensors=[figures_sensor(deployment)],
        executor=dg.in_process_executor,
    )
