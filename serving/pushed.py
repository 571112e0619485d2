"""A push as JSON: its events, what came of them, and why a source takes none."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rtml.errors import RtmlError


class UnknownSourceError(RtmlError):
    """A source that no flow runs for."""


class ReplayTimeError(RtmlError):
    """A source that runs on the stamps that its entries carry: the present is not to be mixed with those."""


class RefusedEvent(msgspec.Struct):
    """One event that the contract does not allow."""

    index: Annotated[int, Meta(description="Its place in the request, from 0.")]
    reason: Annotated[str, Meta(description="The first reason, one word for programs.", examples=["out_of_range"])]
    message: Annotated[str, Meta(description="All that is wrong with it, for people.")]
    event: Annotated[str | None, Meta(description="Its event id, as far as that can be read.")] = None


class Pushed(msgspec.Struct):
    """What came of the events of a push."""

    accepted: Annotated[int, Meta(description="How many were appended to the stream.")]
    refused: Annotated[list[RefusedEvent], Meta(description="Those that were not, and why.")]
    late: Annotated[
        list[int],
        Meta(description="Places of accepted events that came later than the source's lateness allows: they are in the "
             "lake, and count online from the next compaction on."),
    ]  # fmt: skip
    idempotent: Annotated[
        bool,
        Meta(description="Whether an event that is pushed again counts once: the source has an event id."),
    ]
    ingested_at: Annotated[
        str | None,
        Meta(
            description="When the stream took the last of them, RFC 3339; null when it took none. They count in "
            "answers whose `watermark` is later."
        ),
    ] = None


class PushRequest(msgspec.Struct):
    """Events to be pushed, as the stream takes them: timestamps are RFC 3339 with an offset, or integer µs."""

    events: Annotated[
        list[dict[str, Any]],
        Meta(examples=[[{"event_id": "1", "event_time": "2026-01-01T12:00:00Z", "origin": "JFK", "dep_delay": 4}]]),
    ]
