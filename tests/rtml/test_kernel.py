"""The compiled merge gives what `rtml.answer` gives, whatever was read."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml.algebra import catalog
from rtml.algebra.family import NUMPY_KIND, Events, Kind, Lane
from rtml.answer import answer
from rtml.errors import OverflowedError
from rtml.instants import SECOND
from rtml.kernel._merge import Merger
from rtml.kernel.answer import answer_columns
from rtml.kernel.program import merger_of
from rtml.online.codec import RAW_MARK, Header, Records
from rtml.plan import Plan, PlannedFeature
from rtml.reading import Fetched, Reading, Turn
from rtml.values import to_list
from tests.rtml.trees import tree

FLOATS = [0.0, 1.5, -2.25, 1e300, math.inf, -math.inf, math.nan]
TAME = [[0.0, -0.0, 1.5, -2.25], [1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.4]]
"""Of which sums are compared; the second are a large mean with a small spread."""
INTEGERS = [0, 1, -1, 7, 2**62, -(2**62), 2**63 - 1]
COLUMNS: dict[str, Kind] = {"x": "f64", "n": "i64", "s": "str"}
NUMERIC = ("sum", "sum_rate", "mean", "variance", "stddev", "min", "max", "first", "last")


def drawn_plan(rng: random.Random) -> Plan:
    """A plan of some aggregates that the compiled merge knows, over windows of all kinds that it knows."""
    sizes = tuple(size * SECOND for size in rng.choice([(10, 60, 360), (5, 60), (30,)]))
    features = []
    for number in range(rng.randint(1, 12)):
        column = rng.choice(["", *COLUMNS])
        names = ("count", "rate") if not column else ("first", "last") if column == "s" else NUMERIC
        exact = rng.random() < 0.4
        length = rng.randint(1, 900 * SECOND) if exact else sizes[0] * rng.randint(1, 60)
        offset = 0 if exact or rng.random() < 0.6 else sizes[0] * rng.randint(1, 60)
        kind = COLUMNS.get(column, "i64")
        features.append(PlannedFeature(f"f{number}", rng.choice(names), column, kind, length, exact, (), offset))
    limit, salts = rng.choice([1, 3, 64]), rng.choice([1, 1, 2])
    return Plan("v", "s", 1, "e", (("k", "str"),), tuple(features), sizes, 0, 0, 1, None, "f", limit, salts)


def drawn_events(rng: random.Random, plan: Plan, tame: bool) -> Events:
    """Some events, with ties of time, nulls, and now and then values that no sum can hold."""
    count = rng.choice([0, 1, 5, 60])
    lanes = {}
    for column, kind in plan.lanes.items():
        pool: list[Any] = rng.choice(TAME) if tame else FLOATS
        if kind == "i64":
            pool = INTEGERS[:4] if tame else INTEGERS
        values = [rng.getrandbits(64) if kind == "str" else rng.choice(pool) for _ in range(count)]
        valid = np.array([rng.random() < 0.8 for _ in range(count)], dtype=bool)
        lanes[column] = Lane(np.array(values, dtype=NUMPY_KIND[kind]), valid)
    times = np.array([rng.randrange(0, 1200 * SECOND, 250_000) for _ in range(count)], dtype=np.int64)
    return Events(times, np.array([rng.getrandbits(64) for _ in range(count)], dtype=np.uint64), lanes)


def drawn_entity(rng: random.Random, plan: Plan, at: int, tame: bool) -> Fetched:
    """What is read of an entity: tiles as the writer leaves them, late events, and raw edges."""
    layout = Records.of(plan)
    events = drawn_events(rng, plan, tame)
    tiles, raw = tree(plan, layout.encode(events, 0, layout.wide))
    latest = int(events.time.max()) if len(events) else 0
    header = Header(1, 0, latest, 1) if rng.random() < 0.7 else Header()
    late = drawn_events(rng, plan, tame) if rng.random() < 0.3 else None
    behind = None if late is None else RAW_MARK + layout.encode(late, 0, layout.wide).tobytes()

    def fetched(reading: Reading) -> Fetched:
        values = [tiles.get(tile) for tile in reading.tiles]
        edges = {index: raw[index] for index in reading.raw if index in raw}
        return Fetched(header, behind, reading, values, edges)

    turn = Turn(plan, at)
    narrow = fetched(turn.narrow)
    return fetched(turn.wide) if narrow.needs_head(plan, at) else narrow


def alike(got: Any, expected: Any, slack: float) -> bool:
    if got is None or expected is None or isinstance(expected, int):
        return bool(got == expected and type(got) is type(expected))
    if not math.isfinite(expected):
        return math.isnan(got) if math.isnan(expected) else bool(got == expected)
    return math.isclose(got, expected, rel_tol=1e-9, abs_tol=slack)


@given(seed=st.integers(0, 2**32))
def test_it_is_the_same_merge(seed: int) -> None:
    rng = random.Random(seed)
    plan = drawn_plan(rng)
    assert merger_of(plan) is not None
    at = rng.choice([rng.randint(1, 1300 * SECOND), rng.randrange(0, 1200 * SECOND, 250_000) + 1])
    entities = [drawn_entity(rng, plan, at, tame=True) for _ in range(plan.salts * rng.choice([0, 1, 3]))]
    entities += [Fetched()] * plan.salts
    columns = answer_columns(plan, at, entities)
    for name, values in answer(plan, at, entities).features.items():
        expected = to_list(values)
        assert len(columns[name]) == len(expected)
        for one, other in zip(columns[name], expected, strict=True):
            assert alike(one, other, 1e-12), (plan.feature(name), one, other)


@np.errstate(all="ignore")
@given(seed=st.integers(0, 2**32))
def test_it_is_the_same_where_values_have_no_bounds(seed: int) -> None:
    """Infinities, NaN, and sums beyond 64 bits: extremes, ends and integers agree, and so does who refuses."""
    rng = random.Random(seed)
    plan = drawn_plan(rng)
    at = rng.randint(1, 1300 * SECOND)
    entities = [drawn_entity(rng, plan, at, tame=False) for _ in range(plan.salts)]
    try:
        found = answer(plan, at, entities).features
    except OverflowedError as error:
        with pytest.raises(OverflowedError, match=str(error)[:20]):
            answer_columns(plan, at, entities)
        return
    columns = answer_columns(plan, at, entities)
    for feature in plan.features:
        is_integer = feature.kind == "i64" and feature.aggregate not in ("variance", "stddev")
        if is_integer or feature.aggregate in ("min", "max", "first", "last", "count", "rate"):
            assert alike(columns[feature.name][0], to_list(found[feature.name])[0], 1e-6), feature


def test_every_aggregate_of_fixed_width_is_compiled_and_no_other() -> None:
    known = {*NUMERIC, "count", "rate", "share"}
    for name in catalog.AGGREGATES:
        definition = catalog.aggregate(name)
        column = "x" if definition.takes_column else ""
        planned = PlannedFeature("f", name, column, "i64" if name == "share" else "f64", SECOND, exact=False)
        plan = Plan("v", "s", 1, "e", (("k", "str"),), (planned,), (SECOND,), 0, 0, 1, None, "f")
        assert (merger_of(plan) is not None) == (name in known), name


@pytest.mark.parametrize(
    ("values", "geometry", "message"),
    [
        ([b"R" + b"\0" * 24], b"\0" * 40, "records must be 25 bytes each; got 24 in all"),
        ([b"S" + b"\0" * 11], b"\0" * 40, "a state must be 13 bytes; got 12"),
        ([b""], b"\0" * 40, "a tile must be some bytes"),
        ([None], b"", "1 tiles have a geometry of 0 bytes"),
    ],
)
def test_bytes_that_are_no_tile_are_refused(values: list[bytes | None], geometry: bytes, message: str) -> None:
    merger = Merger([(0, 0, 0, 0, 1)], [(0, 0, 0)], 1, 8, 4, 1)
    with pytest.raises(ValueError, match=message):
        merger.merge([(values, geometry, [], None, 0)], [(0, 10, False)], 1)


@pytest.mark.parametrize(
    "described",
    [
        ([(0, 8, 0, 0, 1)], [(0, 0, 0)], 1, 8, 4, 1),
        ([(1, 0, 8, 0, 0)], [(2, 0, 0)], 1, 8, 4, 1),
        ([(1, 0, 0, 1, 0)], [(2, 0, 0)], 1, 16, 4, 1),
        ([(0, 0, 0, 0, 1)], [(0, 1, 0)], 1, 8, 4, 1),
        ([(0, 0, 0, 0, 1)], [(0, 0, 1)], 1, 8, 4, 1),
        ([(0, 0, 0, 0, 1)], [(0, 0, 0)], 1, 8, 5, 1),
        ([(0, 0, 0, 0, 1)] * 65, [(0, 0, 0)], 1, 8, 4, 1),
    ],
)
def test_a_layout_that_reaches_outside_is_refused(described: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"outside|no window|no room"):
        Merger(*described)


def test_all_windows_of_a_plan_are_given() -> None:
    """As many windows as the plan has, or none are taken."""
    merger = Merger([(0, 0, 0, 0, 1)], [(0, 0, 0)], 1, 8, 4, 1)
    assert merger.merge([([], b"", [], None, 0)], [(0, 10, False)], 1) == [[0]]
    with pytest.raises(ValueError, match="there are 1 windows; got 0"):
        merger.merge([], [], 1)
