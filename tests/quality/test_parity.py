"""Verdicts over two roads, against plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.parity import WORST, Compared, Parity, allowed, compare, is_exact, magnitude, with_magnitudes
from rtml.algebra import catalog
from rtml.algebra.family import Kind, Values
from tests.rtml_assets.orders import plan_of, shop_orders


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


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_sums_in_any_order_are_within_the_tolerance_and_a_changed_one_is_not(numbers: list[float]) -> None:
    size = sum(abs(number) for number in numbers)
    got, expected = values(float(np.cumsum(numbers)[-1])), values(math.fsum(numbers))
    bound = allowed("sum", "f64", expected.values, np.array([size]))
    assert compare(identity(1), [Compared("v__f", got, expected, bound)]).agrees
    off = values(expected.values[0] + 3e-9 * size + 1e-300)
    if size > 1e-3:
        assert not compare(identity(1), [Compared("v__f", off, expected, bound)]).agrees


@pytest.mark.parametrize("name", catalog.AGGREGATES)
@pytest.mark.parametrize("kind", ["f64", "i64"])
def test_what_is_exact_may_not_differ_at_all(name: str, kind: Kind) -> None:
    bound = allowed(name, kind, np.array([100.0]), np.array([100.0]))
    floating = name in ("mean", "variance", "stddev") or (name == "sum" and kind == "f64")
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
            {"stddev": "max", "variance": "max"}.get(feature.aggregate, feature.aggregate),
            feature.window,
        )
        for feature in plan.features
        if not is_exact(feature.aggregate, feature.kind)
    }
