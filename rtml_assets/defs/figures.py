"""A sensor that reports the stream's own figures: it runs outside Dagster, and keeps them in Redis."""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor's context.

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import redis

from rtml.define.source import EventSource
from rtml.online import keys
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import key_of

INTERVAL_SECONDS = 15
PATIENCE_SECONDS = 2.0
FLOWS = {"tiles": "stream", "mirror": "raw"}
"""Which asset a flow's figures are reported for."""
UPDATED = "updated_at"


def figures_sensor(deployment: Deployment) -> dg.SensorDefinition:
    """Return the sensor over all sources' streams."""
    sources = list(deployment.registry.sources.values())

    @dg.sensor(
        name="stream_figures",
        description="Freshness, lag, events per second and counts of every stream, from the stream's own figures.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def stream_figures(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen: dict[str, float] = json.loads(context.cursor or "{}")
        try:
            with deployment.redis(PATIENCE_SECONDS) as client:
                found = {key: _read(client.hgetall(key)) for source in sources for key in _keys(source)}
        except redis.RedisError as error:
            return dg.SkipReason(f"Redis does not answer at {deployment.settings.redis_shown}: {error}")
        if not any(found.values()):
            return dg.SkipReason("no stream has written figures yet: start one with `rtml stream SOURCE` or `rtml up`")
        renewed = {key: figures for key, figures in found.items() if figures and seen.get(key) != figures.get(UPDATED)}
        if not renewed:
            return dg.SkipReason("no stream has renewed its figures since the last look: none is running")
        events = [event for source in sources for event in _events(source, renewed)]
        cursor = seen | {key: figures.get(UPDATED, 0) for key, figures in renewed.items()}
        words = dg.SkipReason(f"no run is needed: reported {len(events)} sets of figures")
        return dg.SensorResult(asset_events=events, cursor=json.dumps(cursor), skip_reason=words)

    return stream_figures


def _keys(source: EventSource) -> list[str]:
    return [keys.figures(source.name, flow) for flow in FLOWS]


def _read(stored: Mapping[bytes, bytes]) -> dict[str, float]:
    """Return the fields that are numbers."""
    figures: dict[str, float] = {}
    for name, text in stored.items():
        try:
            figures[name.decode()] = int(text) if text.lstrip(b"-").isdigit() else float(text)
        except ValueError:
            continue
    return figures


def _events(
    source: EventSource, renewed: Mapping[str, Mapping[str, float]]
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """The stream's asset is materialized while it runs, which is what its freshness is judged by."""
    for flow, table in FLOWS.items():
        figures = renewed.get(keys.figures(source.name, flow))
        if figures is None:
            continue
        kind = dg.AssetMaterialization if table == "stream" else dg.AssetObservation
        yield kind(asset_key=key_of(table, source.name), metadata=_metadata(figures))


def _metadata(figures: Mapping[str, float]) -> dict[str, Any]:
    return {
        name: dg.MetadataValue.timestamp(value / 1e6) if name.endswith("_at") else value
        for name, value in figures.items()
    }
