"""The gate: what it refuses, why, and that it agrees with pandera."""

from __future__ import annotations

import json
import random
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtml
from rtml.instants import to_instant
from streaming.decode import Reason
from streaming.entries import Entries
from streaming.gate import Gate, Gated
from streaming.refusals import event_id

NOW = to_instant("2024-01-01T00:00:00Z")


class Message(rtml.Event):
    id: str
    at: rtml.Timestamp
    key: str = rtml.Field(str_length={"min_value": 1, "max_value": 5})
    x: float = rtml.Field(ge=-10, lt=100, nullable=True)
    n: int = rtml.Field(in_range={"min_value": 0, "max_value": 9}, nullable=True)
    kind: str = rtml.Field(isin=["a", "b"], str_matches="[ab]$", nullable=True)
    flag: bool = rtml.Field(nullable=True)


SOURCE = rtml.EventSource(
    name="messages", schema=Message, timestamp="at", event_id="id", stream=rtml.RedisStream("messages"), skew="1m"
)
GOOD: dict[str, Any] = {
    "id": "1",
    "at": "2024-01-01T00:00:00Z",
    "key": "k",
    "x": 1.5,
    "n": 3,
    "kind": "a",
    "flag": True,
}


def gate(*payloads: bytes) -> Gated:
    count = len(payloads)
    offsets = [f"{NOW // 1000}-{number}" for number in range(count)]
    return Gate(SOURCE)(Entries(0, offsets, [NOW] * count, [NOW] * count, list(payloads)))


def message(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


BAD = [
    (b"", Reason.NO_DATA, "no field 'data'"),
    (b"not json", Reason.NOT_JSON, "malformed"),
    (b"\xff\xfe", Reason.NOT_JSON, ""),
    (b"[" * 100_000, Reason.NOT_JSON, ""),
    (b"[1]", Reason.NOT_OBJECT, "got list"),
    (without("key"), Reason.MISSING_FIELD, "field 'key' is missing"),
    (message(key=None), Reason.NULL_VALUE, "field 'key' may not be null"),
    (message(key=5), Reason.WRONG_TYPE, "field 'key' must be a string; got 5"),
    (message(x="1"), Reason.WRONG_TYPE, "field 'x' must be a number"),
    (message(x=True), Reason.WRONG_TYPE, "field 'x' must be a number; got True"),
    (message(n=1.5), Reason.WRONG_TYPE, "field 'n' must be an integer"),
    (message(n=2**70), Reason.WRONG_TYPE, "an integer from -9223372036854775808"),
    (message(flag=1), Reason.WRONG_TYPE, "field 'flag' must be a boolean"),
    (message(at="2024-01-01T00:00:00"), Reason.WRONG_TYPE, "an RFC 3339 time with an offset"),
    (message(x=float("nan")), Reason.NOT_FINITE, "must be a finite number; got nan"),
    (message(x=float("inf")), Reason.NOT_FINITE, "must be a finite number; got inf"),
    (message(x=100), Reason.OUT_OF_RANGE, "field 'x' must be less than 100; got 100.0"),
    (message(x=-10.01), Reason.OUT_OF_RANGE, "greater than or equal to -10"),
    (message(n=10), Reason.OUT_OF_RANGE, "field 'n' must be in range 0, 9"),
    (message(kind="c"), Reason.OUT_OF_RANGE, "field 'kind' must be isin"),
    (message(key=""), Reason.OUT_OF_RANGE, "field 'key' must be str length"),
    (message(at="2024-01-01T00:01:00.000001Z"), Reason.FUTURE, "more than 1m after its arrival"),
    (message(at="1969-12-31T23:59:59Z"), Reason.OUT_OF_RANGE, "1970-01-01T00:00:00Z or later"),
    (message(at="0001-01-01T00:00:00+05:00"), Reason.OUT_OF_RANGE, "1970-01-01T00:00:00Z or later"),
]


@pytest.mark.parametrize(
    ("payload", "reason", "words"), BAD, ids=[f"{reason}-{n}" for n, (_, reason, _) in enumerate(BAD)]
)
def test_a_bad_message_is_refused_with_reason_and_bytes_and_no_other_is(
    payload: bytes, reason: Reason, words: str
) -> None:
    gated = gate(message(id="before"), payload, message(id="after"))
    assert gated.good["id"].to_list() == ["before", "after"]
    (refused,) = gated.refused
    assert refused.payload == payload
    assert refused.offset.endswith("-1")
    assert refused.failures[0].reason == reason
    assert words in refused.failures[0].detail


def test_all_failures_are_told_at_once() -> None:
    (refused,) = gate(message(x=1000, n=77, at="2030-01-01T00:00:00Z")).refused
    assert [failure.reason for failure in refused.failures] == [Reason.OUT_OF_RANGE, Reason.OUT_OF_RANGE, Reason.FUTURE]
    (refused,) = gate(message(key=1, x="y")).refused
    assert len(refused.failures) == 2


@pytest.mark.parametrize(
    "payload",
    [
        message(at=NOW),
        message(at="2024-01-01T05:30:00+05:30"),
        message(at="2024-01-01T00:01:00Z"),
        message(x=None, n=None, kind=None, flag=None),
        without("x"),
        message(x=5),
        message(extra={"nested": [1]}),
    ],
)
def test_what_fits_is_accepted(payload: bytes) -> None:
    gated = gate(payload)
    assert not gated.refused
    assert gated.good.height == 1
    assert gated.good.schema["at"] == pl.Datetime("us", "UTC")


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({"x": st.none() | st.floats(-20, 120), "n": st.none() | st.integers(-3, 12)}), max_size=20
    )
)
def test_the_compiled_checks_are_panderas(rows: list[dict[str, Any]]) -> None:
    gated = gate(*[message(id=str(number), **row) for number, row in enumerate(rows)])
    frame = pl.DataFrame(
        [{**GOOD, "id": str(number), **row} for number, row in enumerate(rows)],
        schema={**SOURCE.frame_schema, "at": pl.String()},
    ).with_columns(pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC"))
    try:
        Message.validate(frame, lazy=True)
        bad: set[int] = set()
    except pa.errors.SchemaErrors as errors:
        bad = set(errors.failure_cases["index"].to_list())
    assert set(gated.good["id"].to_list()) == {str(number) for number in range(len(rows)) if number not in bad}


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes_are_either_good_or_refused(payloads: list[bytes]) -> None:
    gated = gate(*payloads)
    assert gated.good.height + len(gated.refused) == len(payloads)


def test_without_an_event_id_an_event_is_its_place_in_the_stream() -> None:
    source = rtml.EventSource(name="m", schema=Message, timestamp="at", stream=rtml.RedisStream("m", 2))
    entries = [Entries(partition, ["5-0"], [NOW], [NOW], [message()]) for partition in (0, 1)]
    ids = [Gate(source)(entry).good["id64"][0] for entry in entries]
    assert len(set(ids)) == 2
    assert Gate(source)(entries[0]).good["id64"][0] == ids[0]


def limited(most: int) -> rtml.EventSource:
    annotations = {"id": str, "at": rtml.Timestamp, "n": int, "note": str}
    fields = {"n": rtml.Field(le=most), "note": rtml.Field(nullable=True)}
    model = type("Limited", (rtml.Event,), {"__annotations__": annotations, "__module__": __name__, **fields})
    return rtml.EventSource(
        name="limited", schema=model, timestamp="at", event_id="id", stream=rtml.RedisStream("limited")
    )


def test_what_arrived_under_a_former_contract_is_judged_by_that_one() -> None:
    """However the entries are cut into batches: a flow that goes back reads others than the one that first came."""
    rng = random.Random(3)
    former = [(NOW + 100, limited(3)), (NOW + 200, limited(5))]
    arrived = sorted(rng.randrange(0, 300) for _ in range(400))
    numbers = [rng.randrange(0, 12) for _ in arrived]
    most = [3 if at < 100 else 5 if at < 200 else 9 for at in arrived]
    payloads = [
        b"{" if n == 11 else json.dumps({"id": str(row), "at": NOW, "n": n, "note": "x"}).encode()
        for row, n in enumerate(numbers)
    ]
    gate, accepted, refused = Gate(limited(9), former), [], dict[int, Reason]()
    start = 0
    while start < len(arrived):
        rows = range(start, start := min(len(arrived), start + rng.randrange(1, 60)))
        times = [NOW + arrived[row] for row in rows]
        gated = gate(Entries(1, [str(row) for row in rows], times, times, [payloads[row] for row in rows]))
        accepted += gated.good["id"].to_list()
        refused |= {int(one.offset): one.failures[0].reason for one in gated.refused}
        assert gated.good.height + len(gated.refused) == len(rows)
    assert accepted == [str(row) for row, n in enumerate(numbers) if n <= most[row]]
    broken = {row: n for row, n in enumerate(numbers) if n > most[row]}
    assert refused == {row: Reason.NOT_JSON if n == 11 else Reason.OUT_OF_RANGE for row, n in broken.items()}


HALF = '"\\ud800"'
"""Half of a surrogate pair: JSON lets it be written, and no text can hold it."""


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (json.dumps(GOOD).encode().replace(b'"k"', b'"\xff"'), Reason.NOT_JSON),
        (json.dumps(GOOD).encode().replace(b'"id"', b'"\xff"'), Reason.NOT_JSON),
        (json.dumps(GOOD).replace('"k"', HALF).encode(), Reason.WRONG_TYPE),
        (f'{{{HALF}: 1, "id": "1", "at": 0}}'.encode(), Reason.MISSING_FIELD),
        (f'{{"id": {HALF}, "n": "x"}}'.encode(), Reason.MISSING_FIELD),
        (json.dumps(GOOD).encode("utf-16"), Reason.WRONG_TYPE),
        (b'{"a":' * 100_000, Reason.NOT_JSON),
        (b'{"id": ' + b"9" * 10_000 + b"}", Reason.NOT_JSON),
        (b"{" + b", ".join(b'"k%d": 1' % n for n in range(100_000)) + b"}", Reason.MISSING_FIELD),
    ],
)
def test_no_message_is_more_than_refused(payload: bytes, reason: Reason) -> None:
    """What a flow cannot read, it must not fall over: it would be read again by every successor."""
    (refused,) = gate(payload).refused
    assert refused.failures[0].reason == reason
    assert all(failure.detail.encode() and len(failure.detail) < 1_000 for failure in refused.failures)
    assert event_id(payload, "id") is None or event_id(payload, "id") == "1"


@given(st.data())
@settings(max_examples=200)
def test_no_mutation_of_a_message_is_more_than_refused(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(GOOD).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        stop = min(len(payload), start + data.draw(st.integers(0, 6)))
        payload[start:stop] = data.draw(st.binary(max_size=6) | st.sampled_from([b"\\ud800", b"1e999", b"null", b"{"]))
    gated = gate(bytes(payload))
    assert len(gated.good) + len(gated.refused) == 1
    assert all(failure.detail.encode() for one in gated.refused for failure in one.failures)
    event_id(bytes(payload), "id")
