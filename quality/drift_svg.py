"""Small pictures of drift as SVG: bars now over bars then, and a line of what a measure was day by day."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from quality.bins import Histogram

NOW, THEN = "#2f81d8", "#9aa3ad"
"""Colours that show on white and on black: pictures in the Dagster UI know nothing of its theme."""
_BAR_HEIGHT, _BAR_WIDTH = 60.0, 10


def bars(found: Histogram, words: str) -> str:
    """Return a histogram for a page, styled by the classes `now` and `then`; each bar says its numbers when pointed at.

    Args:
        found: the shares.
        words: what the picture shows, for those who do not see it.
    """
    count = len(found.now)
    if not count:
        return '<p class="soft">no values</p>'
    top = max(*found.now, *found.then)
    pairs = "".join(_pair(found, place, top) for place in range(count))
    return (
        f'<svg role="img" aria-label="{escape(words)}" viewBox="0 0 {count * _BAR_WIDTH} {_BAR_HEIGHT:g}" '
        f'preserveAspectRatio="none">{pairs}</svg>'
    )


def _pair(found: Histogram, place: int, top: float) -> str:
    """Return both bars of a place: what was then in full width, and now in front of it."""
    left = place * _BAR_WIDTH
    name = f"{found.labels[place]}: " if found.is_of_values else ""
    told = f"{name}now {found.now[place]:.1%}, then {found.then[place]:.1%}"
    then, now = (_BAR_HEIGHT * share / top for share in (found.then[place], found.now[place]))
    return (
        f"<g><title>{escape(told)}</title>"
        f'<rect class="reach" x="{left}" y="0" width="{_BAR_WIDTH}" height="{_BAR_HEIGHT:g}"/>'
        f'<rect class="then" x="{left}" y="{_BAR_HEIGHT - then:.1f}" width="{_BAR_WIDTH}" height="{then:.1f}"/>'
        f'<rect class="now" x="{left + 2.5}" y="{_BAR_HEIGHT - now:.1f}" width="{_BAR_WIDTH - 5}" height="{now:.1f}"/>'
        "</g>"
    )


def line(values: Sequence[float | None], bound: float, words: str) -> str:
    """Return a line through a measure's values, oldest first, with its bound dashed; empty where there are not two."""
    drawn = _drawn(values, bound, 120, 24)
    if not drawn:
        return ""
    segments, level = drawn
    return (
        f'<svg class="line" role="img" aria-label="{escape(words)}" viewBox="0 0 120 24">'
        f'<path class="bound" d="M0 {level:.1f}H120"/><path class="trend" d="{segments}"/></svg>'
    )


def tiny_bars(found: Histogram) -> str:
    """Return a histogram as a data URI of a few hundred bytes: a filled outline then, a line now."""
    count = len(found.now)
    if not count:
        return ""
    top = max(*found.now, *found.then)
    step = 72 / count
    then, now = (_outline(side, step, top) for side in (found.then, found.now))
    shapes = f'<path fill="{THEN}" d="M0 18{then}V18Z"/><path fill="none" stroke="{NOW}" d="M0 18{now}V18"/>'
    return _uri(72, 18, shapes)


def tiny_line(values: Sequence[float | None], bound: float) -> str:
    """Return the line of a measure as a data URI; empty where there are not two values."""
    drawn = _drawn(values, bound, 72, 18)
    if not drawn:
        return ""
    segments, level = drawn
    shapes = f'<path stroke="{THEN}" stroke-dasharray="3" d="M0 {level:.1f}H72"/>'
    return _uri(72, 18, f'{shapes}<path fill="none" stroke="{NOW}" d="{segments}"/>')


def _outline(shares: Sequence[float], step: float, top: float) -> str:
    return "".join(f"V{18 - 17 * share / top:.0f}H{(place + 1) * step:.0f}" for place, share in enumerate(shares))


def _drawn(values: Sequence[float | None], bound: float, width: int, height: int) -> tuple[str, float] | None:
    """Return the path of a line, broken where there is no value, and the height of its bound."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    top = max(*known, bound if bound < float("inf") else 0.0) * 1.1 or 1.0
    step = (width - 2) / (len(values) - 1)
    points = [
        None if value is None else f"{1 + place * step:.1f} {height - (height - 1) * value / top:.1f}"
        for place, value in enumerate(values)
    ]
    moves = [f"{'L' if before else 'M'}{point}" for before, point in pairwise([None, *points]) if point]
    return "".join(moves), max(0.0, height - (height - 1) * min(bound / top, 1.0))


def _uri(width: int, height: int, shapes: str) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{shapes}</svg>'
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
