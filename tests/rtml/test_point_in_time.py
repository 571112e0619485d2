"""The point-in-time engine, against plain Python."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from rtml.algebra import catalog
from rtml.algebra.family import Aggregate, Array, Events, Family, Identity, Kind, Output, Span, States, Values
from rtml.errors import OverflowedError, RequestError
from rtml.instants import SECOND
from rtml.plan import Plan, PlannedFeature
from rtml.point_in_time import apart
from rtml.point_in_time.hidden import find_hidden
from rtml.point_in_time.index import FAST
from rtml.point_in_time.join import point_in_time
from rtml.point_in_time.timeline import Timeline
from rtml.tiles import Window
from rtml.values import take_rows, to_list
from tests import oracle
from tests.oracle import Event
from tests.rtml.histories import (
    END,
    FINEST,
    KEYS,
    LATENESS,
    WINDOWS,
    Row,
    drawn_events,
    drawn_rows,
    event_frame,
    moved,
    plan_of,
    spine_frame,
)


def got(values: Values, row: int) -> Any:
    return to_list(take_rows(values, np.array([row])))[0]


def given(feature: PlannedFeature, at: int) -> tuple[dict[str, Any], tuple[int, int]]:
    """What else the oracle must know of a feature."""
    return dict(feature.parameters), feature.span.edges(at, FINEST)


def expected_events(feature: PlannedFeature, row: Row, events: Sequence[Event]) -> list[Event]:
    known = oracle.known(events, LATENESS, row.seen, row.seen_late)
    return oracle.window(known, repr(row.key), row.at, feature.window, 1 if feature.exact else FINEST, feature.offset)


def overflows(plan: Plan, rows: Sequence[Row], events: Sequence[Event]) -> bool:
    """Whether an integer sum needs more than 64 bits."""
    for feature in plan.features:
        if feature.aggregate == "sum" and feature.column == "i":
            for row in rows:
                total = sum(event.values["i"] or 0 for event in expected_events(feature, row, events))
                if not -(2**63) <= total < 2**63:
                    return True
    return False


def beyond_floats(feature: PlannedFeature, events: Sequence[Event]) -> bool:
    """Whether squares are asked for that no float holds."""
    most = {"variance": 1e150, "stddev": 1e150, "skew": 1e75, "kurtosis": 1e75}.get(feature.aggregate)
    return most is not None and any(abs(event.values[feature.column] or 0) > most for event in events)


def check(plan: Plan, rows: Sequence[Row], events: Sequence[Event], values: Mapping[str, Values]) -> None:
    """Every value of every row is the oracle's."""
    assert list(values) == [feature.name for feature in plan.features]
    seen: dict[tuple[Window, int], list[Event]] = {}
    for feature in plan.features:
        assert len(values[feature.name].values) == len(values[feature.name].valid) == len(rows)
        for number, row in enumerate(rows):
            if (feature.span, number) not in seen:
                seen[feature.span, number] = expected_events(feature, row, events)
            truth = seen[feature.span, number]
            if beyond_floats(feature, truth):
                continue
            told = given(feature, row.at)
            value = oracle.value(feature.aggregate, truth, feature.column, *told)
            found = got(values[feature.name], number)
            agrees = oracle.agree(feature.aggregate, found, value, truth, feature.column, *told)
            assert agrees, (feature, row, found, value)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "generic"])
@settings(max_examples=60, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    kinds=st.sampled_from([["str"], ["int"], ["bool"], ["str", "int"], ["int", "bool"]]),
    count=st.sampled_from([0, 1, 5, 60, 400]),
    spine=st.sampled_from([0, 1, 8, 25]),
    origin=st.sampled_from([0, 1_700_000_000 * SECOND]),
)
def test_every_value_is_the_oracles(fast, seed, kinds, count, spine, origin):
    rng = random.Random(seed)
    keys = [tuple(rng.choice(KEYS[kind]) for kind in kinds) for _ in range(rng.choice([1, 2, 5]))]
    plan = plan_of(kinds, rng.sample(WINDOWS, rng.randint(1, 3)), sorted(catalog.AGGREGATES))
    pairs = drawn_events(rng, keys[: rng.randint(1, len(keys))], count)
    events = [event for _, event in pairs]
    rows = drawn_rows(rng, keys, events, spine)
    later = [Row(row.key, row.at + origin, moved(row.seen, origin), moved(row.seen_late, origin)) for row in rows]
    frames = event_frame(plan, pairs, origin), spine_frame(plan, later)
    table = FAST if fast else {}
    if overflows(plan, rows, events):
        with pytest.raises(OverflowedError, match="'i'"):
            point_in_time(plan, *frames, fast=table)
    else:
        check(plan, rows, events, point_in_time(plan, *frames, fast=table))


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "generic"])
@settings(max_examples=60, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32), count=st.sampled_from([5, 60, 400]))
def test_late_events_that_stand_apart_count_where_they_are_known(fast, seed, count):
    """All late events apart, in trees of the least nodes there can be."""
    rng = random.Random(seed)
    keys = [(1,), (2,)][: rng.randint(1, 2)]
    plan = plan_of(["int"], rng.sample(WINDOWS, 2), sorted(catalog.AGGREGATES))
    pairs = [(key, replace(e, values={**e.values, "i": rng.randrange(9)})) for key, e in drawn_events(rng, keys, count)]
    events = [event for _, event in pairs]
    rows = drawn_rows(rng, keys, events, 25)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apart, "FEW_ROWS", rng.choice([0, 1, 3]))
        patched.setattr(apart, "LEAF", rng.choice([1, 2, 4]))
        values = point_in_time(plan, event_frame(plan, pairs), spine_frame(plan, rows), fast=FAST if fast else {})
    check(plan, rows, events, values)


def test_events_that_many_rows_do_not_know_cost_no_row_anything():
    """Two thousand late events, never published or much later: no pair of a row and a hidden event for each of them."""
    rng = random.Random(7)
    plan = plan_of(["int"], [(10_000 * SECOND, True)], ["count", "mean", "last"])
    pairs = []
    for number in range(4_000):
        time, delay = number * SECOND, 2 * LATENESS * (number % 2)
        published = rng.choice([END, time + rng.randrange(3_000 * SECOND)])
        lanes = {"x": float(number), "i": number}
        pairs.append(((1,), Event(repr((1,)), time, number, time + delay, lanes, max(published, time + delay))))
    instants = [rng.randrange(8_000 * SECOND) for _ in range(2_000)]
    rows = [Row((1,), at, at, at) for at in instants]
    events, spine = event_frame(plan, pairs), spine_frame(plan, rows)
    timeline = Timeline.of(plan, events, spine)
    kept, late = apart.split_off(timeline, events, spine)
    assert len(kept.events) + len(late.events) == 4_000
    assert len(late.events) > 1_500
    assert len(find_hidden(timeline, events, spine).rows) > 1_000_000
    assert len(find_hidden(kept, events, spine).rows) <= apart.FEW_ROWS * 2_000
    values = point_in_time(plan, events, spine)
    some = rng.sample(range(len(rows)), 40)
    chosen = {name: take_rows(column, np.array(some)) for name, column in values.items()}
    check(plan, [rows[number] for number in some], [event for _, event in pairs], chosen)


@settings(max_examples=30, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32))
def test_the_order_of_rows_and_columns_is_free(seed):
    rng = random.Random(seed)
    keys = [("a", 1), ("b", 1), ("b", 2)]
    plan = plan_of(["str", "int"], WINDOWS, ["count", "sum", "first", "last", "max"])
    pairs = [(key, replace(event, values={**event.values, "i": 3})) for key, event in drawn_events(rng, keys, 200)]
    rows = drawn_rows(rng, keys, [event for _, event in pairs], 30)
    events, spine = event_frame(plan, pairs), spine_frame(plan, rows)
    values = point_in_time(plan, events, spine)
    places = rng.sample(range(len(rows)), len(rows))
    mixed = point_in_time(
        plan,
        pl.concat(
            [part.sample(fraction=1, shuffle=True, seed=1) for part in (events[::2], events[1::2])], rechunk=False
        ),
        spine[places].select(reversed(spine.columns)).with_columns(label=pl.lit("more")),
    )
    for name, column in values.items():
        assert [got(mixed[name], number) for number in range(len(rows))] == [got(column, place) for place in places]


@settings(max_examples=40, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32))
def test_what_is_not_known_by_then_never_changes_a_row(seed):
    """Events at the instant, after it, ingested or published after it, are as good as none."""
    rng = random.Random(seed)
    keys = [("a",), ("b",)]
    plan = plan_of(["str"], WINDOWS, sorted(catalog.AGGREGATES))
    pairs = [(key, replace(e, values={"x": e.values["x"], "i": 2})) for key, e in drawn_events(rng, keys, 150)]
    rows = [replace(row, seen=row.at, seen_late=row.at) for row in drawn_rows(rng, keys, [e for _, e in pairs], 1)[:1]]
    at, key = rows[0].at, rows[0].key
    leaks = []
    for number in range(40):
        time, ingested, published = rng.choice(
            [(at, at, END), (at + 1, at - 1, END), (at - 1, at + 1, END), (at - 2, at - 2 + 2 * LATENESS, at + 1)]
        )
        x = rng.choice([1e300, -1e300, 5.0])
        leaks.append((key, Event(repr(key), time, 2**40 + number, ingested, {"x": x, "i": 2**62}, published)))
    spine = spine_frame(plan, rows)
    clean, leaky = (point_in_time(plan, event_frame(plan, some), spine) for some in (pairs, pairs + leaks))
    for name, column in clean.items():
        feature = plan.feature(name)
        truth = expected_events(feature, rows[0], [event for _, event in pairs])
        if not beyond_floats(feature, truth):
            told = given(feature, rows[0].at)
            pair = got(leaky[name], 0), got(column, 0)
            assert oracle.agree(feature.aggregate, *pair, truth, feature.column, *told), name


@pytest.mark.parametrize("outlier", [1e15, -1e300])
def test_an_outlier_spoils_only_the_windows_that_hold_it(outlier):
    aggregates = ["sum", "mean", "variance", "stddev"]
    plan = plan_of(["str"], [(100 * SECOND, True)], aggregates)
    rng = random.Random(3)
    pairs = [
        (
            key := (name,),
            Event(repr(key), number * SECOND, number, number * SECOND, {"x": rng.gauss(1e-3, 1e-6), "i": 1}),
        )
        for name in "abc"
        for number in range(500)
    ]
    rows = [Row((name,), at * SECOND, END, END) for name in "abc" for at in range(1, 600, 3)]
    place = 7
    key, event = pairs[place]
    spoilt = [*pairs[:place], (key, replace(event, values={"x": outlier, "i": 1})), *pairs[place + 1 :]]
    before, after = (point_in_time(plan, event_frame(plan, some), spine_frame(plan, rows)) for some in (pairs, spoilt))
    outside = np.array([row.key != key or not row.at - 100 * SECOND <= event.time < row.at for row in rows])
    assert 0 < (~outside).sum() < 40
    for name in (f"{aggregate}_x_0" for aggregate in aggregates):
        one, other = before[name], after[name]
        np.testing.assert_array_equal(one.valid[outside], other.valid[outside])
        both = outside & one.valid
        np.testing.assert_allclose(one.values[both], other.values[both], rtol=1e-9)
    assert np.all(after["sum_x_0"].values[~outside] / outlier > 0.9)


def test_long_ranges_with_many_holes():
    """One entity, windows of thousands of events, a hidden event every few: the tree and the merges of what is left."""
    rng = random.Random(5)
    plan = plan_of(["int"], [(5_000 * SECOND, True), (40 * SECOND, False)], sorted(catalog.AGGREGATES))
    pairs = []
    for number in range(6_000):
        delay = rng.choice([0, 0, 0, LATENESS, 3 * LATENESS])
        time = number * SECOND + rng.randrange(SECOND)
        values = {"x": rng.choice([None, rng.gauss(50, 2)]), "i": rng.randrange(-99, 99)}
        event = Event(repr((1,)), time, number, time + delay, values, time + rng.randrange(4_000 * SECOND))
        pairs.append(((1,), event))
    events = [event for _, event in pairs]
    rows = [Row((1,), at, at, at) for at in (rng.randrange(7_000 * SECOND) for _ in range(12))]
    check(plan, rows, events, point_in_time(plan, event_frame(plan, pairs), spine_frame(plan, rows)))


def test_instants_too_wide_apart_for_one_integer():
    """Entity and time fit 64 bits only by the rank of the time."""
    plan = plan_of(["int"], [(2**61, True)], ["count", "last"])
    times = [-(2**60), 0, 1, 2**60]
    pairs = [
        ((key,), Event(repr((key,)), time, n, time, {"x": float(n), "i": n}))
        for key in range(20)
        for n, time in enumerate(times)
    ]
    rows = [Row((key,), at, END, END) for key in range(20) for at in (-(2**60), 0, 1, 2, 2**60, 2**60 + 1)]
    values = point_in_time(plan, event_frame(plan, pairs), spine_frame(plan, rows))
    check(plan, rows, [event for _, event in pairs], values)


@dataclass(frozen=True)
class Braid(Family):
    """A polynomial hash of all values in their order: a monoid that does not commute, unknown to the engine."""

    code: ClassVar[str] = "braid"
    prime: ClassVar[int] = 1_000_003

    @property
    def columns(self) -> dict[str, str]:
        return {self._named("hash"): "<i8", self._named("power"): "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        return {self._named("hash"): 0, self._named("power"): 1}

    def lower(self) -> list[pl.Expr]:
        raise NotImplementedError

    def lift(self, events: Events) -> dict[str, Array]:
        values, valid = events.lanes[self.column]
        hashes = np.where(valid, np.asarray(values * 8).astype(np.int64) % self.prime, 0)
        return {self._named("hash"): hashes, self._named("power"): np.where(valid, 31, 1)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        hashes, powers = (states[name].tolist() for name in self.columns)
        folded = []
        for start, end in zip(starts, [*starts[1:], len(hashes)], strict=True):
            found, power = 0, 1
            for place in range(start, end):
                found = (found * powers[place] + hashes[place]) % self.prime
                power = power * powers[place] % self.prime
            folded.append((found, power))
        columns = np.array(folded, dtype=np.int64).reshape(-1, 2).T
        return dict(zip(self.columns, columns, strict=True))


class Hash(Aggregate):
    """The hash itself."""

    name = "hash"
    commutative = False

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        return (Braid(column, kind),)

    def output(self, kind: Kind) -> Output:
        return Output("i64")

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        found = states[f"{column}.hash"]
        return Values(found, np.ones(len(found), dtype=bool))


@pytest.mark.parametrize("seed", range(10))
def test_a_family_that_the_engine_does_not_know(monkeypatch, seed):
    monkeypatch.setitem(catalog.AGGREGATES, "hash", Hash)
    rng = random.Random(seed)
    plan = plan_of(["str"], WINDOWS[:2], ["hash", "mean"])
    features = tuple(feature for feature in plan.features if feature.column == "x")
    plan = Plan(plan.view, "s", 1, "e", plan.keys, features, plan.ladder, LATENESS, 0, 1, None, "f")
    keys = [("a",), ("b",)]
    pairs = [
        (key, replace(event, values={"x": rng.choice([None, rng.randrange(99) / 8]), "i": None}))
        for key, event in drawn_events(rng, keys, 600)
    ]
    events = [event for _, event in pairs]
    rows = drawn_rows(rng, keys, events, 30)
    values = point_in_time(plan, event_frame(plan, pairs), spine_frame(plan, rows))
    for feature in features:
        for number, row in enumerate(rows):
            truth = expected_events(feature, row, events)
            if feature.aggregate == "hash":
                found = 0
                for event in truth:
                    if event.values["x"] is not None:
                        found = (found * 31 + int(event.values["x"] * 8)) % Braid.prime
                assert got(values[feature.name], number) == found
            else:
                mean = oracle.value("mean", truth, "x")
                assert oracle.agree("mean", got(values[feature.name], number), mean, truth, "x")


def test_entities_without_a_key_or_events_have_empty_windows():
    plan = plan_of(["str"], WINDOWS, ["count", "mean", "last"])
    event = Event(repr(("a",)), 0, 1, 0, {"x": 1.0, "i": 1})
    spine = spine_frame(plan, [Row((key,), SECOND, END, END) for key in ("a", None, "z")])
    events = event_frame(plan, [(("a",), event), ((None,), event)])
    values = point_in_time(plan, events, spine)
    assert [got(values["count__0"], row) for row in range(3)] == [1, 0, 0]
    assert [got(values["mean_x_0"], row) for row in range(3)] == [1.0, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda events, spine: (events.rename({"known_at": "known"}), spine), "'known_at'.*Did you mean 'known'"),
        (
            lambda events, spine: (events, spine.drop("seen_late")),
            "the spine of view 'v' must have a column 'seen_late'",
        ),
        (lambda events, spine: (events, spine.cast({"k0": pl.Int32})), "'k0' must be Int64; got Int32"),
        (lambda events, spine: (events.cast({"id64": pl.Int64}), spine), "'id64' must be UInt64; got Int64"),
        (lambda events, spine: (events.cast({"i": pl.Float64}), spine), "'i' must be Int64; got Float64"),
        (lambda events, spine: (events, spine.with_columns(at=pl.lit(None, pl.Int64))), "'at' must not be null; got 1"),
    ],
)
def test_frames_that_do_not_fit_are_refused(change, message):
    plan = plan_of(["int"], WINDOWS, ["count", "sum"])
    events = event_frame(plan, [((1,), Event("1", 0, 1, 0, {"x": 1.0, "i": 1}))])
    with pytest.raises(RequestError, match=message):
        point_in_time(plan, *change(events, spine_frame(plan, [Row((1,), 1, 1, 1)])))
