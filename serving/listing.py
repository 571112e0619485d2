"""What a server offers: its services, their columns and views, as the snapshot has them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rtml import instants
from rtml.edges import bound_of
from rtml.plan import Plan, describe_window
from rtml.staleness import OnStale
from rtml.values import type_words
from serving.state import Snapshot
from streaming.services import Service

_KEY_TYPES = {"str": "string", "int": "integer", "bool": "boolean"}


class ListedColumn(msgspec.Struct):
    """One feature of a service. What is null is known once its view is served."""

    name: Annotated[str, Meta(description="As in an answer's `features`.")]
    view: str
    type: Annotated[
        str | None, Meta(description="`float`, `integer` or `string`; of lists also how long they may be.")
    ] = None
    aggregate: str | None = None
    column: Annotated[str | None, Meta(description="What is aggregated; null for a count of events.")] = None
    window: Annotated[str | None, Meta(description="How far back it looks, and how its edges are cut.")] = None
    bound: Annotated[str | None, Meta(description="By how much it may be off; null where it is always exact.")] = None


class ListedView(msgspec.Struct):
    """One view that a service reads."""

    name: str
    ready: bool
    version: Annotated[str | None, Meta(description="The version that is served; null when there is none.")]
    expected: Annotated[str, Meta(description="The fingerprint that the service was defined with.")]
    entity: str | None = None
    keys: Annotated[dict[str, str], Meta(description="Join keys and their types.")] = {}
    source: str | None = None
    watermark: Annotated[str | None, Meta(description="Up to where it is servable, RFC 3339.")] = None


class ListedService(msgspec.Struct):
    """One feature service."""

    name: str
    version: int
    description: str
    ready: Annotated[bool, Meta(description="Whether all of its views are.")]
    keys: Annotated[dict[str, str], Meta(description="What every entity of a request must name, and the types.")]
    on_stale: Annotated[
        OnStale,
        Meta(
            description="What becomes of values older than a view's freshness or ttl. `serve`: nothing, but for their "
            "status. `refuse`: a stale view is a 503, the features of an expired entity are null. `default`: stale and "
            "expired ones are given as `defaults`."
        ),
    ]
    defaults: Annotated[dict[str, Any], Meta(description="By column; without one, the value of an empty window.")]
    columns: list[ListedColumn]
    views: list[ListedView]


class Listing(msgspec.Struct):
    """All feature services, by name."""

    services: list[ListedService]


def listing(snapshot: Snapshot) -> Listing:
    """Return what a server offers."""
    return Listing([_service(snapshot, service) for _, service in sorted(snapshot.services.items())])


def _service(snapshot: Snapshot, service: Service) -> ListedService:
    views = [_view(snapshot, name, expected) for name, expected in service.fingerprints.items()]
    fingerprints = service.fingerprints
    plans = {view.name: snapshot.live[view.name][fingerprints[view.name]].plan for view in views if view.ready}
    return ListedService(
        name=service.name,
        version=service.version,
        description=service.description,
        ready=all(view.ready for view in views),
        keys={key: kind for view in views for key, kind in view.keys.items()},
        on_stale=service.on_stale,
        defaults=service.defaults,
        columns=[_column(view, feature, plans.get(view)) for view, feature in service.columns],
        views=views,
    )


def _view(snapshot: Snapshot, name: str, expected: str) -> ListedView:
    version = snapshot.version(name, expected)
    if version is None:
        others = ", ".join(other.version for other in snapshot.live.get(name, {}).values())
        return ListedView(name, ready=False, version=others or None, expected=expected)
    plan, reach = version.plan, snapshot.reach(version)
    return ListedView(
        name,
        ready=version.state == "ready",
        version=version.version,
        expected=expected,
        entity=plan.entity,
        keys={key: _KEY_TYPES[kind] for key, kind in plan.keys},
        source=plan.source,
        watermark=None if reach == instants.BEGINNING else instants.to_text(reach),
    )


def _column(view: str, feature: str, plan: Plan | None) -> ListedColumn:
    name = f"{view}__{feature}"
    if plan is None:
        return ListedColumn(name, view)
    planned = plan.feature(feature)
    return ListedColumn(
        name,
        view,
        type=type_words(planned.output),
        aggregate=planned.called,
        column=planned.column or None,
        window=describe_window(planned.span, plan.tiles),
        bound=bound_of(planned, plan.tiles.finest),
    )
