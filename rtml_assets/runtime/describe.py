"""What definitions mean, for people: windows and their edges, ladders, states, versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rtml import instants
from rtml.define.entity import Entity
from rtml.define.service import FeatureService
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.errors import UnknownNameError
from rtml.instants import Duration, format_duration
from rtml.plan import FORGET_AFTER, RAW_LIMIT, Plan, describe_window
from rtml.registry import Registry
from rtml.values import type_words
from streaming.versions import Version

Live = Callable[[str], Mapping[str, Version]]
"""View → the versions that are served of it, by fingerprint."""


def describe(registry: Registry, name: str | None, live: Live) -> RenderableType:
    """Return what a source, view, service or entity means, or the whole project.

    Raises:
        UnknownNameError: nothing has that name.
    """
    if name is None:
        return project(registry, live)
    if name in registry.services:
        return service(registry.services[name])
    if name in registry.views:
        return view(registry.views[name], registry.plans[name], live(name))
    if name in registry.sources:
        return source(registry.sources[name], registry)
    if name in registry.entities:
        return entity(registry.entities[name], registry)
    known = [*registry.sources, *registry.entities, *registry.views, *registry.services]
    raise UnknownNameError.of("source, entity, view or service", name, known)


def project(registry: Registry, live: Live) -> Tree:
    """Return the tree of all that a project defines: sources, their views, and services."""
    root = Tree(Text("project", style="bold"))
    for item in registry.sources.values():
        branch = root.add(_titled("source", item.name, item.description))
        for child in registry.views_of(item.name):
            plan = registry.plans[child.name]
            leaf = branch.add(_titled("view", child.name, child.description))
            windows = dict.fromkeys(window.label for window in plan.windows)
            leaf.add(f"{_several(len(plan.features), 'feature')} of {_keys(child)} over {', '.join(windows)}")
            leaf.add(_version(plan, live(child.name)))
    for reader in registry.services.values():
        branch = root.add(_titled("service", f"{reader.name} v{reader.version}", reader.description))
        for read in reader.views:
            count = sum(1 for owner, _ in reader.columns if owner is read)
            branch.add(f"{_several(count, 'feature')} of {read.name}")
    return root


def source(item: EventSource, registry: Registry) -> Group:
    """Return what an event source means."""
    last = item.last_day.isoformat() if item.last_day else "today"
    facts = {
        "stream": f"Redis stream {item.stream.name!r}, {_several(item.stream.partitions, 'partition')}",
        "event time": item.timestamp,
        "event id": item.event_id or "none: an event is its place in the stream",
        "lateness": f"{item.lateness}: later events count online at the next compaction",
        "skew": f"{item.skew}: events stamped further ahead of the broker's clock are quarantined",
        "history": f"{item.first_day} to {last}",
        "views": ", ".join(child.name for child in registry.views_of(item.name)) or "none",
        **_ownership(item.owners, item.tags),
    }
    columns = _table("column", "type", "nullable")
    for name, column in item.columns.items():
        columns.add_row(name, str(column.dtype), "yes" if column.nullable else "")
    return Group(_titled("source", item.name, item.description), side_by_side(facts), columns)


def view(item: StreamFeatureView, plan: Plan, live: Mapping[str, Version]) -> Group:
    """Return what a view means: which events count, its windows and their edges, and its version."""
    facts = {
        "source": item.source.name,
        "entity": _keys(item),
        "where": "every event" if item.where is None else str(item.where),
        **{f"derive {name}": str(expression) for name, expression in item.derive.items()},
        "ladder": f"tiles of {' → '.join(format_duration(size) for size in plan.ladder)}; "
        f"up to {RAW_LIMIT} events of an interval are kept raw",
        "states": ", ".join(plan.states.names),
        **_salts(plan),
        "freshness": f"{item.freshness}: values are stale when the stream is further behind",
        "ttl": f"{item.ttl}: values are expired when the entity's last event is older" if item.ttl else "none",
        "kept in Redis": "for ever, as lifetime windows need it"
        if plan.lifetime
        else f"{_sum(plan.longest, plan.lateness, FORGET_AFTER)} after an entity's last event",
        "version": _version(plan, live),
        **_ownership(item.owners, item.tags),
    }
    features = _table("feature", "of", "type", "window [t − w, t)")
    for feature in plan.features:
        window = describe_window(feature.span, plan.tiles)
        if feature.bound is not None:
            window += f"; the value: {feature.bound}"
        features.add_row(feature.name, feature.formula, type_words(feature.output), window)
    return Group(_titled("view", item.name, item.description), side_by_side(facts), features)


def _salts(plan: Plan) -> dict[str, str]:
    if plan.salts == 1:
        return {}
    return {"salts": f"{plan.salts}: an entity is so many partial states, and a read of it so many reads, merged"}


def service(item: FeatureService) -> Group:
    """Return what a service reads."""
    keys = dict.fromkeys(f"{name}=…" for read in item.views for name in read.key_types)
    facts = {
        "version": str(item.version),
        "asked with": f"rtml get {item.name} {' '.join(keys)}",
        "on_stale": _on_stale(item),
        **_training(item),
        **_ownership(item.owners, {}),
    }
    columns = _table("column", "of", "window")
    for owner, name in item.columns:
        columns.add_row(f"{owner.name}__{name}", owner.entity.name, owner.resolved[name].window.label)
    return Group(_titled("service", item.name, item.description), side_by_side(facts), columns)


def _on_stale(item: FeatureService) -> str:
    """Say what becomes of values that are too old."""
    words = {
        "serve": "values that are too old are served, with their status",
        "refuse": "a view that is stale is refused, and what is expired is null",
        "default": "defaults are given for values that are stale or expired: "
        + (", ".join(f"{name}={value}" for name, value in item.defaults.items()) or "those of empty windows"),
    }
    return f"{item.on_stale}: {words[item.on_stale]}"


def _training(item: FeatureService) -> dict[str, str]:
    """Say which rows a service's training set has, and what is to be predicted."""
    if item.training is None:
        return {}
    rows = f"a row for each of {item.training.source.name}"
    told = {"training": rows if item.training.where is None else f"{rows} where {item.training.where}"}
    for label in item.training.labels:
        columns = ", ".join(label.column(name) for name in label.labels)
        told[f"label {label.name}"] = f"{columns}: as {label.source.name} know {label.horizon} later"
    return told


def entity(item: Entity, registry: Registry) -> Group:
    """Return what an entity is, and which views are about it."""
    views = [child for child in registry.views.values() if child.entity.name == item.name]
    facts = {
        "join keys": ", ".join(item.join_keys),
        "views": ", ".join(child.name for child in views) or "none",
        **_ownership(item.owners, {}),
    }
    return Group(_titled("entity", item.name, item.description), side_by_side(facts))


def _version(plan: Plan, live: Mapping[str, Version]) -> str:
    found = live.get(plan.fingerprint)
    if found is None:
        others = ", ".join(other.version for other in live.values())
        return f"{plan.fingerprint} ({f'live is another: {others}' if others else 'not live'})"
    parts: list[str] = [found.state]
    if found.boundary != instants.BEGINNING:
        parts.append(f"history up to {instants.to_text(found.boundary)}")
    return f"{found.version} (live, {', '.join(parts)})"


def _keys(item: StreamFeatureView) -> str:
    return f"{item.entity.name} ({', '.join(item.entity.join_keys)})"


def _ownership(owners: Sequence[str], tags: Mapping[str, str]) -> dict[str, str]:
    facts = {"owners": ", ".join(owners), "tags": ", ".join(f"{key}={value}" for key, value in tags.items())}
    return {name: text for name, text in facts.items() if text}


def _titled(kind: str, name: str, description: str) -> Text:
    title = Text.assemble((f"{kind} ", "dim"), (name, "bold cyan"))
    return title.append(f"  {description}", "italic") if description else title


def side_by_side(known: Mapping[str, str]) -> Table:
    """Return names and what they say, side by side."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, text in known.items():
        table.add_row(Text(name), Text(text))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _sum(*durations: Duration) -> str:
    return " + ".join(format_duration(duration) for duration in durations if duration)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
