"""Random histories and spines for the point-in-time engine, as plain Python and as the frames that it takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rtml.algebra import catalog
from rtml.algebra.family import Kind, Parameters
from rtml.columns import KEY_TYPES
from rtml.instants import BEGINNING, SECOND
from rtml.plan import Plan, PlannedFeature
from rtml.tiles import LIFETIME, Window
from tests.oracle import Event

END = 2**63 - 1
FINEST = 10 * SECOND
LATENESS = 20 * SECOND
SPAN = 600 * SECOND
WINDOWS = [
    *(Window(60 * SECOND, exact=False), Window(300 * SECOND, exact=True), Window(7 * SECOND, exact=True)),
    *(Window(LIFETIME, exact=True), Window(50 * SECOND, exact=False, offset=120 * SECOND)),
]
KEYS: dict[str, Sequence[Any]] = {"str": ["", "a", "é"], "int": [-(2**63), 7, 2**63 - 1], "bool": [True, False]}
SHORT: dict[str, Parameters] = {
    "first_n": (("n", 3),),
    "last_n": (("n", 7),),
    "last_distinct_n": (("n", 2),),
    **dict.fromkeys(("decayed_count", "decayed_sum", "decayed_mean"), (("half_life", "20s"),)),
}
"""Parameters that matter for histories so short."""


def plan_of(kinds: Sequence[str], windows: Sequence[Sequence[int]], aggregates: Sequence[str]) -> Plan:
    """A plan with every one of some aggregates over a float lane `x` and an integer lane `i`."""
    features = []
    for number, given in enumerate(windows):
        length, exact, *more = given
        offset = more[0] if more else 0
        for aggregate in aggregates:
            lanes: list[tuple[str, Kind]] = [("x", "f64"), ("i", "i64")]
            if not catalog.aggregate(aggregate).takes_column:
                lanes = [("", "i64")]
            features += [
                PlannedFeature(
                    *(f"{aggregate}_{column}_{number}", aggregate, column, kind, length, bool(exact)),
                    SHORT.get(aggregate, ()),
                    offset,
                )
                for column, kind in lanes
            ]
    keys = tuple((f"k{number}", kind) for number, kind in enumerate(kinds))
    return Plan("v", "s", 1, "e", keys, tuple(features), (FINEST, 6 * FINEST), LATENESS, 0, 1, None, "f")


@dataclass(frozen=True)
class Row:
    """One row of a spine."""

    key: tuple[Any, ...]
    at: int
    seen: int
    seen_late: int


def event_frame(plan: Plan, events: Sequence[tuple[tuple[Any, ...], Event]], origin: int = 0) -> pl.DataFrame:
    """Events as the engine takes them."""
    columns: dict[str, list[Any]] = {name: [key[n] for key, _ in events] for n, name in enumerate(plan.key_names)}
    late = [event.ingested - event.time > LATENESS for _, event in events]
    columns |= {
        "event_time": [event.time + origin for _, event in events],
        "ingested_at": [event.ingested + origin for _, event in events],
        "id64": [event.id64 for _, event in events],
        **{lane: [event.values[lane] for _, event in events] for lane in ("x", "i")},
        "known_at": [
            moved(event.published if behind else event.ingested, origin)
            for (_, event), behind in zip(events, late, strict=True)
        ],
        "late": late,
    }
    schema: dict[str, Any] = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    schema |= {"event_time": pl.Int64(), "ingested_at": pl.Int64(), "id64": pl.UInt64(), "x": pl.Float64()}
    return pl.DataFrame(columns, schema={**schema, "i": pl.Int64(), "known_at": pl.Int64(), "late": pl.Boolean()})


def spine_frame(plan: Plan, rows: Sequence[Row]) -> pl.DataFrame:
    """A spine as the engine takes it."""
    columns: dict[str, list[Any]] = {name: [row.key[n] for row in rows] for n, name in enumerate(plan.key_names)}
    columns |= {name: [getattr(row, name) for row in rows] for name in ("at", "seen", "seen_late")}
    schema: dict[str, Any] = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    return pl.DataFrame(columns, schema={**schema, "at": pl.Int64(), "seen": pl.Int64(), "seen_late": pl.Int64()})


def drawn_events(
    rng: random.Random, keys: Sequence[tuple[Any, ...]], count: int
) -> list[tuple[tuple[Any, ...], Event]]:
    """Events with ties, nulls, disorder, late and never published ones, and outliers of two sizes."""
    step = rng.choice([1, SECOND // 2, 10 * SECOND])
    outlier = rng.choice([None, 1e15, 1e300])
    large = rng.random() < 0.3
    events = []
    by_time = rng.random() < 0.5
    for number in range(count):
        time = rng.randrange(0, SPAN, step)
        delay = rng.choice([0, 0, rng.randrange(LATENESS), LATENESS, LATENESS + 1, 5 * LATENESS])
        published = rng.choice([END, time + delay, time + delay + rng.randrange(10 * LATENESS)])
        x: float | None = rng.choice([None, rng.gauss(1e6, 1), rng.uniform(-1, 1), 0.1])
        if outlier is not None and rng.random() < 0.02:
            x = rng.choice([outlier, -outlier])
        i = rng.choice([None, rng.randrange(-9, 9), rng.randrange(2**61, 2**62) * (1 if large else 0), -(2**62)])
        id64 = rng.getrandbits(63) << 16 & (2**64 - 1) | number
        event = Event(repr(key := rng.choice(keys)), time, id64, time + delay, {"x": x, "i": i}, published)
        events.append((key, event))
    return sorted(events, key=lambda pair: pair[1].time) if by_time else events


def drawn_rows(rng: random.Random, keys: Sequence[tuple[Any, ...]], events: Sequence[Event], count: int) -> list[Row]:
    """Rows at, beside and away from events; some twice; readers in time, behind, ahead and all-knowing."""
    rows: list[Row] = []
    for _ in range(count):
        at = rng.randrange(-SPAN // 4, SPAN + SPAN // 2)
        if events and rng.random() < 0.6:
            length = rng.choice(WINDOWS[:3]).length
            at = rng.choice(events).time + rng.choice([0, 1, -1, length, length + 1, length - 1])
        seen = rng.choice([at, at, at - rng.randrange(5 * LATENESS), at + rng.randrange(LATENESS), END, BEGINNING])
        seen_late = rng.choice([seen, seen, at - rng.randrange(5 * LATENESS)])
        rows.append(Row(rng.choice(keys), at, seen, seen_late))
        if rng.random() < 0.1:
            rows.append(rng.choice(rows))
    return rows


def moved(instant: int, by: int) -> int:
    return instant if instant in (END, BEGINNING) else instant + by
