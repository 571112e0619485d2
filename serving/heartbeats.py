"""What Redis has of a source's heartbeats, as a server sees it: the last leg of the way that the watch measures."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rtml import instants
from rtml.instants import Instant
from rtml.online import keys
from serving.redis_io import RedisReader
from streaming.heartbeats import parse_heard

FLOWS = ("tiles", "mirror")


class Heartbeat(msgspec.Struct):
    """The newest heartbeat that a flow has passed on in a partition."""

    id: Annotated[str, Meta(description="Its entry's id in the stream.")]
    written_at: Annotated[
        Instant, Meta(description="When the flow noted it, by Redis' clock; microseconds since 1970.")
    ]


class Heartbeats(msgspec.Struct):
    """The newest heartbeats of a source, by flow and partition."""

    source: str
    flows: dict[str, dict[str, Heartbeat]]
    clock: Annotated[Instant, Meta(description="The server's clock, microseconds since 1970.")]
    redis_clock: Annotated[Instant, Meta(description="Redis' clock, microseconds since 1970.")]


async def read_heartbeats(reader: RedisReader, source: str) -> Heartbeats:
    """Return what Redis has, by one round trip; nothing for a source that nobody sends heartbeats to.

    Raises:
        UnavailableError: Redis did not answer.
    """
    asked = [("HGETALL", keys.heartbeat(source, flow)) for flow in FLOWS]
    (seconds, micros), *stored = await reader.read([("TIME",), *asked])
    flows = {
        flow: {
            str(partition): Heartbeat(heard.offset, heard.written_at) for partition, heard in parse_heard(found).items()
        }
        for flow, found in zip(FLOWS, stored, strict=True)
    }
    return Heartbeats(source, flows, instants.now(), int(seconds) * 1_000_000 + int(micros))
