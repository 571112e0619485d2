"""Reading a source's raw mirror again, as its stream brought it: in the order of `ingested_at`.

Only what is on time is read: the rest is publish's (I6). An event that is on time was ingested within the lateness of
its own time, so that an hour of ingestion lies in few event days, and a day of the table is never read for another.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import polars as pl
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from rtml.algebra.family import ID64
from rtml.define.source import EventSource
from rtml.instants import BEGINNING, DAY, Instant, floor, to_datetime, to_instant
from rtml.lake import Lake, raw_schema, unsigned
from rtml.projection import INGESTED_AT
from streaming.delta import open_table, scan
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated
from streaming.mended import Mended, mirrored_by_day
from streaming.progress import Progress

ROWS_AT_ONCE = 500_000
"""About how many rows are held in memory."""
PARTS = 64
"""Into so many equal spans is one divided that holds more."""


class Stretch(NamedTuple):
    """Which rows are read: ingested from `start` to `end`, both included, of events at `since` or after."""

    start: Instant
    end: Instant
    since: Instant = BEGINNING
    days: frozenset[date] | None = None
    """Of these event days only."""


def read_raw(lake: Lake, source: EventSource, stretch: Stretch, limit: int = ROWS_AT_ONCE) -> Iterator[pl.DataFrame]:
    """Return the on-time rows of `raw/` in the order of `ingested_at`, in frames of about `limit` rows.

    Frames have the contract's columns, `ingested_at` and `id64` (unsigned). All are of the table as it is when the
    first is asked for.
    """
    counts = mirrored_by_day(lake, source)
    table = open_table(lake.raw(source.name))
    mended = Mended.load(lake, source)
    time, ingested = pl.col(source.timestamp).dt.epoch("us"), pl.col(INGESTED_AT).dt.epoch("us")
    # Of duplicates of one instant the least payload comes first, as in `events/`.
    order = [INGESTED_AT, source.timestamp, ID64, *(name for name in source.columns if name != source.timestamp)]
    for span, days in _ingestion_days(source, stretch, list(counts)):
        rows = mended.over(scan(table, raw_schema(source), days), days).filter(
            _within(span), ingested - time <= source.lateness_us, time >= stretch.since
        )
        for part in _divided(rows, span, sum(counts[day] for day in days), limit):
            frame = rows.filter(_within(part)).with_columns(unsigned(ID64)).collect()
            if frame.height:
                yield frame.sort(*order, nulls_last=True)


_Span = tuple[Instant, Instant]
"""Instants of ingestion, `[first, last)`."""


def _ingestion_days(source: EventSource, stretch: Stretch, days: list[date]) -> Iterator[tuple[_Span, list[date]]]:
    """Return spans of at most a day in which on-time events of these days were ingested, and which days those are."""
    found: dict[Instant, list[date]] = {}
    for day in days:
        begin = to_instant(day)
        if begin + DAY <= stretch.since or (stretch.days is not None and day not in stretch.days):
            continue
        first = floor(max(begin - source.skew_us, stretch.start), DAY)
        last = min(begin + DAY + source.lateness_us, stretch.end)
        for start in range(first, last + 1, DAY):
            found.setdefault(start, []).append(day)
    for start in sorted(found):
        yield (max(start, stretch.start), min(start + DAY, stretch.end + 1)), found[start]


def _divided(rows: pl.LazyFrame, span: _Span, count: int, limit: int) -> Iterator[_Span]:
    """Divide a span that has up to `count` rows until each part has about `limit`, or is a single instant."""
    first, last = span
    if count <= limit or last - first <= 1:
        yield span
        return
    size = -(-(last - first) // PARTS)
    place = ((pl.col(INGESTED_AT).dt.epoch("us") - first) // size).alias("place")
    counted = rows.filter(_within(span)).group_by(place).len().sort("place").collect()
    held, start, stop = 0, first, first
    for place_of, rows_there in counted.rows():
        begin = first + place_of * size
        if held and held + rows_there > limit:
            yield from _divided(rows, (start, stop), held, limit)
            held = 0
        if not held:
            start = begin
        held, stop = held + rows_there, min(begin + size, last)
    if held:
        yield from _divided(rows, (start, stop), held, limit)


def _within(span: _Span) -> pl.Expr:
    first, last = (to_datetime(instant) for instant in span)
    return (pl.col(INGESTED_AT) >= first) & (pl.col(INGESTED_AT) < last)


class TableSource(FixedPartitionedSource[Gated, None]):
    """The raw mirror of a source, as one partition whose end comes: events that have passed the gate before."""

    def __init__(
        self, lake: Lake, source: EventSource, stretch: Stretch, batch: int, progress: Progress | None
    ) -> None:
        """Take what to read; a `progress` is told what is durable."""
        self._frames = read_raw(lake, source, stretch)
        self._source = source
        self._batch = batch
        self._progress = progress
        self.events = 0
        """How many were read."""

    def list_parts(self) -> list[str]:
        """The only one."""
        return ["raw"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> TablePartition:
        """Open it; it is read from its beginning, which by I1 is always safe."""
        del step_id, for_part, resume_state
        return TablePartition(self, self._batches())

    def cover(self, instant: Instant) -> None:
        """Say that all that was ingested up to an instant is durable, whatever partition it came by."""
        if self._progress is not None:
            for partition in range(self._source.stream.partitions):
                self._progress.cover(partition, instant)

    def _batches(self) -> Iterator[Gated]:
        for frame in self._frames:
            arrived = frame.with_columns(pl.col(INGESTED_AT).dt.epoch("us").alias(ARRIVED))
            for batch in arrived.iter_slices(self._batch):
                self.events += batch.height
                yield Gated(Entries(0, [], [], [], []), batch, [])


class TablePartition(StatefulSourcePartition[Gated, None]):
    """One pass through the table."""

    def __init__(self, source: TableSource, batches: Iterator[Gated]) -> None:
        """Begin at the first batch."""
        self._source = source
        self._batches = batches
        self._emitted: Instant = BEGINNING
        self._snapshot: Instant = BEGINNING

    def next_batch(self) -> list[Gated]:
        """Return the next batch; what came before the last snapshot is durable by now."""
        if self._snapshot != BEGINNING:
            self._source.cover(self._snapshot)
        batch = next(self._batches)  # its StopIteration is the end
        self._emitted = batch.good[ARRIVED][-1]
        return [batch]

    def snapshot(self) -> None:
        """Note how far an epoch has come; it counts once the epoch has closed."""
        self._snapshot = self._emitted
