"""View → plan, with the fingerprint of its meaning."""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec

from rtml.algebra.family import Kind
from rtml.define.expression import meaning
from rtml.define.views import StreamFeatureView
from rtml.plan import Plan, PlannedFeature


def compile_view(view: StreamFeatureView) -> Plan:
    """Return the plan of a view."""
    features = tuple(
        PlannedFeature(
            feature.name,
            feature.aggregate,
            feature.column,
            cast("Kind", feature.kind),
            feature.window.length,
            feature.window.exact,
            feature.parameters,
            feature.window.offset,
        )
        for feature in view.resolved.values()
    )
    return Plan(
        view=view.name,
        source=view.source.name,
        partitions=view.source.stream.partitions,
        entity=view.entity.name,
        keys=tuple(view.key_types.items()),
        features=features,
        ladder=view.tiles.sizes,
        lateness=view.source.lateness_us,
        skew=view.source.skew_us,
        freshness=view.freshness_us,
        ttl=view.ttl_us,
        fingerprint=_fingerprint(view, features),
        salts=view.salts,
    )


def _fingerprint(view: StreamFeatureView, features: tuple[PlannedFeature, ...]) -> str:
    """Return 12 hex digits that change when, and only when, what the view means, its ladder or its lateness does."""
    source = view.source
    derived = sorted(
        (name, meaning(f"{view.place}: derive[{name!r}]", expression)) for name, expression in view.derive.items()
    )
    parts: dict[str, object] = {
        "view": view.name,
        "source": [source.name, source.timestamp, source.event_id, source.lateness_us],
        "entity": [view.entity.name, list(view.key_types.items())],
        "where": None if view.where is None else meaning(f"{view.place}: where", view.where),
        "derive": derived,
        "features": sorted(features, key=lambda feature: feature.name),
        "ladder": view.tiles.sizes,
    }
    if view.salts > 1:
        parts["salts"] = view.salts
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]
