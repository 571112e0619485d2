"""What travels over HTTP: the request and its answers as JSON, and every failure as a status, a code and a message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rtml import instants
from rtml.errors import (
    InstantError,
    NotReadyError,
    OverflowedError,
    RequestError,
    RtmlError,
    StaleError,
    TooLargeError,
    UnavailableError,
    UnknownNameError,
    near_miss,
)
from rtml.instants import Instant
from rtml.staleness import Status
from serving.admission import OverloadedError
from serving.budget import LEAST_MS, MOST_MS, STAGES, DeadlineError
from serving.features import LEADING_EDGES, FeatureVectors, LeadingEdge
from serving.pushed import Pushed
from serving.told import ToldEdges, told

RETRY_SECONDS = 1
"""After how long a client may ask again when something was not ready."""

LONGEST_MESSAGE = 2_000
"""What a request said is not said back at any length."""

_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`", re.DOTALL)
_NOT_ONE_OF = re.compile(r"Invalid enum value '(.*)' - at `\$\.leading_edge`", re.DOTALL)


class LateBodyError(RtmlError):
    """A body that did not come to its end in time."""


class FeatureRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which entities, and at which instant."""

    entities: Annotated[
        list[dict[str, Any]] | dict[str, Any],
        Meta(
            description="One object of join keys a row; or one object that has for each join key a list with a value "
            "for each row, or one value that all rows share. Other fields are ignored.",
            examples=[[{"origin": "JFK"}], {"user": "u1", "item": ["a", "b"]}],
        ),
    ]
    at: Annotated[
        int | str | None,
        Meta(
            description="The instant that all windows end at: RFC 3339 with an offset, or integer microseconds "
            "since 1970. Without it, the leading edge.",
            examples=["2013-03-01T12:00:00Z"],
        ),
    ] = None
    leading_edge: Annotated[
        LeadingEdge,
        Meta(
            description="`wall_clock`: now. `watermark`: up to where all of the service's sources are servable, "
            "which is what a replay needs."
        ),
    ] = "wall_clock"
    edges: Annotated[bool, Meta(description="Whether to say what each feature's window really covers.")] = False

    timeout_ms: Annotated[
        int | None,
        Meta(
            description="How long the answer may take, counted from the request's arrival; then it is 504. Without it, "
            "a request waits for its turn, and then for Redis, as long as the server is set to.",
            examples=[50],
            extra_json_schema={"minimum": LEAST_MS, "maximum": MOST_MS},
        ),
    ] = None
    timings: Annotated[
        bool, Meta(description="Whether the answer says what took how long, as `timings_ms` and as `Server-Timing`.")
    ] = False

    def seconds(self) -> float | None:
        """Return how long the answer may take, if that is said.

        Raises:
            RequestError: no request may have so little time, or so much.
        """
        if self.timeout_ms is None:
            return None
        if not LEAST_MS <= self.timeout_ms <= MOST_MS:
            raise RequestError(f"timeout_ms must be a whole number from {LEAST_MS} to {MOST_MS}; got {self.timeout_ms}")
        return self.timeout_ms / 1_000

    def instant(self) -> Instant | None:
        """Return the instant that is asked for, if any.

        Raises:
            InstantError: `at` has no offset, or is no time.
        """
        if self.at is None:
            return None
        try:
            return instants.to_instant(self.at)
        except InstantError as error:
            raise InstantError(f"at: {error}") from None


class FeatureResponse(msgspec.Struct):
    """The features, one row an entity in the order asked."""

    features: Annotated[list[str], Meta(description="The columns, as `view__feature`.")]
    rows: Annotated[list[list[Any]], Meta(description="One list of values an entity; null where none.")]
    status: Annotated[
        dict[str, list[Status]],
        Meta(
            description="Per view one status a row. `fresh`; `stale`: the stream is further behind than the view's "
            "freshness; `expired`: the entity's last event is older than the view's ttl; `partial`: a window reaches "
            "behind published history; `missing`: never seen; `damaged`: raw records are lost."
        ),
    ]
    at: Annotated[str, Meta(description="The instant that windows end at, RFC 3339.")]
    watermark: Annotated[
        str | None, Meta(description="Up to where all sources are servable, RFC 3339; null when nothing is yet.")
    ]
    age_ms: Annotated[float | None, Meta(description="How far the watermark lies before `at`.")]
    timings_ms: Annotated[
        dict[str, float] | UnsetType,
        Meta(description=f"Milliseconds by stage ({', '.join(STAGES)}), where `timings` asks for them."),
    ] = UNSET
    edges: Annotated[
        dict[str, ToldEdges] | UnsetType,
        Meta(
            description="By feature, where the request asked for it: the window's edges, and by how much they are off."
        ),
    ] = UNSET


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong."""

    code: Annotated[str, Meta(description="One word for programs.", examples=["unknown_service"])]
    message: Annotated[str, Meta(description="One sentence for people.")]
    request_id: Annotated[str | None, Meta(description="The request's id, which the server's log has, too.")] = None
    pushed: Annotated[Pushed | None, Meta(description="Of a push: what came of its events.")] = None


class Failure(msgspec.Struct):
    """The answer of every request that failed."""

    error: Problem


class Health(msgspec.Struct):
    """The answer of a process that lives."""

    status: str = "ok"


class Readiness(msgspec.Struct, omit_defaults=True):
    """Whether requests would be answered, and all that stands in the way."""

    ready: bool
    reasons: list[str]
    warnings: Annotated[list[str], Meta(description="What is wrong, and does not stand in the way.")] = []


class Reply(NamedTuple):
    """An answer before it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    problem: Problem | None = None
    """What the body says went wrong, until it is given the request's id."""


_text = lru_cache(maxsize=64)(instants.to_text)
"""Requests that are read together share their instants."""
_decoder = msgspec.json.Decoder(FeatureRequest)
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""A struct → JSON; NaN and infinities become null."""


def decode_request(body: bytes) -> FeatureRequest:
    """Return the request of a body.

    Raises:
        RequestError: it is not JSON, or does not fit; the message says where.
    """
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(_misfit(str(error))) from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body must be JSON: {error}") from None


def _misfit(message: str) -> str:
    if found := _UNKNOWN_FIELD.search(message):
        return f"unknown field {found[1]!r:.100} in the request.{near_miss(found[1], FeatureRequest.__struct_fields__)}"
    if found := _NOT_ONE_OF.search(message):
        near = near_miss(found[1], LEADING_EDGES)
        return f"leading_edge must be 'wall_clock' or 'watermark'; got {found[1]!r:.100}.{near}"
    return f"the request does not fit: {message}"


def encode_vectors(vectors: FeatureVectors, *, edges: bool = False) -> bytes:
    """Return the body of an answer."""
    return encode(
        FeatureResponse(
            features=vectors.features,
            rows=vectors.rows,
            status=vectors.status,
            at=_text(vectors.at),
            watermark=None if vectors.watermark is None else _text(vectors.watermark),
            age_ms=vectors.age_ms,
            edges=told(vectors.edges) if edges else msgspec.UNSET,
        )
    )


def with_timings(body: bytes, timings: dict[str, float]) -> bytes:
    """Return an answer's body with what took how long: known only when the answer itself is encoded."""
    return body[:-1] + b',"timings_ms":' + encode(timings) + b"}"


_RETRY = (("retry-after", str(RETRY_SECONDS)),)
_FAILURES: dict[type[RtmlError], tuple[int, str, Sequence[tuple[str, str]]]] = {
    RequestError: (400, "invalid_request", ()),
    InstantError: (400, "invalid_instant", ()),
    UnknownNameError: (404, "unknown_service", ()),
    LateBodyError: (408, "late_body", ()),
    TooLargeError: (413, "too_large", ()),
    OverflowedError: (422, "overflowed", ()),
    NotReadyError: (503, "not_ready", _RETRY),
    OverloadedError: (503, "overloaded", _RETRY),
    StaleError: (503, "stale", _RETRY),
    UnavailableError: (503, "unavailable", _RETRY),
    DeadlineError: (504, "deadline_exceeded", ()),
}


def failure(status: int, code: str, message: str, headers: Sequence[tuple[str, str]] = ()) -> Reply:
    """Return the answer that says what went wrong."""
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}…"
    problem = Problem(code, message)
    return Reply(status, encode(Failure(problem)), headers=headers, problem=problem)


def overloaded(message: str) -> Reply:
    """Return the answer to a request that is not taken on."""
    return failure(503, "overloaded", message, _RETRY)


def encode_problem(problem: Problem, request_id: str) -> bytes:
    """Return the body that says what went wrong, and with which request."""
    return encode(Failure(msgspec.structs.replace(problem, request_id=request_id)))


def failure_of(error: RtmlError) -> Reply | None:
    """Return the answer to an error that a request may have; `None` for one that it may not."""
    known = next((kind for kind in type(error).__mro__ if kind in _FAILURES), None)
    if known is None:
        return None
    status, code, headers = _FAILURES[known]
    return failure(status, code, str(error), headers)


def unexpected(request_id: str) -> Reply:
    """Return the answer to an error that nobody foresaw."""
    return failure(500, "internal", f"an unexpected error; the server's log has it under request id {request_id}")
