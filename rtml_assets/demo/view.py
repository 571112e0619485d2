"""One frame of the demo's terminal view."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rtml import instants
from rtml.instants import HOUR, SECOND
from rtml_assets.runtime.online import STATUS_STYLES, format_value
from serving.features import FeatureVectors

FLIGHTS: list[dict[str, str]] = [
    {"origin": "JFK", "carrier": "B6", "dest": "LAX", "route": "JFK-LAX"},
    {"origin": "EWR", "carrier": "UA", "dest": "ORD", "route": "EWR-ORD"},
    {"origin": "LGA", "carrier": "DL", "dest": "ATL", "route": "LGA-ATL"},
]
"""One flight from each of New York's airports: what is shown is what a model would read before its take-off."""

FEATURES = (
    "origin_departures__count_30m",
    "origin_departures__count_24h",
    "origin_departures__dep_delay_mean_30m",
    "origin_departures__dep_delay_mean_3h",
    "origin_departures__dep_delay_max_3h",
    "origin_departures__late_share_3h",
    "origin_departures__cancelled_share_24h",
    "carrier_departures__dep_delay_mean_3h",
    "route_arrivals__arr_delay_mean_7d",
    "route_arrivals__made_up_mean_24h",
    "destination_arrivals__arr_delay_mean_3h",
)

WIDTH = 118


class Frame(NamedTuple):
    """All that one frame shows."""

    speed: float
    sent: dict[str, int]
    total: int
    rates: dict[str, float]
    figures: dict[tuple[str, str], dict[str, float]]
    served: FeatureVectors | None
    trouble: str
    restarts: int
    home: str
    server_url: str
    dagster_url: str


def render(frame: Frame) -> RenderableType:
    """Return a frame, 25 lines high."""
    return Panel(
        Group(_clock(frame), "", _streams(frame), "", _features(frame), "", _links(frame)),
        title="[bold]rtml demo[/] · New York, 2013",
        title_align="left",
        border_style="cyan",
        width=WIDTH,
    )


def _clock(frame: Frame) -> Table:
    sent = sum(frame.sent.values())
    table = Table.grid(padding=(0, 2))
    table.add_row(
        Text(_present(frame.served), "bold"),
        Text(f"{_pace(frame.speed)} a second" if sent < frame.total else "March is through", "dim"),
        ProgressBar(total=frame.total, completed=sent, width=24),
        Text(f"{sent:,} of {frame.total:,} events", "dim"),
    )
    return table


def _streams(frame: Frame) -> Table:
    table = _table()
    table.add_column("stream", style="cyan", no_wrap=True)
    for name in ("events", "a second", "late", "refused", "fresh p50", "p99", "lag", "to the lake p99"):
        table.add_column(name, justify="right")
    for source, count in frame.sent.items():
        tiles, mirror = frame.figures[source, "tiles"], frame.figures[source, "mirror"]
        table.add_row(
            source,
            f"{count:,}",
            f"{frame.rates[source]:,.0f}",
            f"{tiles.get('late', 0):,.0f}",
            f"{mirror.get('refused', 0):,.0f}",
            _milliseconds(tiles.get("freshness_p50_ms")),
            _milliseconds(tiles.get("freshness_p99_ms")),
            _milliseconds(tiles.get("lag_ms")),
            _milliseconds(mirror.get("freshness_p99_ms")),
        )
    return table


def _features(frame: Frame) -> RenderableType:
    if frame.served is None or frame.trouble:
        return Text(frame.trouble or "no features yet", "yellow")
    table = _table()
    table.add_column("feature, as a model reads it", no_wrap=True)
    for flight in FLIGHTS:
        table.add_column(f"{flight['origin']} → {flight['dest']}, {flight['carrier']}", justify="right", min_width=15)
    places = {name: place for place, name in enumerate(frame.served.features)}
    for name in FEATURES:
        view, feature = name.split("__")
        values = [
            Text(format_value(row[places[name]]), STATUS_STYLES[status] if status != "fresh" else "")
            for row, status in zip(frame.served.rows, frame.served.status[view], strict=True)
        ]
        table.add_row(Text.assemble((f"{view}  ", "dim"), feature), *values)
    return table


def _links(frame: Frame) -> Table:
    flight = " ".join(f"{key}={value}" for key, value in FLIGHTS[0].items())
    table = Table.grid(padding=(0, 2))
    table.add_row("[dim]Dagster", f"{frame.dagster_url}    [dim]API[/]  {frame.server_url}/docs")
    table.add_row("[dim]ask it", f"RTML_HOME={frame.home} {command()} get eta {flight} --edge watermark")
    table.add_row("[dim]stop", "Ctrl-C" + _restarted(frame.restarts))
    return table


def command() -> str:
    """Return how `rtml` is called from here."""
    return "rtml" if shutil.which("rtml") else os.path.relpath(Path(sys.executable).with_name("rtml"))


def _restarted(count: int) -> str:
    return f"    [yellow]{count} processes ended and were started again; see the logs[/]" if count else ""


def _present(served: FeatureVectors | None) -> str:
    if served is None:
        return "not yet"
    return f"{instants.to_datetime(served.at):%a %d %B %H:%M} UTC"


def _pace(speed: float) -> str:
    return instants.format_duration(round(speed) * SECOND) if speed < HOUR / SECOND else f"{speed * SECOND / HOUR:.3g}h"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f} ms" if value < 1_000 else f"{value / 1_000:,.1f} s"


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
