"""Drift's measures against brute force, and what a verdict makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy  # type: ignore[import-untyped]

from quality.bins import BARS, Bins, counted, histogram, psi
from quality.chance import alike, as_many, js_distance, ks
from quality.drift import FeatureDrift, compare
from quality.usual import usual
from rtml.define.drift import Bounds

BOUNDS = Bounds(minimum=30)

floats = st.lists(st.one_of(st.integers(-3, 3), st.floats(-1e12, 1e12)).map(float), min_size=1, max_size=60)
counts = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 40), min_size=bins, max_size=bins).filter(any)] * 2)
)


def one(now: Iterable[Any], then: Iterable[Any], bounds: Bounds = BOUNDS, dtype: Any = pl.Float64) -> FeatureDrift:
    """Compare one feature."""
    rows, reference = (pl.DataFrame({"v__f": pl.Series(list(side), dtype=dtype)}) for side in (now, then))
    (found,) = compare(rows, reference, {"v__f": bounds}, "training")
    return found


def broken(found: FeatureDrift) -> set[str]:
    return {measure.name for measure in found.broken}


@given(counts)
def test_the_index_is_its_formula_and_symmetric(pair: tuple[list[int], list[int]]) -> None:
    now, then = (np.array(side) for side in pair)
    expected = 0.0
    for p, q in zip(now, then, strict=True):
        if p or q:
            a, b = max(p, 0.5) / sum(now), max(q, 0.5) / sum(then)
            expected += (a - b) * math.log(a / b)
    assert psi(now, then) == pytest.approx(expected)
    assert psi(now, then) == pytest.approx(psi(then, now))
    assert psi(now, then) >= 0 or now.sum() != then.sum()
    assert psi(now, now) == psi(now, 3 * now) == 0 or 0 in now


@given(counts)
def test_the_jensen_shannon_distance_is_its_formula(pair: tuple[list[int], list[int]]) -> None:
    now, then = (np.array(side) for side in pair)
    p, q = now / now.sum(), then / then.sum()
    middle = (p + q) / 2
    expected = math.sqrt(max(0.0, (entropy(p, middle, base=2) + entropy(q, middle, base=2)) / 2))
    assert js_distance(now, then) == pytest.approx(expected, abs=1e-7)
    assert js_distance(now, then) == pytest.approx(js_distance(then, now), abs=1e-7)
    assert js_distance(now, 7 * now) == 0
    disjoint = np.concatenate([now, 0 * now]), np.concatenate([0 * then, then])
    assert js_distance(*disjoint) == pytest.approx(1)


@given(floats.filter(lambda values: len(values) > 1), floats.filter(lambda values: len(values) > 1))
def test_the_kolmogorov_smirnov_distance_is_its_definition(now: list[float], then: list[float]) -> None:
    a, b = np.array(now), np.array(then)
    expected = max(abs(np.mean(a <= x) - np.mean(b <= x)) for x in [*now, *then])
    distance, p = ks(a, b)
    assert distance == pytest.approx(expected)
    assert ks(b, a) == pytest.approx((distance, p))
    assert ks(a, a)[0] == 0
    assert 0 <= p <= 1


@given(floats, floats)
def test_every_value_is_counted_once_and_ties_stay_together(now: list[float], then: list[float]) -> None:
    a, b = np.array(now), np.array(then)
    bins = counted(a, b)
    assert [side.sum() for side in bins] == [len(a), len(b)]
    # The bin of a value depends on the reference alone, and goes up with the value.
    of_each = [int(counted(np.array([x]), b)[0].argmax()) for x in sorted({*now, *then})]
    assert of_each == sorted(of_each)
    assert bins[0].tolist() == np.bincount(
        [int(counted(np.array([x]), b)[0].argmax()) for x in now], minlength=len(bins[0])
    ).tolist()  # fmt: skip
    if len(set(then)) <= 20:
        assert len(set(of_each)) >= len(set(then)), "each value of the reference has a bin of its own"
        new = [x for x in now if x not in then]
        assert sum(bins[0][1::2]) == len(now) - len(new), "what the reference does not have is in no value's bin"


def test_bins_hold_like_shares_of_a_reference_whose_values_do_not_repeat() -> None:
    then = np.random.default_rng(1).permutation(1_000) * 1.5
    _, found = counted(then, then)
    assert found[found > 0].tolist() == [100] * 10
    heavy = np.concatenate([np.zeros(400), then + 1])
    now, of_heavy = counted(np.array([-1.0, 0.0, 0.5]), heavy)
    assert 400 in of_heavy
    assert sorted(now[now > 0].tolist()) == [1, 1, 1], "a heavy value is in a bin of its own, its neighbours are not"


@given(st.lists(st.one_of(st.none(), st.integers(0, 9), st.floats(-5, 5)), min_size=30, max_size=200), st.randoms())
@settings(max_examples=50)
def test_a_sample_is_no_drift_from_itself_in_any_order(values: list[float | None], random: Any) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    found = one(values, shuffled)
    assert not found.drifted
    assert {measure.value for measure in found.measures} == {0.0}
    assert found.unseen in (None, 0.0)
    assert found.bars.now == found.bars.then
    doubled = one(values + values, values)
    assert not doubled.drifted
    assert all(measure.value == pytest.approx(0) for measure in doubled.measures)


@pytest.mark.parametrize("seed", range(4))
def test_a_shift_is_found_and_chance_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    then = rng.normal(0, 1, 2_000)
    assert not one(rng.normal(0, 1, 2_000), then).drifted
    assert not one(rng.normal(0, 1, 40), then).drifted
    assert not one(rng.normal(0.05, 1, 2_000), then).drifted, "significant or not, it is small"
    assert broken(one(rng.normal(0.8, 1, 2_000), then)) == {"psi", "ks", "js"}
    assert broken(one(rng.normal(0, 3, 2_000), then)) == {"psi", "ks", "js"}


def test_many_features_of_few_rows_are_no_alarm() -> None:
    """Of 300 features of 60 rows nearly all are over some bound, and none by more than chance makes them."""
    rng = np.random.default_rng(5)
    names = [f"v__f{number}" for number in range(300)]
    now, then = (pl.DataFrame(rng.normal(0, 1, (60, len(names))), names, orient="row") for _ in range(2))
    found = compare(now, then, dict.fromkeys(names, BOUNDS), "week")
    over = [any(measure.value > measure.bound for measure in feature.measures) for feature in found]
    assert sum(over) > 200
    assert not any(feature.drifted for feature in found)


def test_nulls_that_come_or_go_are_drift() -> None:
    values = [float(number) for number in range(400)]
    holes: list[float | None] = [None] * 100 + values[100:]
    for now, then in ((holes, values), (values, holes)):
        found = one(now, then)
        assert "nulls" in broken(found)
        assert found.of("nulls") == 0.25
    gone = one([None] * 400, values)
    assert broken(gone) == {"nulls"}
    assert (gone.nulls_now, gone.nulls_then, gone.of("psi")) == (1.0, 0.0, None)
    assert gone.note == "too few values: 0 of the 30 that a verdict takes; the other rows are null"
    assert str(gone) == "v__f against training: nulls 1 > 0.05"
    nothing = one([None] * 400, [None] * 400)
    assert not nothing.drifted
    assert nothing.bars.now == ()


def test_nan_and_infinities_which_no_feature_has_are_nulls() -> None:
    values = [float(number) for number in range(100)]
    found = one([math.nan, math.inf, -math.inf, *values], values)
    assert found.nulls_now == 3 / 103
    assert found.of("ks") == 0
    assert math.isfinite(found.of("psi") or 0)


def test_a_constant_that_changes_is_drift() -> None:
    assert not one([3.0] * 100, [3.0] * 200).drifted
    found = one([4.0] * 100, [3.0] * 100)
    assert broken(found) == {"psi", "ks", "js", "unseen"}
    assert (found.of("ks"), found.of("js"), found.unseen) == (1, 1, 1)
    assert found.bars.labels == ("3", "4")
    assert found.bars.is_of_values


def test_a_value_that_the_reference_does_not_have_is_unseen_where_its_values_repeat() -> None:
    rng = np.random.default_rng(2)
    then = rng.integers(0, 8, 4_000)
    now = np.where(rng.random(4_000) < 0.015, 8, rng.integers(0, 8, 4_000))
    found = one(now, then, dtype=pl.Int64)
    assert broken(found) == {"unseen"}
    assert found.unseen == pytest.approx(np.mean(now == 8))
    assert found.of("unseen") == found.unseen
    assert one(then, now, dtype=pl.Int64).of("unseen") == 0
    sums = one(rng.integers(0, 10**9, 1_000), rng.integers(0, 10**9, 1_000), dtype=pl.Int64)
    assert (sums.unseen, sums.of("unseen")) == (1, 0), "of sums that never repeat none was to be expected"
    assert not sums.drifted
    assert one(rng.normal(0, 1, 100), rng.normal(0, 1, 100)).unseen is None


def test_text_and_booleans_are_categories() -> None:
    found = one(["a", "b", "c"] * 100, ["a", "b"] * 100, dtype=pl.String)
    assert broken(found) == {"psi", "js", "unseen"}
    assert found.of("ks") is None
    assert found.bars.labels == ("a", "b", "c")
    words = [f"word{number}" for number in range(500)]
    assert not one(words, words[::-1], dtype=pl.String).drifted
    assert len(one(words, words, dtype=pl.String).bars.labels) == BARS
    assert broken(one([True] * 90 + [False] * 10, [False] * 90 + [True] * 10, dtype=pl.Boolean)) == {"psi", "ks", "js"}


@pytest.mark.parametrize(("now", "then"), [(0, 100), (100, 0), (29, 100), (100, 29), (0, 0)])
def test_too_few_rows_are_no_verdict(now: int, then: int) -> None:
    found = one([1.0] * now, [9.0] * then)
    assert (found.measures, found.drifted, found.worst) == ((), False, (False, 0.0))
    assert found.note == f"too few rows: {min(now, then)} of the 30 that a verdict takes"
    assert (found.now, found.then) == (now, then)


def test_bounds_are_per_feature_and_a_measure_can_be_left_out() -> None:
    now, then = np.full(200, 5.0), np.full(200, 4.0)
    found = one(now, then, Bounds(psi=math.inf, ks=1, js=1, unseen=1, minimum=30, severity="critical"))
    assert not found.drifted
    assert found.severity == "critical"
    assert broken(one(now, then, Bounds(psi=math.inf, ks=0.5, js=1, unseen=1, minimum=30))) == {"ks"}


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=12), min_size=4, max_size=6), st.data())
@settings(max_examples=50)
def test_usual_is_the_most_that_a_day_lies_from_all_others(days: list[list[int]], data: Any) -> None:
    holes = [data.draw(st.integers(0, 3)) for _ in days]
    values = np.array([value for day in days for value in day])
    of_day = np.repeat(np.arange(len(days)), [len(day) for day in days])
    found = usual(values, of_day, np.array([len(day) + more for day, more in zip(days, holes, strict=True)]), 3)
    expected: dict[str, list[float]] = {"psi": [], "ks": [], "js": [], "nulls": [], "unseen": []}
    bins = Bins.of(values)
    for number, day in enumerate(days):
        mine, rest = np.array(day), values[of_day != number]
        pair = [np.bincount(bins.places(side), minlength=bins.size) for side in (mine, rest)]
        expected["psi"].append(psi(*pair))
        expected["js"].append(js_distance(*pair))
        expected["ks"].append(max(abs(np.mean(mine <= x) - np.mean(rest <= x)) for x in values))
        once = sum((rest == x).sum() == 1 for x in set(rest.tolist()))
        expected["unseen"].append(np.mean([x not in rest for x in day]) - once / len(rest))
        null = holes[number] / (len(day) + holes[number]) - (sum(holes) - holes[number]) / (
            len(rest) + sum(holes) - holes[number]
        )
        expected["nulls"].append(abs(null))
    assert found == {name: pytest.approx(max(0.0, *each)) for name, each in expected.items()}


def test_of_few_days_and_of_days_with_few_rows_nothing_is_usual() -> None:
    values, days = np.arange(40.0), np.repeat(np.arange(4), 10)
    rows = np.full(4, 10)
    assert set(usual(values, days, rows, 10)) == {"psi", "ks", "js", "nulls", "unseen"}
    assert usual(values, days, rows, 11) == {}
    assert usual(values[:30], days[:30], rows[:3], 10) == {}
    assert set(usual(values[:35], days[:35], rows, 10)) == {"nulls"}, "the fourth day has values in half of its rows"


def test_a_day_among_days_that_differ_is_no_drift_until_it_lies_beyond_them() -> None:
    rng = np.random.default_rng(4)
    weather = [0.0, 0.5, 1.0, 0.2, 0.8, 0.4, 0.1]
    then = pl.DataFrame({"v__f": np.concatenate([rng.normal(shift, 1, 500) for shift in weather])})
    days = pl.Series(np.repeat(np.arange(7), 500))

    def judged(shift: float, days: pl.Series | None) -> FeatureDrift:
        now = pl.DataFrame({"v__f": np.random.default_rng(9).normal(shift, 1, 500)})
        (found,) = compare(now, then, {"v__f": BOUNDS}, "week", days=days)
        return found

    assert broken(judged(1.1, None)) == {"psi", "ks", "js"}
    ordinary = judged(1.1, days)
    assert not ordinary.drifted
    ks_measure = next(measure for measure in ordinary.measures if measure.name == "ks")
    assert ks_measure.usual is not None
    assert ks_measure.allowed == pytest.approx(1 - (1 - ks_measure.usual) ** 2)
    assert broken(judged(4.0, days)) == {"psi", "ks", "js"}


def test_chance_is_what_scipy_and_counting_say() -> None:
    assert alike(np.array([5, 0, 9]), np.array([10, 0, 18])) == pytest.approx(1)
    assert alike(np.array([5, 0]), np.array([9, 0])) == 1
    assert alike(np.array([90, 10]), np.array([10, 90])) < 1e-20
    assert as_many(0, 10, 0.5) == 1
    assert as_many(9, 10, 0.5) == pytest.approx(11 / 1024)


def test_bars_hold_all_values_between_the_ends_of_the_axis() -> None:
    rng = np.random.default_rng(3)
    now, then = rng.normal(0, 1, 500), np.append(rng.normal(0, 1, 499), 1e9)
    bars = histogram(now, then)
    assert (len(bars.now), len(bars.labels)) == (BARS, 2)
    assert sum(bars.now) == pytest.approx(1)
    assert sum(bars.then) == pytest.approx(1)
    assert float(bars.labels[1]) < 10, "one outlier does not hide the rest"
    assert re.fullmatch(r"-\d\.\d+", bars.labels[0])


def test_the_largest_numbers_there_are_have_bars() -> None:
    now, then = (np.random.default_rng(seed).uniform(-1, 1, 500) for seed in (1, 2))
    bars = histogram(now * 1.7e308, then * 1.7e308)
    assert (bars.now, bars.then) == (histogram(now, then).now, histogram(now, then).then)
    assert bars.labels[0].startswith("-1.6")
