"""What the definitions mean against what is served: added, changed, removed, and what the change costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtml.instants import format_duration
from rtml.lake import Lake
from rtml.plan import Plan, describe_window
from rtml.projection import Projection
from rtml.registry import Registry
from rtml_assets.tables.estimate import Cost, cost_of
from streaming.services import Service, read_services
from streaming.versions import live_version

if TYPE_CHECKING:
    from redis import Redis

_STYLES = {"added": "green", "changed": "yellow", "removed": "red"}


class Difference(NamedTuple):
    """One thing that is not as it is served; `old` and `new` are its meaning in words, empty where there is none."""

    kind: str
    service: str
    what: str
    old: str
    new: str


class Diff(NamedTuple):
    """All differences, and what the views cost that are to be backfilled."""

    differences: list[Difference]
    costs: dict[str, Cost]


def diff(client: Redis, lake: Lake, registry: Registry, name: str | None = None) -> Diff:
    """Compare a service's definition, or all, with what is served.

    Raises:
        UnknownNameError: no such service is defined.
    """
    served = read_services(client)
    chosen = [registry.service(name)] if name else list(registry.services.values())
    differences: list[Difference] = []
    for definition in chosen:
        record = Service.of(definition, registry.plans)
        differences += _of_service(client, registry, record, served.get(record.name))
    if name is None:
        gone = [service for service in served if service not in registry.services]
        differences += [
            Difference("removed", service, "service", f"version {served[service].version}", "") for service in gone
        ]
    views = {view.name: view for definition in chosen for view in definition.views}
    read = {(view, fingerprint) for record in served.values() for view, fingerprint in record.fingerprints.items()}
    changed = [view for view in views if (view, registry.plans[view].fingerprint) not in read]
    costs = {view: cost_of(lake, views[view], registry.plans[view]) for view in changed}
    return Diff(differences, {view: cost for view, cost in costs.items() if cost.days})


def _of_service(client: Redis, registry: Registry, new: Service, old: Service | None) -> Iterator[Difference]:
    if old is None:
        yield Difference("added", new.name, "service", "", f"version {new.version}, {len(new.columns)} features")
        return
    if old.version != new.version:
        yield Difference("changed", new.name, "version", str(old.version), str(new.version))
    yield from _changes(new.name, "reads", dict.fromkeys(old.names, "yes"), dict.fromkeys(new.names, "yes"))
    for view, fingerprint in new.fingerprints.items():
        if old.fingerprints.get(view, fingerprint) == fingerprint:
            continue
        former = live_version(client, view, old.fingerprints[view])
        plan = registry.plans[view]
        if former is None:
            yield Difference("changed", new.name, f"view {view}", f"{old.fingerprints[view]}, given up", fingerprint)
            continue
        meant = _meaning(former.plan, former.projection)
        yield from _changes(new.name, view, meant, _meaning(plan, Projection.of(registry.views[view])))


def _changes(service: str, where: str, old: dict[str, str], new: dict[str, str]) -> Iterator[Difference]:
    for what in dict.fromkeys([*old, *new]):
        before, after = old.get(what, ""), new.get(what, "")
        if before != after:
            kind = "added" if not before else "removed" if not after else "changed"
            yield Difference(kind, service, f"{where}: {what}", before, after)


def _meaning(plan: Plan, projection: Projection | None) -> dict[str, str]:
    """Return what a fingerprint covers, in words."""
    facts = {
        "source": plan.source,
        "entity": f"{plan.entity} ({', '.join(plan.key_names)})",
        "lateness": format_duration(plan.lateness) if plan.lateness else "none",
        "tiles": ", ".join(format_duration(size) for size in plan.ladder),
    }
    if plan.salts > 1:
        facts["salts"] = str(plan.salts)
    if projection is not None:
        facts["event time"] = projection.timestamp
        facts["where"] = "every event" if projection.where is None else _shown(projection.where)
        facts |= {f"derive {name}": _shown(text) for name, text in projection.derive.items()}
    for feature in plan.features:
        facts[feature.name] = f"{feature.formula} over {describe_window(feature.span, plan.tiles)}"
    return facts


def _shown(text: str) -> str:
    try:
        return str(pl.Expr.deserialize(text.encode(), format="json"))
    except (pl.exceptions.PolarsError, ValueError):
        return text


def rendered(found: Diff) -> RenderableType:
    """Return the differences as a table, with what is to be done."""
    if not found.differences:
        return Text("all services are served as they are defined", "green")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("service", "", "what", "served", "defined"):
        table.add_column(column, overflow="fold")
    for one in found.differences:
        table.add_row(one.service, Text(one.kind, _STYLES[one.kind]), one.what, Text(one.old), Text(one.new))
    return Group(table, Text(), *_steps(found))


def _steps(found: Diff) -> Iterator[Text]:
    """Say what takes the definitions from here to being served."""
    yield Text("rtml deploy").append("   # unless the processes have loaded them already", "dim")
    for view, cost in found.costs.items():
        yield Text(f"rtml backfill {view}").append(f"   # {cost}", "dim")
    for service in dict.fromkeys(one.service for one in found.differences):
        gone = any(
            one.what == "service" and one.kind == "removed" for one in found.differences if one.service == service
        )
        yield Text(f"rtml {'retire' if gone else 'promote'} {service}")
