"""The raw mirror: every accepted event, and every refused one, appended to Delta."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import redis
from deltalake import write_deltalake

from rtml import instants
from rtml.algebra.family import ID64
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.lake import EVENT_DATE, INGEST_DATE, QUARANTINE, Lake, raw_schema, signed
from rtml.online import keys
from rtml.projection import INGESTED_AT
from streaming.broker import is_passing
from streaming.figures import Figures
from streaming.gate import ARRIVED, Gated, Refused
from streaming.heartbeats import note
from streaming.refusals import RefusalLog

if TYPE_CHECKING:
    from redis import Redis

DEAD_LENGTH = 1_000

_log = logging.getLogger(__name__)


class Mirror:
    """Appends one source's events; what it has taken is durable when `flush` returns."""

    def __init__(self, client: Redis, lake: Lake, source: EventSource, figures: Figures) -> None:
        """Write to `raw/` and `quarantine/` of a source."""
        self._client = client
        self._lake = lake
        self._source = source
        self._figures = figures
        self._schema = raw_schema(source)
        self._good: list[pl.DataFrame] = []
        self._refused: list[Refused] = []
        self._refusals = RefusalLog(source)
        self._heartbeats: dict[int, str] = {}

    def take(self, gated: Gated) -> None:
        """Keep a micro-batch for the next flush."""
        if gated.good.height:
            self._good.append(gated.good)
        self._refused += gated.refused
        if gated.entries.heartbeat is not None:
            self._heartbeats[gated.entries.partition] = gated.entries.heartbeat

    def flush(self) -> None:
        """Commit all that was taken."""
        if self._good:
            self._write_good(pl.concat(self._good))
            self._good = []
        if self._refused:
            self._write_refused(self._refused)
            self._refused = []
        self._note_heartbeats()

    def _note_heartbeats(self) -> None:
        """Say which heartbeats had nothing but durable events before them; again next time, where Redis is away."""
        try:
            for partition, offset in self._heartbeats.items():
                self._client.eval(*note(self._source.name, "mirror", partition, offset)[1:])
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
            if isinstance(error, redis.ResponseError) and not is_passing(error):
                raise
            _log.warning("heartbeats are noted later: %s", error)
        else:
            self._heartbeats = {}

    def _write_good(self, events: pl.DataFrame) -> None:
        date = pl.col(self._source.timestamp).dt.date().alias(EVENT_DATE)
        rows = events.with_columns(signed(ID64), date).select(*self._schema)
        raw = self._lake.raw(self._source.name)
        started = perf_counter()
        write_deltalake(raw, rows, mode="append", schema_mode="merge", partition_by=[EVENT_DATE])
        self._figures.stage("append", perf_counter() - started)
        self._figures.count(accepted=rows.height)
        self._figures.sent(events[ARRIVED].to_list())
        self._figures.servable(instants.now())

    def _write_refused(self, refused: list[Refused]) -> None:
        rows = pl.DataFrame(
            {
                "partition": [event.partition for event in refused],
                "offset": [event.offset for event in refused],
                INGESTED_AT: pl.Series([event.ingested_at for event in refused], dtype=pl.Int64).cast(TIMESTAMP),
                "payload": [event.payload for event in refused],
                "reason": [event.failures[0].reason.value for event in refused],
                "detail": [_words(event) for event in refused],
            }
        ).with_columns(pl.col(INGESTED_AT).dt.date().alias(INGEST_DATE))
        append_quarantined(self._lake, self._source, rows)
        self._show(refused)
        self._refusals.note(refused)
        self._figures.count(refused=rows.height)

    def _show(self, refused: list[Refused]) -> None:
        """Keep the newest few in Redis, for a quick look."""
        pipeline = self._client.pipeline(transaction=False)
        for event in refused[-DEAD_LENGTH:]:
            shown = {
                "partition": event.partition,
                "offset": event.offset,
                "ingested_at": instants.to_text(event.ingested_at),
                "payload": event.payload[:10_000].decode(errors="backslashreplace"),
                "detail": _words(event),
            }
            pipeline.lpush(keys.dead(self._source.name), msgspec.json.encode(shown))
        pipeline.ltrim(keys.dead(self._source.name), 0, DEAD_LENGTH - 1)
        pipeline.execute()


def append_quarantined(lake: Lake, source: EventSource, rows: pl.DataFrame) -> None:
    """Append to `quarantine/`; columns that the rows do not have are null."""
    columns = [pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in QUARANTINE]
    stored = rows.select(column.cast(dtype) for column, dtype in zip(columns, QUARANTINE.values(), strict=True))
    uri = lake.quarantine(source.name)
    write_deltalake(uri, stored, mode="append", partition_by=[INGEST_DATE], schema_mode="merge")


def _words(event: Refused) -> str:
    return "; ".join(f"{failure.reason.value}: {failure.detail}" for failure in event.failures)
