"""Every aggregate of the catalog: the laws of its states, and the oracle."""

from __future__ import annotations

import math
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtml.algebra import catalog
from rtml.algebra.family import NUMPY_KIND, Aggregate, Events, Kind, Lane, Parameters, Span
from rtml.algebra.states import StateSchema, concatenate, group_runs
from rtml.errors import CodecError, OverflowedError, UnknownNameError
from rtml.values import to_list
from tests import oracle
from tests.oracle import Event

NAMES = sorted(catalog.AGGREGATES)
SHORT: dict[str, Parameters] = {
    **dict.fromkeys(("first_n", "last_n", "last_distinct_n"), (("n", 3),)),
    **dict.fromkeys(("decayed_count", "decayed_sum", "decayed_mean"), (("half_life", "2us"),)),
}
"""Parameters that matter for events so few and so near to each other."""
INTEGERS = st.integers(-(2**62), 2**62)
FLOATS = st.floats(-1e12, 1e12, allow_subnormal=False)
LAWS = settings(max_examples=40)
"""Of each aggregate and kind; many share their states."""


def rows(kind: Kind, least: int = 0) -> st.SearchStrategy[list[tuple[int, int, float | int | None]]]:
    """(time, id64, value): few times and ids, so that ties are common, but no two events are the same."""
    value = st.none() | (INTEGERS if kind == "i64" else FLOATS)
    event = st.tuples(st.integers(0, 5), st.integers(2**63 - 3, 2**63 + 3), value)
    return st.lists(event, min_size=least, max_size=30, unique_by=lambda row: row[:2])


def as_events(found: list[tuple[int, int, float | int | None]], kind: Kind) -> Events:
    values = np.array([0 if value is None else value for _, _, value in found], dtype=NUMPY_KIND[kind])
    valid = np.array([value is not None for _, _, value in found], dtype=bool)
    times = np.array([time for time, _, _ in found], dtype=np.int64)
    return Events(times, np.array([id64 for _, id64, _ in found], dtype=np.uint64), {"x": Lane(values, valid)})


def aggregate_of(name: str) -> Aggregate:
    return catalog.aggregate(name, SHORT.get(name, ()))


def schema_of(name: str, kind: Kind) -> StateSchema:
    return StateSchema.of(aggregate_of(name).families("x", kind))


def folded(schema: StateSchema, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All states as one; the identity when there are none."""
    together = concatenate([schema.empties(1), states])
    return schema.combine(together, np.array([0]))


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], size: float = 1.0) -> None:
    """Floats agree to what numbers of this size are known to."""
    for name, column in one.items():
        if column.dtype.kind == "f":
            moment = re.search(r"\.m([234])$", name)
            scale = max(1.0, size) ** (int(moment[1]) if moment else 1)
            np.testing.assert_allclose(column, other[name], rtol=1e-6, atol=1e-9 * scale)
        else:
            np.testing.assert_array_equal(column, other[name])


def size_of(found: list[tuple[int, int, float | int | None]]) -> float:
    return float(sum(abs(value or 0) for _, _, value in found))


@pytest.mark.parametrize("kind", ["f64", "i64"])
@pytest.mark.parametrize("name", NAMES)
class TestLaws:
    @LAWS
    @given(data=st.data())
    def test_the_empty_state_is_the_identity(self, name: str, kind: Kind, data: st.DataObject) -> None:
        schema = schema_of(name, kind)
        states = schema.lift(as_events(data.draw(rows(kind, least=1)), kind))
        one = schema.combine(states, np.array([0]))
        empty = schema.empties(1)
        assert_same(one, schema.combine(concatenate([empty, one]), np.array([0])))
        assert_same(one, schema.combine(concatenate([one, empty]), np.array([0])))

    @LAWS
    @given(data=st.data())
    def test_combine_is_associative_and_the_order_is_free(self, name: str, kind: Kind, data: st.DataObject) -> None:
        schema = schema_of(name, kind)
        found = data.draw(rows(kind, least=2))
        cut = data.draw(st.integers(1, len(found) - 1))
        states = schema.lift(as_events(found, kind))
        whole = schema.combine(states, np.array([0]))
        parts = schema.combine(states, np.array([0, cut]))
        assert_same(whole, schema.combine(parts, np.array([0])), size_of(found))
        if aggregate_of(name).commutative:
            turned = {column: part[::-1] for column, part in states.items()}
            assert_same(whole, schema.combine(turned, np.array([0])), size_of(found))

    @LAWS
    @given(data=st.data())
    def test_combine_changes_none_of_its_inputs(self, name: str, kind: Kind, data: st.DataObject) -> None:
        schema = schema_of(name, kind)
        states = schema.lift(as_events(data.draw(rows(kind, least=1)), kind))
        for column in states.values():
            column.setflags(write=False)
        schema.combine(states, np.array([0]))

    @LAWS
    @given(data=st.data())
    def test_lower_is_lift_and_combine(self, name: str, kind: Kind, data: st.DataObject) -> None:
        schema = schema_of(name, kind)
        found = data.draw(rows(kind, least=1))
        groups = data.draw(st.lists(st.integers(0, 3), min_size=len(found), max_size=len(found)))
        events = as_events(found, kind)
        frame = pl.DataFrame(
            {
                "group": groups,
                "event_time": events.time,
                "id64": events.id64,
                "x": pl.Series([value for _, _, value in found], dtype=pl.Float64 if kind == "f64" else pl.Int64),
            }
        )
        lowered = frame.group_by("group").agg(schema.lower()).sort("group")
        order, starts = group_runs(np.array(groups))
        states = schema.lift(events)
        combined = schema.combine({column: part[order] for column, part in states.items()}, starts)
        assert_same(combined, {column: lowered[column].to_numpy() for column in schema.names}, size_of(found))

    @LAWS
    @given(data=st.data())
    def test_the_value_is_the_oracles(self, name: str, kind: Kind, data: st.DataObject) -> None:
        schema = schema_of(name, kind)
        found = data.draw(rows(kind))
        states = folded(schema, schema.lift(as_events(found, kind)))
        truth = sorted(
            (Event("", time, id64, 0, {"x": value}) for time, id64, value in found), key=lambda e: (e.time, e.id64)
        )
        span = Span(-1, 10)  # a window that holds them all
        given = dict(SHORT.get(name, ()))
        edges = (-1, 10)
        expected = oracle.value(name, truth, "x", given, edges)
        if name == "sum" and isinstance(expected, int) and not -(2**63) <= expected < 2**63:
            with pytest.raises(OverflowedError, match="'x' needs more than 64 bits"):
                aggregate_of(name).finalize("x", kind, states, span)
            return
        (got,) = to_list(aggregate_of(name).finalize("x", kind, states, span))
        assert oracle.agree(name, got, expected, truth, "x", given, edges)

    def test_packed_states_come_back(self, name: str, kind: Kind) -> None:
        schema = schema_of(name, kind)
        states = schema.lift(as_events([(1, 2, 3), (4, 5, None)], kind))
        assert_same(states, schema.unpack(schema.pack(states)))
        assert_same(states, schema.unpack_bytes(schema.pack_bytes(states)))


def test_variance_does_not_cancel() -> None:
    schema = schema_of("variance", "f64")
    events = as_events([(time, time, 1e9 + time % 2) for time in range(1000)], "f64")
    states = schema.combine(schema.combine(schema.lift(events), np.arange(0, 1000, 7)), np.array([0]))
    values, *_ = catalog.aggregate("variance").finalize("x", "f64", states, Span(0, 1))
    assert math.isclose(values[0], 0.25 * 1000 / 999, rel_tol=1e-6)


def test_an_unknown_aggregate_is_an_error_never_a_guess() -> None:
    with pytest.raises(UnknownNameError, match=r"no aggregate 'meen'\. Did you mean 'mean'\?"):
        catalog.aggregate("meen")


@pytest.mark.parametrize("name", ["first_n", "last_n", "last_distinct_n"])
@pytest.mark.parametrize("span", [100, 2**62], ids=["packed", "too wide to pack"])
def test_lists_of_many_entities_are_put_in_order_at_once(name: str, span: int) -> None:
    rng = np.random.default_rng(3)
    times = rng.permutation(np.arange(-60, 60)) * (span // 100)
    events = Events(times, np.arange(120, dtype=np.uint64), {"x": Lane(rng.integers(0, 4, 120), np.ones(120, bool))})
    schema = schema_of(name, "i64")
    states = schema.combine(schema.combine(schema.lift(events), np.arange(0, 120, 4)), np.arange(0, 30, 5))
    values = to_list(aggregate_of(name).finalize("x", "i64", states, Span(0, 1)))
    for entity, got in enumerate(values):
        rows = range(entity * 20, entity * 20 + 20)
        ordered = sorted(
            (Event("", int(times[n]), n, 0, {"x": int(events.lanes["x"].values[n])}) for n in rows),
            key=lambda e: e.time,
        )
        assert got == oracle.value(name, ordered, "x", {"n": 3})


def test_a_list_with_half_a_record_is_refused() -> None:
    schema = schema_of("last_n", "f64")
    states = {schema.names[0]: np.array([b"x" * 25], dtype=object)}
    with pytest.raises(CodecError, match=r"x\.last_3: a state must be records of 24 bytes; got 25 bytes"):
        schema.combine(states, np.array([0]))


def test_decayed_sums_neither_overflow_nor_vanish() -> None:
    """Values a million half-lives apart, and the window's end far beyond them."""
    given = (("half_life", "1us"),)
    schema = StateSchema.of(catalog.aggregate("decayed_mean", given).families("x", "f64"))
    events = as_events([(0, 1, 7.0), (10**6, 2, 3.0), (10**6 + 1, 3, 5.0)], "f64")
    for order in ([0, 1, 2], [2, 1, 0]):
        states = {name: column[order] for name, column in schema.lift(events).items()}
        merged = schema.combine(states, np.array([0]))
        values, *_ = catalog.aggregate("decayed_mean", given).finalize("x", "f64", merged, Span(0, 10**9))
        assert values.tolist() == [pytest.approx((5 + 3 / 2) / 1.5)]
