"""The point-in-time index of sets, sketches and counters: ranges of many blocks, nulls, and late events."""

from __future__ import annotations

import numpy as np
import polars as pl

from rtml.algebra.family import Array, Parameters
from rtml.instants import SECOND
from rtml.plan import Plan, PlannedFeature
from rtml.point_in_time.gathered import BLOCK
from rtml.point_in_time.join import point_in_time
from rtml.values import to_list
from tests import oracle_sketches as oracle

ASKED: list[tuple[str, Parameters]] = [
    ("count_distinct", (("most", 40),)),
    ("count_distinct", (("most", 1000),)),
    ("approx_count_distinct", (("lg_k", 8),)),
    ("approx_percentile", (("k", 8), ("q", 0.9))),
    ("approx_percentiles", (("k", 200), ("qs", (0.0, 0.25, 1.0)))),
    ("approx_top_k", (("counters", 20), ("k", 5))),
    ("histogram", (("edges", (-1.0, 0.0, 3.0)),)),
]
EVENTS, ROWS, WINDOW = 6_000, 120, 3_000 * SECOND
MANY = 40 * BLOCK
"""Enough values in all ranges together for trees to be made."""


def history(rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two entities, one with nearly all events; a tenth null, a twentieth late and known much later."""
    times = rng.integers(0, 6_000, EVENTS) * SECOND
    late = rng.random(EVENTS) < 0.05
    known = times + np.where(late, 500 * SECOND, 0)
    values = np.round(rng.normal(0, 4, EVENTS) * rng.choice([1, 1, 50], EVENTS), 1) + 0.0
    events = pl.DataFrame(
        {
            "k": (rng.random(EVENTS) < 0.01).astype(np.int64), "event_time": times, "ingested_at": known,
            "id64": np.arange(EVENTS).astype(np.uint64), "known_at": known, "late": late,
            "x": pl.Series(values).set(pl.Series(rng.random(EVENTS) < 0.1), None),
        }
    )  # fmt: skip
    at = rng.integers(0, 7_000, ROWS) * SECOND
    spine = pl.DataFrame({"k": (rng.random(ROWS) < 0.2).astype(np.int64), "at": at, "seen": at, "seen_late": at})
    return events, spine


def truth(events: pl.DataFrame, key: int, at: int) -> Array:
    some = events.filter(
        pl.col("k") == key, pl.col("event_time") >= at - WINDOW, pl.col("event_time") < at, pl.col("known_at") <= at
    )
    return some["x"].drop_nulls().to_numpy()


def test_ranges_of_many_blocks_are_worth_what_was_promised() -> None:
    events, spine = history(np.random.default_rng(11))
    features = tuple(
        PlannedFeature(f"f{place}", name, "x", "f64", WINDOW, exact=True, parameters=parameters)
        for place, (name, parameters) in enumerate(ASKED)
    )
    plan = Plan("v", "s", 1, "e", (("k", "int"),), features, (10 * SECOND, 600 * SECOND), 0, 0, 1, None, "f")
    values = point_in_time(plan, events, spine)
    wanted = [truth(events, key, at).tolist() for key, at in spine.select("k", "at").rows()]
    assert sum(map(len, wanted)) > MANY
    assert {0} < {len(some) // BLOCK for some in wanted}
    for place, (name, parameters) in enumerate(ASKED):
        for got, some in zip(to_list(values[f"f{place}"]), wanted, strict=True):
            assert oracle.agree(name, got, some, parameters), (name, len(some), got)
