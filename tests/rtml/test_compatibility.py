"""Contracts: written down and read again; what one accepts that another did, said and held against the real gate."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rtml
from rtml.define.compatibility import Change, compare, stored_types
from rtml.define.implied import passing, witnesses
from rtml.define.written import Contract, WrittenColumn
from rtml.instants import to_instant, to_text
from streaming.entries import Entries
from streaming.gate import Gate

NOW = to_instant("2024-01-01T00:00:00Z")
ID, AT = WrittenColumn("id", "String", False), WrittenColumn("at", "Timestamp", False)


def contract(*columns: WrittenColumn, timestamp: str = "at", event_id: str | None = "id") -> Contract:
    everything = sorted((ID, AT, *columns), key=lambda column: column.name)
    return Contract(tuple(everything), timestamp, event_id)


def col(name: str, dtype: str, nullable: Any = False, **checks: Any) -> WrittenColumn:
    return WrittenColumn(name, dtype, nullable, tuple(checks.items()))


def source(written: Contract) -> rtml.EventSource:
    return rtml.EventSource(
        name="s",
        schema=written.model(),
        timestamp=written.timestamp,
        event_id=written.event_id,
        stream=rtml.RedisStream("s"),
    )


def accepts(written: Contract, *events: dict[str, Any]) -> list[bool]:
    """What the stream's own gate says of events."""
    texts = [{name: _json(value) for name, value in event.items()} for event in events]
    payloads = [json.dumps(text).encode() for text in texts]
    offsets = [f"{NOW // 1000}-{number}" for number in range(len(events))]
    gated = Gate(source(written))(Entries(0, offsets, [NOW] * len(events), [NOW] * len(events), payloads))
    refused = {one.offset for one in gated.refused}
    return [offset not in refused for offset in offsets]


def _json(value: Any) -> Any:
    return to_text(to_instant(value)) if isinstance(value, datetime) else value


# ---------------------------------------------------------------------------------------------------- written down


class Everything(rtml.Event):
    id: str = rtml.Field(str_length={"min_value": 1, "max_value": 9}, str_matches="^a+", str_startswith="a")
    at: rtml.Timestamp = rtml.Field(ge=datetime(2020, 1, 1, tzinfo=UTC))
    n: pl.Int32 = rtml.Field(ge=1, le=5, nullable=True, isin=[3, 2, 1], notin=[5], ne=7)
    x: pl.Float32 = rtml.Field(in_range={"min_value": 0, "max_value": 1, "include_max": False})
    ok: bool = rtml.Field(eq=True)
    word: str = rtml.Field(str_contains="b", str_endswith="c", gt="a", lt="z")


def test_a_contract_outlives_being_written_down() -> None:
    whole = rtml.EventSource(
        name="s", schema=Everything, timestamp="at", event_id="id", stream=rtml.RedisStream("s"), starts="2020-01-01"
    )
    written = Contract.of(whole)
    again = Contract.decode(written.encode())
    assert again == written
    assert Contract.of(source(again)).encode() == written.encode()
    assert source(again).columns["n"].nullable
    good = {"id": "aa", "at": "2023-01-01T00:00:00Z", "n": 2, "x": 0.5, "ok": True, "word": "bbc"}
    bad = [{**good, **change} for change in ({"n": 4}, {"x": 1}, {"ok": False}, {"word": "bc?"}, {"id": "b"})]
    early = {**good, "at": "2019-12-31T23:59:59Z"}
    assert accepts(again, good, *bad, early) == [True] + [False] * 6


def test_the_order_of_columns_and_checks_means_nothing() -> None:
    one = rtml.Field(ge=0, le=1)
    other = rtml.Field(le=1, ge=0)

    def made(field: Any, *, turned: bool) -> rtml.EventSource:
        names = {"id": str, "at": rtml.Timestamp, "x": float}
        ordered = dict(reversed(names.items())) if turned else names
        model = type("Model", (rtml.Event,), {"__annotations__": ordered, "x": field})
        return rtml.EventSource(name="s", schema=model, timestamp="at", event_id="id", stream=rtml.RedisStream("s"))

    assert Contract.of(made(one, turned=False)).hash == Contract.of(made(other, turned=True)).hash


# ------------------------------------------------------------------------------------------------------- by table

GE, LE, GT = "greater_than_or_equal_to", "less_than_or_equal_to", "greater_than"
FLOAT, NULLABLE = col("x", "Float64"), col("x", "Float64", True)
RULES: list[tuple[str, tuple[WrittenColumn, ...], tuple[WrittenColumn, ...], bool, bool]] = [
    # what, old, new, allowed backward, allowed forward
    ("a new optional column", (), (NULLABLE,), True, True),
    ("a new required column", (), (FLOAT,), False, True),
    ("a dropped optional column", (NULLABLE,), (), True, True),
    ("a dropped required column", (FLOAT,), (), True, False),
    ("null is allowed", (FLOAT,), (NULLABLE,), True, False),
    ("null is no longer allowed", (NULLABLE,), (FLOAT,), False, True),
    ("wider integers", (col("n", "Int32"),), (col("n", "Int64"),), True, False),
    ("narrower integers", (col("n", "Int64"),), (col("n", "Int8"),), False, True),
    ("wider floats", (col("x", "Float32"),), (FLOAT,), True, False),
    ("integers become floats", (col("x", "Int32"),), (FLOAT,), True, False),
    ("a looser bound", (col("x", "Float64", **{LE: {"max_value": 1}}),), (FLOAT,), True, False),
    ("a tighter bound", (FLOAT,), (col("x", "Float64", **{LE: {"max_value": 1}}),), False, True),
    (
        "the same for integers in other words",
        (col("n", "Int64", **{GT: {"min_value": 2}}),),
        (col("n", "Int64", **{GE: {"min_value": 3}}),),
        True,
        True,
    ),
    (
        "one more value",
        (col("k", "String", isin={"allowed_values": ["a"]}),),
        (col("k", "String", isin={"allowed_values": ["a", "b"]}),),
        True,
        False,
    ),
    (
        "another pattern",
        (col("k", "String", str_matches={"pattern": "a+"}),),
        (col("k", "String", str_matches={"pattern": "a*"}),),
        False,
        False,
    ),
    (
        "longer strings",
        (col("k", "String", str_length={"min_value": 1, "max_value": 5}),),
        (col("k", "String", str_length={"min_value": 0, "max_value": 9}),),
        True,
        False,
    ),
    (
        "a bound that Float32 rounds up",
        (col("x", "Float32", **{LE: {"max_value": 0.1}}),),
        (col("x", "Float64", **{LE: {"max_value": 0.1}}),),
        False,
        False,
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "backward", "forward"), [row[1:] for row in RULES], ids=[row[0] for row in RULES]
)
def test_what_the_modes_allow(
    old: tuple[WrittenColumn, ...], new: tuple[WrittenColumn, ...], backward: bool, forward: bool
) -> None:
    def allowed(mode: Any) -> bool:
        changes = compare(contract(*old), contract(*new), mode)
        assert changes or old == new or (backward and forward)
        return all(change.allowed for change in changes)

    assert (allowed("backward"), allowed("forward")) == (backward, forward)
    assert allowed("full") == (backward and forward)
    assert allowed("none")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (contract(col("n", "Int64")), contract(FLOAT, col("n", "String")), "n: Int64 → String: refused: the lake has"),
        (contract(col("n", "Int64")), contract(col("n", "Float64")), "no type holds both exactly"),
        (contract(), contract(event_id=None), "event_id: 'id' → None: refused: events that came before would count tw"),
        (
            contract(col("t", "Timestamp")),
            contract(col("t", "Timestamp"), timestamp="t"),
            "timestamp: 'at' → 't': refused: rows of the lake",
        ),
    ],
)
def test_what_no_mode_allows(old: Contract, new: Contract, words: str) -> None:
    refused = [change for change in compare(old, new, "none") if not change.allowed]
    assert len(refused) == 1
    assert words in str(refused[0])


def test_a_column_in_use_is_not_dropped() -> None:
    old, new = contract(FLOAT), contract()
    (change,) = compare(old, new, "none", used={"x": "view 'spent', which is served,"})
    assert str(change) == "x: column (Float64) dropped: refused: view 'spent', which is served, needs it"
    assert not change.final


def test_the_lakes_types_only_widen() -> None:
    history = [contract(col("n", "Int32")), contract(col("n", "Int64")), contract(), contract(col("n", "Int32"))]
    assert stored_types(history)["n"] == pl.Int64
    (change,) = compare(history[-1], contract(col("n", "Float64")), "backward", stored=stored_types(history))
    assert change.final
    assert "the lake has Int64s there" in change.reason


# ---------------------------------------------------------------------------------------------------- by chance

INTS, FLOATS = ("Int8", "Int16", "Int32", "Int64"), ("Float32", "Float64")
NUMBERS = st.one_of(st.integers(-5, 5), st.sampled_from([0.1, -0.5, 2.5, 127, 128, 2**31, 2**53 + 1]))
WORDS = st.sampled_from(["", "a", "b", "ab", "abc"])


def _checks(dtype: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    if dtype == "Boolean":
        return st.tuples(st.just("equal_to"), st.fixed_dictionaries({"value": st.booleans()}))
    plain = WORDS if dtype == "String" else st.integers(-5, 5) if dtype in INTS else NUMBERS
    alike = plain.map(float) if dtype in FLOATS else plain
    some = st.lists(alike, min_size=1, max_size=3, unique=True).map(lambda found: sorted(found, key=str))
    low = st.fixed_dictionaries({"min_value": plain})
    high = st.fixed_dictionaries({"max_value": plain})
    kinds: list[Any] = [
        st.tuples(st.sampled_from([GE, GT]), low),
        st.tuples(st.sampled_from([LE, "less_than"]), high),
        st.tuples(st.just("isin"), st.fixed_dictionaries({"allowed_values": some})),
        st.tuples(st.just("notin"), st.fixed_dictionaries({"forbidden_values": some})),
        st.tuples(st.just("not_equal_to"), st.fixed_dictionaries({"value": plain})),
    ]
    if dtype == "String":
        lengths = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(sorted)
        words = st.fixed_dictionaries({"string": WORDS})
        kinds += [
            lengths.map(lambda ends: ("str_length", {"min_value": ends[0], "max_value": ends[1]})),
            st.tuples(st.sampled_from(["str_startswith", "str_endswith"]), words),
            st.tuples(st.just("str_matches"), st.fixed_dictionaries({"pattern": st.sampled_from(["a", "[ab]*$"])})),
        ]
    return st.one_of(kinds)


@st.composite
def columns(draw: st.DrawFn, name: str, dtypes: Any = ("String", "Boolean", *INTS, *FLOATS)) -> WrittenColumn:
    dtype = draw(st.sampled_from(dtypes))
    checks = dict(draw(st.lists(_checks(dtype), max_size=2)))
    return WrittenColumn(name, dtype, draw(st.booleans()), tuple(sorted(checks.items())))


def _related(dtype: str) -> tuple[str, ...]:
    return (*INTS, *FLOATS) if dtype in (*INTS, *FLOATS) else (dtype,)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Contract, Contract]:
    """Two contracts, of which one could have come of the other."""
    old = [draw(columns(name)) for name in ("c", "d")]
    new = [
        draw(st.one_of(st.just(column), columns(column.name, _related(column.type)))) for column in old if draw(_MOSTLY)
    ]
    if draw(st.booleans()):
        new.append(draw(columns("e")))
    return contract(*old), contract(*new)


_MOSTLY = st.sampled_from([True, True, True, False])


def _drawn_event(draw: Any, written: Contract, other: Contract) -> dict[str, Any]:
    """An event that a contract accepts, at the edges of both as often as not."""
    event: dict[str, Any] = {"id": "1", "at": "2023-12-31T00:00:00Z"}
    for name, column in written.by_name.items():
        if name in event:
            continue
        edges = witnesses(column, other.by_name.get(name, column))
        chance = draw(st.one_of(NUMBERS, WORDS, st.booleans()))
        values = [*edges, *passing(column, [chance]), *([None] if column.nullable else [])]
        assume(values)
        event[name] = draw(st.sampled_from(values))
    return event


def _overlaid(event: dict[str, Any], change: Change) -> dict[str, Any]:
    return {**event, **(change.witness or {})}


@given(st.data())
def test_the_gate_keeps_the_promise(data: st.DataObject) -> None:
    """Allowed: the other gate takes what the one took. Refused with a witness: it does not take the witness."""
    old, new = data.draw(pairs())
    mode = data.draw(st.sampled_from(["backward", "forward"]))
    given, taking = (old, new) if mode == "backward" else (new, old)
    changes = compare(old, new, mode)  # type: ignore[arg-type]
    event = _drawn_event(data.draw, given, taking)
    assert accepts(given, event) == [True]
    if all(change.allowed for change in changes):
        assert accepts(taking, event) == [True]
    for change in changes:
        if change.witness is not None:
            shown = _overlaid(event, change)
            assert accepts(given, shown) == [True], change
            assert accepts(taking, shown) == [False], change
