"""Who has been promised what: the SLA of every source, view and service, with defaults in place of what is left out."""

from __future__ import annotations

from dataclasses import dataclass

from rtml.define.sla import SLA, agreed
from rtml.registry import Registry


@dataclass(frozen=True)
class Agreement:
    """What is watched of a target. `promised` are the names of the bounds that somebody wrote down."""

    target: str
    sla: SLA
    promised: frozenset[str]


def agreements(registry: Registry) -> dict[str, Agreement]:
    """Return what is promised, by target: `source:<name>`, `view:<name>`, `service:<name>`."""
    found: dict[str, Agreement] = {}
    for source in registry.sources.values():
        _add(found, f"source:{source.name}", source.sla, agreed("source", source.sla))
    for view in registry.views.values():
        _add(found, f"view:{view.name}", view.sla, agreed("view", view.sla, view.freshness))
    for service in registry.services.values():
        loosest = max(service.views, key=lambda view: view.freshness_us).freshness
        _add(found, f"service:{service.name}", service.sla, agreed("service", service.sla, loosest))
    return found


def _add(found: dict[str, Agreement], target: str, given: SLA | None, sla: SLA) -> None:
    found[target] = Agreement(target, sla, frozenset(given.promised() if given else ()))
