"""A Redis that has lost everything: what the lake holds of a source is history again, as if it had been landed."""

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
from streaming.positions import START, Position, raise_position
from streaming.rewind import first_ingested

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)


def notice_history(client: Redis, lake: Lake, source: EventSource) -> None:
    """Note up to when the lake holds what a stream no longer does, so that compaction publishes it anew.

    Nothing is noted where Redis knows how far the mirror has come, or where the stream still holds what is mirrored.
    """
    if client.exists(keys.mirrored(source.name), keys.landed(source.name)):
        return
    newest = newest_ingested(lake, source)
    if newest is None:
        return
    begins = [first_ingested(client, source, partition) for partition in range(source.stream.partitions)]
    if any(begin is not None and begin <= newest for begin in begins):
        return
    log.warning(
        "%s: Redis has nothing of what raw/ holds up to %s: compaction publishes it", source.name, to_text(newest)
    )
    client.set(keys.landed(source.name), newest)
    for partition in range(source.stream.partitions):
        raise_position(client, keys.mirrored(source.name), partition, Position(START, newest))


def newest_ingested(lake: Lake, source: EventSource) -> Instant | None:
    """Return when the newest event of the mirror was ingested, from the table's log alone."""
    table = open_table(lake.raw(source.name))
    if table is None:
        return None
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    column = f"max.{INGESTED_AT}"
    found = files[column].max() if column in files.columns else None
    return None if found is None else to_instant(found)
