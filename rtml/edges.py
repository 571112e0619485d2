"""What a value really covers: its window's edges at an instant, and by how much they or the value itself may be off."""

from __future__ import annotations

from typing import NamedTuple

from rtml.instants import Duration, Instant, format_duration
from rtml.plan import PlannedFeature


class Edges(NamedTuple):
    """`[start, end)` of one answer, and what is inexact about it."""

    start: Instant | None
    """None of a lifetime window."""
    end: Instant
    exact: bool
    """Whether the value is that of the very window that the feature is called after."""
    bound: str | None
    """By how much it may be off where it is not."""


def edges_of(feature: PlannedFeature, finest: Duration, at: Instant) -> Edges:
    """Return what a feature covers at an instant."""
    window = feature.span
    start, end = window.edges(at, finest)
    kept = start == at - window.reach and end == at - window.offset
    exact = kept and feature.bound is None
    return Edges(None if window.lifetime else start, end, exact, None if exact else bound_of(feature, finest))


def bound_of(feature: PlannedFeature, finest: Duration) -> str | None:
    """Return by how much a feature may be off at any instant, in words; None where it is exact at all of them."""
    parts = [part for part in (window_bound(feature, finest), feature.bound) if part is not None]
    return "; ".join(parts) or None


def window_bound(feature: PlannedFeature, finest: Duration) -> str | None:
    """Return the same of its window alone."""
    window = feature.span
    if window.exact:
        return None
    if window.offset:
        return f"the window lies up to {format_duration(finest)} earlier"
    return f"the window counts up to {format_duration(finest)} more"
