"""The watch's last looks, thinned to as many as a chart has room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from rtml.instants import SECOND, Duration, Instant

SLOTS = 360
"""So many points has a chart at most."""

Figures = dict[str, list[float | None]]


class History(msgspec.Struct):
    """What was plotted of the last looks, oldest first. Of the looks that share a point it shows the worst."""

    at: Annotated[list[Instant], Meta(description="When each point begins, microseconds since 1970.")]
    step_ms: Annotated[float, Meta(description="How much time a point stands for.")]
    series: Annotated[
        dict[str, Figures],
        Meta(description="By target (`source:departures`, …) and figure: one value a point, null where none."),
    ]


class _Point(msgspec.Struct):
    """A look as the watch keeps it; what else it has is passed over."""

    at: Instant
    alerts: float | None = None
    sources: dict[str, dict[str, Any]] = {}
    views: dict[str, dict[str, Any]] = {}
    services: dict[str, dict[str, Any]] = {}
    left: dict[str, float] = {}


class _Value(NamedTuple):
    target: str
    figure: str
    value: float


def thinned(points: Sequence[bytes], start: Instant, end: Instant) -> History:
    """Return the looks from `start` to `end` in at most `SLOTS` points of whole seconds."""
    step: Duration = max(1, -(-(end - start) // (SLOTS * SECOND))) * SECOND
    # On a grid of its own, a point stays the same whenever it is asked for.
    first = start // step * step
    count = (end - first) // step + 1
    series: dict[str, Figures] = {}
    for body in points:
        point = msgspec.json.decode(body, type=_Point)
        if not start <= point.at <= end:
            continue
        slot = (point.at - first) // step
        for target, figure, value in _values(point):
            values = series.setdefault(target, {}).setdefault(figure, [None] * count)
            known = values[slot]
            # Of what is left of a budget the least is the worst.
            worst = min if figure.startswith("left ") else max
            values[slot] = value if known is None else worst(known, value)
    return History([first + slot * step for slot in range(count)], step / 1_000, series)


def _values(point: _Point) -> Iterator[_Value]:
    if point.alerts is not None:
        yield _Value("platform", "alerts", point.alerts)
    for kind, targets in (("source", point.sources), ("view", point.views), ("service", point.services)):
        for name, figures in targets.items():
            for figure, value in figures.items():
                if isinstance(value, int | float):
                    yield _Value(f"{kind}:{name}", figure, value)
    for objective, left in point.left.items():
        target, _, name = objective.partition(" ")
        yield _Value(target, f"left {name}", left)
