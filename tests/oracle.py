"""The brute-force truth: plain Python over a list of events, one window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rtml.algebra.family import Parameters
from tests import oracle_sketches

Value = Any


@dataclass(frozen=True)
class Event:
    """One event as it was sent; times in microseconds."""

    key: str
    time: int
    id64: int
    ingested: int
    values: Mapping[str, Any]
    published: int = 2**63 - 1
    """Of a late event: when it became servable; the last instant when it never did."""


def counted(events: Iterable[Event], lateness: int, *, late_too: bool = False) -> list[Event]:
    """Of duplicates the one that arrived first; late ones only where they count."""
    first: dict[tuple[int, int], Event] = {}
    for event in events:
        known = first.get((event.time, event.id64))
        if known is None or event.ingested < known.ingested:
            first[event.time, event.id64] = event
    return [event for event in first.values() if late_too or event.ingested - event.time <= lateness]


def known(events: Iterable[Event], lateness: int, seen: int, seen_late: int) -> list[Event]:
    """What a reader counts who has seen on-time events up to one instant, and published late ones up to another."""
    found = []
    for event in events:
        late = event.ingested - event.time > lateness
        known_at = event.published if late else event.ingested
        if known_at <= (seen_late if late else seen):
            found.append(event)
    return found


def window(events: Iterable[Event], key: str, at: int, length: int, floor: int = 1, offset: int = 0) -> list[Event]:
    """The events of an entity in `[at - length, at)`, with the left edge floored; with an offset both edges are."""
    start, end = (at - offset - length) // floor * floor, (at - offset) // floor * floor if offset else at
    return sorted((e for e in events if e.key == key and start <= e.time < end), key=lambda e: (e.time, e.id64))


def value(aggregate: str, events: list[Event], column: str, parameters: Parameters = ()) -> Value:
    """An aggregate of some events, in order."""
    if aggregate == "count":
        return len(events)
    values: list[Any] = [event.values[column] for event in events if event.values[column] is not None]
    if oracle_sketches.knows(aggregate):
        return oracle_sketches.value(aggregate, values, parameters)
    if not values or (aggregate in ("variance", "stddev") and len(values) < 2):
        return None
    mean = math.fsum(values) / len(values)
    if aggregate in ("variance", "stddev"):
        variance = math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)
        return math.sqrt(variance) if aggregate == "stddev" else variance
    answers: dict[str, Value] = {
        "sum": sum(values) if isinstance(values[0], int) else math.fsum(values),
        "mean": mean,
        "min": min(values),
        "max": max(values),
        "first": values[0],
        "last": values[-1],
    }
    return answers[aggregate]


def agree(
    aggregate: str, got: Value, expected: Value, events: list[Event], column: str, parameters: Parameters = ()
) -> bool:
    """Whether two values are the same, to the tolerance of design §7."""
    if oracle_sketches.knows(aggregate):
        values = [event.values[column] for event in events if event.values[column] is not None]
        return oracle_sketches.agree(aggregate, got, values, parameters)
    if got is None or expected is None or aggregate in ("count", "min", "max", "first", "last"):
        return got == expected
    size = sum(abs(e.values[column] or 0) for e in events)
    if aggregate == "sum":
        return got == expected if isinstance(expected, int) else abs(got - expected) <= 1e-9 * size
    if aggregate == "mean":
        return abs(got - expected) <= 1e-9 * size / max(len(events), 1) + 1e-12 * abs(expected)
    # Numbers of size x are themselves only known to x · 2⁻⁵³: a spread below that is noise.
    noise = max((abs(e.values[column] or 0) for e in events), default=0) * 1e-12
    return abs(got - expected) <= 1e-6 * abs(expected) + (noise if aggregate == "stddev" else noise**2 + noise * 1e-3)


def servable(event: Event, lateness: int, at: int, published: int | None) -> bool:
    """Whether serving had an event at an instant: on time from its arrival on, late from its publication on."""
    if event.ingested - event.time <= lateness:
        return event.ingested <= at
    return published is not None and published <= at


def label(events: Iterable[Event], key: str, at: int, horizon: int) -> Event | None:
    """The last event in `[at, at + horizon)` that had arrived by its end."""
    end = at + horizon
    found = [e for e in events if e.key == key and at <= e.time < end and e.ingested <= end]
    return max(found, key=lambda e: (e.time, e.id64), default=None)
