"""The brute-force truth: plain Python over a list of events, one window at a time."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, product
from typing import Any

from rtml.instants import parse_duration
from tests import oracle_sketches

Value = Any
Window = tuple[int, int]
"""A window's edges."""
LISTS = ("first_n", "last_n", "last_distinct_n")
DECAYED = ("decayed_count", "decayed_sum", "decayed_mean")
LEAST = sys.float_info.min
"""The least number that has all digits of a float: decay goes on below it, and loses them."""


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


def mixtures(truths: Iterable[Sequence[Event]], key: str, salts: int = 1) -> Iterator[list[Event]]:
    """Of an entity, what a reader may count amid publications: each partial state has one truth, whichever."""
    partials: list[list[list[Event]]] = [[] for _ in range(salts)]
    for truth in truths:
        own = [event for event in truth if event.key == key]
        for salt, found in enumerate(partials):
            part = [event for event in own if event.id64 % salts == salt]
            if part not in found:
                found.append(part)
    return (list(chain(*chosen)) for chosen in product(*partials))


def edges(at: int, length: int, floor: int = 1, offset: int = 0) -> Window:
    """A window's edges: the left one floored, with an offset both."""
    return (at - offset - length) // floor * floor, (at - offset) // floor * floor if offset else at


def window(events: Iterable[Event], key: str, at: int, length: int, floor: int = 1, offset: int = 0) -> list[Event]:
    """The events of an entity between a window's edges, in order."""
    start, end = edges(at, length, floor, offset)
    return sorted((e for e in events if e.key == key and start <= e.time < end), key=lambda e: (e.time, e.id64))


def value(
    aggregate: str,
    events: list[Event],
    column: str,
    parameters: Mapping[str, Any] | None = None,
    edges: Window = (0, 1),
) -> Value:
    """An aggregate of some events, in order; `edges` are those of the window that holds them."""
    given = {"n": 5, "half_life": 3_600_000_000, **(parameters or {})}
    if aggregate == "count":
        return len(events)
    if aggregate == "rate":
        return len(events) / ((edges[1] - edges[0]) / 1_000_000)
    if aggregate == "decayed_count":
        return math.fsum(_weight(event, edges[1], given["half_life"]) for event in events)
    valued = [event for event in events if event.values[column] is not None]
    values: list[Any] = [event.values[column] for event in valued]
    if oracle_sketches.knows(aggregate):
        return oracle_sketches.value(aggregate, values, tuple((parameters or {}).items()))
    if aggregate in LISTS:
        return _listed(aggregate, values, given["n"])
    if aggregate in DECAYED:
        return _decayed(aggregate, valued, column, edges[1], given["half_life"])
    if len(values) < {"variance": 2, "stddev": 2, "skew": 3, "kurtosis": 4}.get(aggregate, 1):
        return None
    if aggregate in ("variance", "stddev", "skew", "kurtosis"):
        return _spread(aggregate, values)
    if aggregate in ("first", "last"):
        end: Value = values[0] if aggregate == "first" else values[-1]
        return end
    total = sum(values) if isinstance(values[0], int) else math.fsum(values)
    answers: dict[str, Value] = {
        "sum": total,
        "mean": math.fsum(values) / len(values),
        "share": math.fsum(values) / len(values),
        "sum_rate": total / ((edges[1] - edges[0]) / 1_000_000),
        "min": min(values),
        "max": max(values),
    }
    return answers[aggregate]


def _listed(aggregate: str, values: list[Any], n: int) -> list[Any]:
    if aggregate == "first_n":
        return values[:n]
    found: list[Any] = []
    for one in reversed(values):
        if aggregate == "last_n" or one not in found:
            found.append(one)
    return found[:n]


def _weight(event: Event, at: int, half_life: str | int) -> float:
    """What is left of an event at an instant."""
    micros = parse_duration(half_life) if isinstance(half_life, str) else half_life
    return math.pow(2.0, -(at - event.time) / micros)


def _decayed(aggregate: str, events: list[Event], column: str, at: int, half_life: str | int) -> Value:
    if not events:
        return None
    # Of a mean, weights may be measured from any instant: from the newest event, none of them vanishes.
    at = events[-1].time if aggregate == "decayed_mean" else at
    weights = [_weight(event, at, half_life) for event in events]
    total = math.fsum(weight * event.values[column] for weight, event in zip(weights, events, strict=True))
    return total if aggregate == "decayed_sum" else total / math.fsum(weights)


def _spread(aggregate: str, values: list[Any]) -> Value:
    """Variance, and from central moments the skewness and kurtosis of the sample."""
    if aggregate in ("skew", "kurtosis"):
        return _shape(aggregate, [float(x) for x in values])
    n, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((x - mean) ** 2 for x in values) / (n - 1)
    return math.sqrt(variance) if aggregate == "stddev" else variance


def _shape(aggregate: str, values: list[float]) -> Value:
    """In exact fractions: their powers neither cancel nor overflow."""
    if min(values) == max(values):
        return None
    n = len(values)
    exact = [Fraction(x) for x in values]
    mean = sum(exact, Fraction(0)) / n
    scale = max(abs(x - mean) for x in exact)
    apart = [float((x - mean) / scale) for x in exact]
    m2, m3, m4 = (math.fsum(x**power for x in apart) / n for power in (2, 3, 4))
    if aggregate == "skew":
        return m3 / m2**1.5 * math.sqrt(n * (n - 1)) / (n - 2)
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6)


EXACT = ("count", "rate", "min", "max", "first", "last", *LISTS)


def agree(
    aggregate: str,
    got: Value,
    expected: Value,
    events: list[Event],
    column: str,
    parameters: Mapping[str, Any] | None = None,
    edges: Window = (0, 1),
) -> bool:
    """Whether two values are the same, to the tolerance of design §7."""
    if oracle_sketches.knows(aggregate):
        valued = [event.values[column] for event in events if event.values[column] is not None]
        return oracle_sketches.agree(aggregate, got, valued, tuple((parameters or {}).items()))
    if got is None or expected is None or aggregate in EXACT:
        return got == expected
    assert not isinstance(got, list)
    assert not isinstance(expected, list)
    if aggregate == "decayed_count":
        return abs(got - expected) <= 1e-9 * expected + LEAST
    sizes = [abs(event.values[column] or 0) for event in events]
    if aggregate in ("sum", "sum_rate"):
        if aggregate == "sum" and isinstance(expected, int):
            return got == expected
        seconds = (edges[1] - edges[0]) / 1_000_000 if aggregate == "sum_rate" else 1
        return abs(got - expected) <= 1e-9 * sum(sizes) / seconds
    if aggregate in ("mean", "share"):
        return abs(got - expected) <= 1e-9 * sum(sizes) / max(len(events), 1) + 1e-12 * abs(expected)
    if aggregate in ("decayed_sum", "decayed_mean"):
        valued = [event for event in events if event.values[column] is not None]
        absolute = [replace(event, values={column: abs(event.values[column])}) for event in valued]
        size = value(aggregate, absolute, column, parameters, edges)
        assert isinstance(size, float)
        return abs(got - expected) <= 1e-9 * size + LEAST
    # Numbers of size x are themselves only known to x · 2⁻⁵³: a spread below that is noise.
    noise = max(sizes, default=0) * 1e-12
    if aggregate in ("skew", "kurtosis"):
        return _same_shape(got, expected, [e.values[column] for e in events if e.values[column] is not None], noise)
    return abs(got - expected) <= 1e-6 * abs(expected) + (noise if aggregate == "stddev" else noise**2 + noise * 1e-3)


def _same_shape(got: float, expected: float, values: list[Any], noise: float) -> bool:
    """Whether two shapes are the same to what each distance from the mean is known to."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values))
    if deviation <= noise:
        return True
    apart = noise / deviation
    return abs(got - expected) <= (1e-6 + 100 * apart) * (abs(expected) + 10)


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
