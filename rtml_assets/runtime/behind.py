"""How far a flow is behind what was sent, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtml import instants
from rtml.define.source import EventSource
from rtml.online import keys
from streaming.heartbeats import last_event
from streaming.positions import read_positions

if TYPE_CHECKING:
    from redis import Redis


def behind(client: Redis, source: EventSource, key: str, present: instants.Instant) -> str:
    """Say how far the flow of a position's key is behind what was sent up to an instant; nothing when it is not."""
    stream = source.stream
    replayed = client.exists(keys.replay_time(source.name))
    for partition, position in enumerate(read_positions(client, key, stream.partitions)):
        name = stream.key(partition)
        if last_event(client, name, after=f"({position.offset}") is not None:
            count = len(client.xrange(name, f"({position.offset}", count=10_000) or ())
            return f"{count} entries behind in partition {partition}"
        if not replayed and client.exists(name) and position.ingested_at < present - 1_000:
            return f"at {instants.to_text(position.ingested_at)} in partition {partition}"
    return ""
