"""Between which values a feature may lie, of whose events some are doubtful: whatever was counted, it lies there."""

from __future__ import annotations

import random
from itertools import combinations

import polars as pl
import pytest

from rtml.algebra import catalog
from rtml.algebra.family import Kind
from rtml.instants import MINUTE, SECOND
from rtml.plan import PlannedFeature
from rtml_assets.tables.cuts import _DOUBT, _LEFT, _RIGHT, _bounds, _sure
from rtml_assets.tables.seen import AT, IS_LATE, KNOWN_AT, SEEN_LATE
from tests import oracle
from tests.oracle import Event

SCALARS = [name for name in catalog.AGGREGATES if not catalog.aggregate(name).output("f64").width]
SURE, DOUBTFUL = 4, 4
EDGES = (0, MINUTE)


@pytest.mark.parametrize("kind", ["f64", "i64"])
@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("sure", [SURE, 1, 0])
def test_no_cut_has_a_value_outside_its_bounds(name: str, kind: Kind, sure: int) -> None:
    rng = random.Random(f"{name}{kind}{sure}")
    for _ in range(8):
        events = [Event("", rng.randrange(MINUTE), n, 0, {"x": _drawn(rng, kind)}) for n in range(sure + DOUBTFUL)]
        low, high, may_be_null = _found(name, kind, events, sure)
        for size in range(DOUBTFUL + 1):
            for some in combinations(events[sure:], size):
                if not sure + size:
                    continue  # a row without any event has no doubtful ones that count
                value = oracle.value(name, sorted([*events[:sure], *some], key=lambda e: e.time), "x", edges=EDGES)
                if value is None:
                    assert may_be_null
                else:
                    assert not isinstance(value, list)
                    assert low <= value <= high, (events, some)


def _drawn(rng: random.Random, kind: str) -> float | int | None:
    return rng.choice([None, rng.randrange(-9, 9), 5]) if kind == "i64" else rng.choice([None, rng.gauss(0, 9), 0.1])


def _found(name: str, kind: Kind, events: list[Event], sure: int) -> tuple[float, float, bool]:
    column = "x" if catalog.aggregate(name).takes_column else ""
    parameters = (("half_life", "1h"),) if name.startswith("decayed") else ()
    feature = PlannedFeature("f", name, column, kind, MINUTE, True, parameters)
    frame = pl.DataFrame(
        {
            "event_time": [event.time for event in events],
            "x": pl.Series([event.values["x"] for event in events], dtype=pl.Float64 if kind == "f64" else pl.Int64),
            _DOUBT: [number >= sure for number in range(len(events))],
            IS_LATE: False,
            KNOWN_AT: 0,
            SEEN_LATE: SECOND,
            AT: EDGES[1],
            _LEFT: EDGES[0],
            _RIGHT: EDGES[1],
        }
    )
    low, high, null = _bounds(feature, _sure())
    row = frame.select(low.alias("low"), high.alias("high"), null.alias("null")).row(0)
    return float("inf") if row[0] is None else row[0], float("-inf") if row[1] is None else row[1], bool(row[2])
