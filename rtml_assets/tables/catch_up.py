"""What follows a version's boundary, where the stream does not hold it: replayed from the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rtml.define.source import EventSource
from rtml.errors import NotReadyError
from rtml.instants import Instant, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.projection import RowWise
from rtml_assets.tables.publisher import Hold, kept
from streaming.rewind import oldest
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis


def is_followed(client: Redis, source: EventSource, edge: Instant) -> bool:
    """Whether the stream holds all events from a boundary on.

    They may have been ingested as early as the skew before it. What was landed never was in the stream.
    """
    if client.exists(keys.landed(source.name)):
        return False
    if not client.exists(keys.trimmed(source.name)):
        return True
    begins = [oldest(client, source, partition) for partition in range(source.stream.partitions)]
    return all(begin is None or begin <= edge - source.skew_us for begin in begins)


def catch_up(lake: Lake, client: Redis, view: RowWise, version: Version, mirrored: Instant, hold: Hold) -> int:
    """Apply what was ingested up to an instant to a version, and let the flow have it; return how many events.

    Raises:
        NotReadyError: the stream no longer holds what was ingested after that.
    """
    # Bytewax is for the processes that stream: those that only define assets need not load it.
    from streaming.table_replay import replay_table  # noqa: PLC0415

    source = view.source
    with kept(hold):
        start = version.boundary - max(source.skew_us, version.plan.skew)
        count = replay_table(client, lake, source, [(view, version)], start=start, end=mirrored)
    for partition in range(source.stream.partitions):
        begin = oldest(client, source, partition)
        if begin is not None and begin > mirrored:
            raise NotReadyError(
                f"view {view.name!r}: all is in the lake up to {to_text(mirrored)}, and the oldest entry of partition "
                f"{partition} of source {source.name!r} is of {to_text(begin)}: what came between would be missing"
            )
    caught_up = msgspec.structs.replace(version, state="building", caught_up_to=mirrored)
    client.hset(keys.meta(version.view, version.version), mapping={"caught_up_to": mirrored, "state": caught_up.state})
    return count
