"""Verdicts over two roads, against plain arithmetic."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.parity import (
    MAGNITUDE,
    SUM_TOLERANCE,
    WORST,
    Compared,
    Parity,
    agreement,
    allowed,
    compare,
    is_exact,
    magnitude,
    with_magnitudes,
)
from rtml.algebra import catalog
from rtml.algebra.family import Events, Kind, Lane, Span, Values
from rtml.algebra.states import StateSchema
from rtml.instants import MINUTE
from tests import oracle
from tests.rtml_assets.orders import plan_of, shop_orders

REACH = catalog.aggregate("reach")


def values(*given: float | None, kind: str = "<f8") -> Values:
    valid = np.array([value is not None for value in given], dtype=bool)
    return Values(np.array([value or 0 for value in given], dtype=kind), valid)


def compared(got: Values, expected: Values, bound: float = 0, name: str = "v__f") -> Compared:
    return Compared(name, got, expected, np.full(len(got.values), float(bound)))


def identity(count: int) -> pl.DataFrame:
    return pl.DataFrame({"shop": [f"s{row}" for row in range(count)]})


def test_each_row_is_equal_differing_missing_or_unsettled() -> None:
    one = compared(values(1, 2, 3, None, 5, None, 7), values(1, 2.5, None, 4, 5, None, 8))
    open_rows = np.array([False] * 6 + [True])
    (feature,) = compare(identity(7), [one], unsettled={"v__f": open_rows}).features
    assert (feature.compared, feature.equal, feature.differing, feature.missing, feature.unsettled) == (7, 3, 1, 2, 1)
    assert (feature.largest, feature.largest_relative) == (1.0, 0.5 / 2.5)
    assert not feature.agrees


def test_rows_that_are_absent_or_damaged_are_wrong_whatever_their_values() -> None:
    one = compared(values(1, None, 3), values(1, None, 3))
    verdict = compare(identity(3), [one], absent=np.array([True, True, False]), damaged=np.array([False, False, True]))
    (feature,) = verdict.features
    assert (feature.equal, feature.missing, feature.differing) == (0, 2, 1)
    assert set(verdict.worst["shop"]) == {"s0", "s1", "s2"}


def test_the_worst_rows_are_named_and_every_feature_has_one() -> None:
    many = [
        compared(values(*range(100)), values(*(row + row / 10 for row in range(100))), name="v__many"),
        *(compared(values(*[0] * 100), values(*[0] * 99, 1e-3), name=f"v__small{n}") for n in range(WORST + 5)),
    ]
    verdict = compare(identity(100), many)
    assert {feature for feature, *_ in verdict.worst.select("feature").rows()} == {one.feature for one in many}
    assert verdict.worst.row(0, named=True) == {
        "shop": "s99", "feature": "v__many", "got": 99.0, "expected": 108.9, "difference": pytest.approx(9.9),
        "why": "differs",
    }  # fmt: skip
    assert str(verdict).startswith("v__many of shop s99: got 99, expected 108.9; v__small")
    assert f"{WORST + 6} of {WORST + 6} features disagree: v__many (99 differ of 100), v__small0 (1 differ" in str(
        verdict
    )


def test_verdicts_are_joined() -> None:
    good = compare(identity(2), [compared(values(1, 2), values(1, 2))])
    bad = compare(identity(2), [compared(values(1, 2), values(1, 4))])
    joined = Parity.joined([good, bad, Parity()])
    (feature,) = joined.features
    assert (feature.compared, feature.equal, feature.differing, feature.largest) == (4, 3, 1, 2.0)
    assert joined.worst.height == 1
    assert not joined.agrees
    assert good.agrees
    assert str(good) == "2 values agree"
    assert Parity.joined([]).agrees


def test_integers_are_compared_as_such() -> None:
    great = 2**62
    (feature,) = compare(
        identity(2), [compared(values(great, great, kind="<i8"), values(great, great + 1, kind="<i8"))]
    ).features
    assert (feature.equal, feature.differing, feature.largest) == (1, 1, 1.0)


def test_infinities_of_one_sign_are_equal() -> None:
    one = compared(values(math.inf, math.inf, 1.0), values(math.inf, -math.inf, math.inf), math.inf)
    (feature,) = compare(identity(3), [one]).features
    assert (feature.equal, feature.differing) == (1, 2)


def test_nothing_that_is_not_finite_makes_different_values_equal_or_equal_ones_differ() -> None:
    got = values(5.0, 5.0, 5.0, math.nan, math.nan, 1.0, math.inf)
    expected = values(6.0, 6.0, 6.0, math.nan, 1.0, math.nan, 1.0)
    bound = np.array([math.inf, math.nan, -math.inf, 0.0, math.inf, math.inf, math.inf])
    one = Compared("v__f", got, expected, bound)
    assert agreement(one).tolist() == [False, False, False, True, False, False, False]
    (feature,) = compare(identity(7), [one]).features
    assert (feature.equal, feature.differing) == (1, 6)


@pytest.mark.parametrize("aggregate", ["sum", "mean", "variance", "stddev", "skew", "kurtosis", "decayed_count"])
@pytest.mark.parametrize("size", [0.0, 1e-300, 1.0, 1e200, 1.7e308, math.inf, math.nan])
@pytest.mark.parametrize("expected", [0.0, 1.0, 1e300, math.inf])
def test_every_bound_is_finite(aggregate: str, size: float, expected: float) -> None:
    (bound,) = allowed(aggregate, "f64", np.array([expected]), np.array([size]))
    assert math.isfinite(bound)
    assert bound >= 0


def test_variances_of_great_numbers_are_told_apart_as_far_as_float64_can() -> None:
    """Prices of 1.7e9 that spread by a thousandth: their noise is 1.5e-6."""
    size, sigma = np.array([1.7e9]), np.array([1e-3])
    assert allowed("stddev", "f64", sigma, size)[0] == pytest.approx(1.51e-6, rel=0.01)
    assert allowed("variance", "f64", sigma**2, size)[0] == pytest.approx(2 * 1.51e-6 * 1e-3, rel=0.01)
    assert allowed("variance", "f64", np.array([0.0]), np.array([1e9]))[0] == pytest.approx(7.9e-13, rel=0.01)
    assert allowed("variance", "f64", np.array([2.0]), np.array([10.0]))[0] == pytest.approx(2e-6, rel=1e-6)


@given(
    st.floats(-1e12, 1e12), st.lists(st.floats(-1e-3, 1e-3), min_size=2, max_size=200), st.integers(1, 20), st.data()
)
def test_what_float64_gives_for_a_spread_in_parts_is_within_the_tolerance(
    level: float, spread: list[float], parts: int, data: st.DataObject
) -> None:
    """The algebra's own states, lowered in parts and combined, against exact fractions."""
    numbers = [level + offset for offset in spread]
    edges = sorted(data.draw(st.lists(st.integers(0, len(numbers)), min_size=parts, max_size=parts)))
    bounds = list(zip([0, *edges], [*edges, len(numbers)], strict=True))
    frame = pl.DataFrame({"x": numbers, "part": [n for n, (a, b) in enumerate(bounds) for _ in range(a, b)]})
    schema = StateSchema.of(catalog.aggregate("variance").families("x", "f64"))
    lowered = frame.group_by("part", maintain_order=True).agg(schema.lower())
    states = {name: lowered[name].to_numpy() for name in schema.names}
    merged = schema.combine(states, np.array([0]))
    fractions = [Fraction(number) for number in numbers]
    mean = sum(fractions) / len(fractions)
    variance = float(sum((number - mean) ** 2 for number in fractions) / (len(fractions) - 1))
    size = np.array([max(abs(number) for number in numbers)])
    for name, truth in (("variance", variance), ("stddev", math.sqrt(variance))):
        got = catalog.aggregate(name).finalize("x", "f64", merged, Span(0, 1))
        bound = allowed(name, "f64", np.array([truth]), size)
        assert compare(identity(1), [Compared("v__f", got, values(truth), bound)]).agrees


@given(st.floats(-1e9, 1e9), st.lists(st.floats(-1e-1, 1e-1), min_size=4, max_size=100), st.integers(1, 20), st.data())
def test_what_float64_gives_for_a_shape_in_parts_is_within_the_tolerance(
    level: float, spread: list[float], parts: int, data: st.DataObject
) -> None:
    """The algebra's own states, lowered in parts and combined, against the oracle's fractions."""
    numbers = [level + offset for offset in spread]
    edges = sorted(data.draw(st.lists(st.integers(0, len(numbers)), min_size=parts, max_size=parts)))
    bounds = list(zip([0, *edges], [*edges, len(numbers)], strict=True))
    frame = pl.DataFrame({"x": numbers, "part": [n for n, (a, b) in enumerate(bounds) for _ in range(a, b)]})
    events = [oracle.Event("", n, n, n, {"x": number}) for n, number in enumerate(numbers)]
    for name in ("skew", "kurtosis"):
        truth = oracle.value(name, events, "x")
        schema = StateSchema.of((*catalog.aggregate(name).families("x", "f64"), *REACH.families("x", "f64")))
        lowered = frame.group_by("part", maintain_order=True).agg(schema.lower())
        merged = schema.combine({column: lowered[column].to_numpy() for column in schema.names}, np.array([0]))
        got = catalog.aggregate(name).finalize("x", "f64", merged, Span(0, 1))
        assert got.valid[0] == (truth is not None)
        if isinstance(truth, float):
            reach = REACH.finalize("x", "f64", merged, Span(0, 1))
            bound = allowed(name, "f64", np.array([truth]), reach.values)
            assert compare(identity(1), [Compared("v__f", got, values(truth), bound)]).agrees


def test_shapes_are_told_apart_where_numbers_are_not_noise() -> None:
    skew = np.array([1.5])
    assert allowed("skew", "f64", skew, np.array([3.0]))[0] == pytest.approx(1.5e-6, rel=1e-3)
    assert allowed("kurtosis", "f64", skew, np.array([1e6]))[0] < 1e-5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_sums_in_any_order_are_within_the_tolerance_and_a_changed_one_is_not(numbers: list[float]) -> None:
    size = sum(abs(number) for number in numbers)
    got, expected = values(float(np.cumsum(numbers)[-1])), values(math.fsum(numbers))
    bound = allowed("sum", "f64", expected.values, np.array([size]))
    assert compare(identity(1), [Compared("v__f", got, expected, bound)]).agrees
    off = values(expected.values[0] + 3e-9 * size + 1e-300)
    if size > 1e-3:
        assert not compare(identity(1), [Compared("v__f", off, expected, bound)]).agrees


def test_what_has_decayed_below_the_least_float_is_within_the_tolerance_however_it_was_merged() -> None:
    """The newest value is zero: what is left is of values some thousand half-lives older."""
    rng, found = random.Random(1), set()
    aggregate = catalog.aggregate("decayed_sum", (("half_life", "1m"),))
    schema = StateSchema.of(aggregate.families("x", "f64"))
    for _ in range(50):
        times = np.array([*sorted(rng.randrange(28 * MINUTE) for _ in range(5)), 1073 * MINUTE])
        lane = Lane(np.array([*(rng.gauss(0, 9) for _ in range(5)), 0.0]), np.ones(6, dtype=bool))
        lifted = schema.lift(Events(times, np.arange(6, dtype=np.uint64), {"x": lane}))
        truth = aggregate.finalize("x", "f64", schema.combine(lifted, np.array([0])), Span(0, int(times[-1])))
        parts = schema.combine(schema.combine(lifted, np.array([0, 3])), np.array([0]))
        got = aggregate.finalize("x", "f64", parts, Span(0, int(times[-1])))
        size = np.abs(lane.values[:5]) @ np.exp2(-(times[-1] - times[:5]) / MINUTE)
        bound = allowed("decayed_sum", "f64", truth.values, np.array([size]))
        assert compare(identity(1), [Compared("v__f", got, truth, bound)]).agrees
        found.add(abs(got.values[0] - truth.values[0]) > SUM_TOLERANCE * size)
    assert found == {True, False}


@pytest.mark.parametrize("name", catalog.AGGREGATES)
@pytest.mark.parametrize("kind", ["f64", "i64"])
def test_what_is_exact_may_not_differ_at_all(name: str, kind: Kind) -> None:
    bound = allowed(name, kind, np.array([100.0]), np.array([100.0]))
    moments = ("mean", "share", "sum_rate", "variance", "stddev", "skew", "kurtosis")
    floating = name in moments or name.startswith("decayed") or (name == "sum" and kind == "f64")
    assert is_exact(name, kind) == (not floating)
    assert (bound[0] > 0) == floating
    assert bound[0] < 1e-3


def test_a_plan_with_magnitudes_has_one_for_each_feature_that_is_not_exact() -> None:
    plan = plan_of(shop_orders)
    whole = with_magnitudes(plan)
    assert whole.features[: len(plan.features)] == plan.features
    added = {feature.name: (feature.aggregate, feature.window) for feature in whole.features[len(plan.features) :]}
    assert added == {
        magnitude(feature): (
            MAGNITUDE[feature.aggregate],
            feature.window,
        )
        for feature in plan.features
        if not is_exact(feature.aggregate, feature.kind)
    }
