"""Requests and failures as JSON."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml import instants
from rtml.errors import (
    CodecError,
    InstantError,
    NotReadyError,
    OverflowedError,
    RequestError,
    StaleError,
    TooLargeError,
    UnavailableError,
    UnknownNameError,
)
from serving import wire
from serving.features import FeatureVectors
from serving.openapi import openapi

NOON = 1_362_139_200_000_000


def test_a_request_names_entities_and_an_instant():
    request = wire.decode_request(b'{"entities": [{"user": "ann", "shop": 7, "member": true}], "at": 5}')
    assert request.entities == [{"user": "ann", "shop": 7, "member": True}]
    assert (request.instant(), request.leading_edge) == (5, "wall_clock")


@pytest.mark.parametrize("at", ['"2013-03-01T12:00:00Z"', '"2013-03-01T13:00:00+01:00"', str(NOON)])
def test_an_instant_is_text_with_an_offset_or_microseconds(at):
    assert wire.decode_request(b'{"entities": [], "at": %s}' % at.encode()).instant() == NOON


def test_without_an_instant_it_is_the_leading_edge():
    request = wire.decode_request(b'{"entities": [], "leading_edge": "watermark"}')
    assert (request.instant(), request.leading_edge) == (None, "watermark")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        (b'{"entities": []} {}', "must be JSON"),
        (b'{"entities": [{"user": NaN}]}', "must be JSON"),
        (b'{"entities": [{"user": "\xff"}]}', "must be JSON"),
        (b'{"entities": [{"user": "\\ud800"}]}', "must be JSON"),
        (b'{"entities": [{"user": ' + b"[" * 100_000, "must be JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `entities`"),
        (b'{"entites": []}', "unknown field 'entites' in the request. Did you mean 'entities'?"),
        (
            b'{"entities": [], "when": 1}',
            "unknown field 'when' in the request. Known: at, edges, entities, leading_edge, timeout_ms, timings.",
        ),
        (b'{"entities": 5}', "Expected `object | array`, got `int` - at `$.entities`"),
        (b'{"entities": ["ann"]}', "Expected `object`, got `str` - at `$.entities[0]`"),
        (b'{"entities": [], "at": 1.5}', "Expected `int | str | null`, got `float` - at `$.at`"),
        (b'{"entities": [], "at": true}', "got `bool` - at `$.at`"),
        (
            b'{"entities": [], "leading_edge": "wallclock"}',
            "leading_edge must be 'wall_clock' or 'watermark'; got 'wallclock'. Did you mean 'wall_clock'?",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_what_is_wrong(body, said):
    with pytest.raises(RequestError) as refused:
        wire.decode_request(body)
    assert said in str(refused.value)


@pytest.mark.parametrize("at", ["2013-03-01T12:00:00", "yesterday", ""])
def test_an_instant_without_an_offset_is_refused(at):
    with pytest.raises(InstantError, match=r"^at: a timestamp must"):
        wire.decode_request(json.dumps({"entities": [], "at": at}).encode()).instant()


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_body_is_a_request_or_an_error_of_ours(body):
    with suppress(RequestError):
        wire.decode_request(body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"))


def vectors(**changes):
    given = {"features": ["v__a", "v__b"], "rows": [[1, None]], "status": {"v": ["fresh"]}}
    return FeatureVectors(**{**given, "at": NOON, "watermark": NOON - 1_500_000, "age_ms": 1500.0, **changes})


def test_an_answer_tells_times_in_rfc_3339():
    assert json.loads(wire.encode_vectors(vectors())) == {
        "features": ["v__a", "v__b"],
        "rows": [[1, None]],
        "status": {"v": ["fresh"]},
        "at": "2013-03-01T12:00:00Z",
        "watermark": "2013-03-01T11:59:58.500000Z",
        "age_ms": 1500.0,
    }


def test_where_nothing_is_servable_watermark_and_age_are_null():
    answer = json.loads(wire.encode_vectors(vectors(watermark=None, age_ms=None)))
    assert (answer["watermark"], answer["age_ms"]) == (None, None)


def test_no_answer_holds_a_number_that_is_none_in_json():
    answer = json.loads(wire.encode_vectors(vectors(rows=[[math.nan, math.inf], [-math.inf, 0.5]])))
    assert answer["rows"] == [[None, None], [None, 0.5]]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("x"), 400, "invalid_request"),
        (InstantError("x"), 400, "invalid_instant"),
        (UnknownNameError("x"), 404, "unknown_service"),
        (TooLargeError("x"), 413, "too_large"),
        (OverflowedError("x"), 422, "overflowed"),
        (NotReadyError("x"), 503, "not_ready"),
        (StaleError("x"), 503, "stale"),
        (UnavailableError("x"), 503, "unavailable"),
    ],
)
def test_every_error_of_a_request_has_a_status_and_a_code(error, status, code):
    reply = wire.failure_of(error)
    assert reply is not None
    assert (reply.status, json.loads(reply.body)) == (status, {"error": {"code": code, "message": "x"}})
    assert (("retry-after", "1") in reply.headers) == (status == 503)


def test_an_error_that_no_request_can_cause_has_none():
    assert wire.failure_of(CodecError("x")) is None
    assert "abc" in json.loads(wire.unexpected("abc").body)["error"]["message"]


def test_a_failure_is_given_its_request_s_id():
    problem = wire.failure(404, "not_found", "no path").problem
    assert problem is not None
    error = {"code": "not_found", "message": "no path", "request_id": "abc"}
    assert json.loads(wire.encode_problem(problem, "abc")) == {"error": error}


def test_the_latest_instant_is_the_end_of_the_century():
    from serving.features import LATEST

    assert instants.to_text(LATEST) == "2100-01-01T00:00:00Z"


def test_openapi_knows_every_failure_that_a_request_for_features_may_have() -> None:
    described = openapi()["paths"]["/v1/features/{service}"]["post"]["responses"]
    assert {str(status) for status, _, _ in wire._FAILURES.values()} <= set(described)
