"""The assets `promotion/<service>`: materialising one serves the service as it is defined now."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's context.

from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from rtml.define.service import FeatureService
from rtml.instants import now
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import in_process_job, key_of
from rtml_assets.tables.delta import meaning_of
from rtml_assets.tables.promotion import Promotion, promote
from rtml_assets.tables.proof import prover
from streaming.audit import actor, audited
from streaming.services import Service


def promotion_asset(deployment: Deployment, service: FeatureService) -> dg.AssetsDefinition:
    """Return the promotion of a service; nothing but a person, or a job of theirs, materialises it."""
    record = Service.of(service, deployment.registry.plans)

    @dg.asset(
        key=key_of("promotion", service.name),
        deps=[key_of("published", view.name) for view in service.views],
        description=f"{service.description or service.name}. Materialise it to serve version {service.version} as "
        "defined now: at once, and only when all that it reads is complete and proven.",
        group_name="services",
        kinds={"redis"},
        owners=list(service.owners),
        metadata={"features": len(record.columns), **record.fingerprints},
        code_version=meaning_of(service.name, record.version, record.columns, record.fingerprints).split()[-1],
    )
    def promotion(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        who = f"{actor()} (Dagster run {context.run.run_id})"
        with deployment.redis() as client, audited(deployment.lake, "promote", service.name, who) as words:
            prove = prover(deployment.lake, client, deployment.registry)
            outcome = promote(deployment.lake, client, deployment.registry, service.name, now(), prove)
            words.append(outcome.words)
        context.log.info("%s serves version %d", service.name, outcome.service.version)
        return dg.MaterializeResult(metadata=_told(outcome))

    return promotion


def promotion_job(service: FeatureService) -> UnresolvedAssetJobDefinition:
    """Return the job that promotes a service."""
    selection = dg.AssetSelection.assets(key_of("promotion", service.name))
    return in_process_job(f"promote_{service.name}", selection, f"Serve {service.name} as it is defined now.")


def _told(outcome: Promotion) -> dict[str, Any]:
    before = {} if outcome.before is None else outcome.before.fingerprints
    changed = [view for view, fingerprint in outcome.service.fingerprints.items() if before.get(view) != fingerprint]
    return {
        "version": outcome.service.version,
        "changed": ", ".join(changed) or "nothing",
        **outcome.service.fingerprints,
    }
