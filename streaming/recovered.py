"""A Redis that has lost what the lake holds of a source: it is history again, as if it had been landed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import polars as pl

from rtml.define.source import EventSource
from rtml.instants import Instant, to_instant, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.projection import INGESTED_AT
from streaming.delta import open_table
from streaming.positions import START, Position, raise_position, read_positions
from streaming.rewind import last_ingested

if TYPE_CHECKING:
    from redis import Redis

STATISTICS_STEP = 1_000
"""Delta's statistics cut timestamps to milliseconds."""

log = logging.getLogger(__name__)


def notice_history(client: Redis, lake: Lake, source: EventSource) -> None:
    """Note up to when the lake holds what a stream no longer does, so that compaction publishes it anew.

    That is so where Redis lost everything, or came back from an older copy of itself. Nothing is noted where it knows
    how far the mirror has come, or where the stream still holds what the mirror brought.
    """
    newest = newest_ingested(lake, source)
    partitions = range(source.stream.partitions)
    positions = read_positions(client, keys.mirrored(source.name), len(partitions))
    if newest is None or any(position.ingested_at >= newest for position in positions):
        return
    ends = [last_ingested(client, source, partition) for partition in partitions]
    if any(end is not None and end >= newest for end in ends):
        return  # an epoch that was appended, and not noted yet
    words = "%s: Redis has nothing of what raw/ holds up to %s: compaction publishes it"
    log.warning(words, source.name, to_text(newest))
    until = newest + STATISTICS_STEP
    client.set(keys.landed(source.name), until)
    for partition in partitions:
        raise_position(client, keys.mirrored(source.name), partition, Position(START, until))


def newest_ingested(lake: Lake, source: EventSource) -> Instant | None:
    """Return the millisecond in which the newest event of the mirror was ingested, from the table's log alone."""
    table = open_table(lake.raw(source.name))
    if table is None:
        return None
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    column = f"max.{INGESTED_AT}"
    found = files[column].max() if column in files.columns else None
    return None if found is None else to_instant(found)
