"""What a view costs, as people read it."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from rtml_assets.runtime.cost import Cost, Online, Table
from rtml_assets.runtime.cost_estimate import Estimate
from rtml_assets.runtime.describe import side_by_side

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Return a number of bytes in words: `1.2 kB`; thousands, not 1,024s."""
    step = 0
    while abs(count) >= 1_000 and step < len(UNITS) - 1:
        count, step = count / 1_000, step + 1
    return f"{count:,.{min(step, 1)}f} {UNITS[step]}"


def rendered(cost: Cost) -> Group:
    """Return a view's cost as tables."""
    parts: list[RenderableType] = [Text.assemble(("view ", "dim"), (cost.view, "bold cyan"))]
    if cost.online is not None:
        parts += _online(cost, cost.online)
    else:
        parts += _estimates(cost.estimates)
    if cost.lake:
        parts += [Text("\nin the lake", "bold"), _lake(cost.lake)]
    return Group(*parts, *[Text(f"{'' if number else chr(10)}• {words}") for number, words in enumerate(cost.advice)])


def _online(cost: Cost, online: Online) -> list[RenderableType]:
    spread = online.per_entity
    about = "" if online.entities_exact else "about "
    error = f" ± {size(spread.error)}" if spread.error else ""
    facts = {
        "version": online.version,
        "entities": f"{about}{online.entities:,}, of which {online.sampled:,} were measured",
        "an entity": f"{size(spread.mean)}{error}; p50 {size(spread.p50)}, p95 {size(spread.p95)}, "
        f"max {size(spread.max)}",
        "its events": f"{online.events:,.1f}",
        "an event": "–" if online.per_event is None else f"{size(online.per_event)} in Redis",
        "written for an event": "–"
        if online.written_per_event is None
        else f"{size(online.written_per_event)}, where it comes alone",
        f"{cost.entities:,} entities": f"{size(cost.projected or 0)}, at the same pace of events",
    }
    return [
        side_by_side(facts),
        Text("\nan entity's bytes", "bold"),
        _shares("what", online.parts, spread.mean),
        Text("\nits tiles, by size", "bold"),
        _shares("tiles of", online.levels, spread.mean),
        Text("\nits tiles, by the shortest window that needs them", "bold"),
        _shares("window", online.windows, spread.mean),
        *_families(online),
    ]


def _families(online: Online) -> list[RenderableType]:
    if not any(family.bytes for family in online.families):
        return []
    table = _table("state", "bytes", "share", "read by")
    for family in online.families:
        read = ", ".join(family.features[:3]) + (f" and {len(family.features) - 3} more" if family.features[3:] else "")
        table.add_row(family.family, size(family.bytes), _share(family.bytes, online.per_entity.mean), read)
    return [Text("\nits states", "bold"), table]


def _estimates(estimates: list[Estimate]) -> list[RenderableType]:
    table = _table("events a day", "events in reach", "an entity", "an event")
    for one in estimates:
        table.add_row(f"{one.events_per_day:,}", f"{one.events:,}", size(one.bytes), size(one.bytes / one.events))
    return [Text("an estimate from the definition: nothing of it is in Redis to be measured", "yellow"), table]


def _lake(tables: Mapping[str, Table]) -> Grid:
    grid = _table("table", "bytes", "rows", "an event")
    for name, table in tables.items():
        grid.add_row(
            name, size(table.bytes), f"{table.rows:,}", "–" if table.per_event is None else size(table.per_event)
        )
    return grid


def _shares(title: str, parts: Mapping[str, float], total: float) -> Grid:
    table = _table(title, "bytes", "share")
    for name, count in sorted(parts.items(), key=lambda part: -part[1]):
        if count:
            table.add_row(name, size(count), _share(count, total))
    return table


def _share(part: float, total: float) -> str:
    return f"{part / total:.0%}"


def _table(*columns: str) -> Grid:
    table = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < number < 3 or column == "an event" else "left")
    return table
