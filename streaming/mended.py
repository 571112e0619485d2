"""The mirror as it counts: `raw/`, with what people decided of quarantined events laid over it.

Nothing is ever changed in `raw/`. A decision names an event by its time, id64 and `ingested_at`, and says what counts
instead of it; so one commit of `decisions/` switches every road at once, and an event stays as late as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64
from rtml.define.source import EventSource
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, Instant, to_instant
from rtml.lake import DECISIONS, EVENT_DATE, Lake, raw_schema, signed, unsigned
from rtml.projection import INGESTED_AT
from streaming.decode import Decoder
from streaming.delta import open_table, rows_by_day, scan
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated

CORRECTED, DROPPED, RELEASED, ACCEPTED = "corrected", "dropped", "released", "accepted"
MENDING = (CORRECTED, DROPPED, RELEASED)
"""The decisions by which other events count than before."""

_IDENTITY = [EVENT_TIME, ID64, INGESTED_AT]

Place = tuple[int, str]
"""A partition and an offset."""


def mirrored_by_day(lake: Lake, source: EventSource) -> dict[date, int]:
    """Return for each day how many rows `raw/` and `decisions/` have of it, from their logs alone.

    Both only grow, so a day whose number is the same holds what it held before.
    """
    counts = Counter(rows_by_day(open_table(lake.raw(source.name))))
    counts.update(rows_by_day(open_table(lake.decisions(source.name))))
    return dict(sorted(counts.items()))


def mended_count(lake: Lake, source: EventSource) -> int:
    """Return how many decisions there are by which other events count than before."""
    table = open_table(lake.decisions(source.name))
    if table is None:
        return 0
    return int(scan(table, DECISIONS).filter(pl.col("kind").is_in(MENDING)).select(pl.len()).collect().item())


def scan_mirrored(lake: Lake, source: EventSource, days: Collection[date] | None = None) -> pl.LazyFrame:
    """Return the rows of `raw/` that count, of all days or some, with those that count instead of others."""
    raw = open_table(lake.raw(source.name))  # before the decisions: whatever they name is in it
    return Mended.load(lake, source, days).over(scan(raw, raw_schema(source), days), days)


@dataclass(frozen=True)
class Mended:
    """What was decided of a source's events. Frames have the columns of `raw/`, or some of them; `id64` is signed."""

    source: EventSource
    gone: pl.DataFrame
    """The time, id64 and `ingested_at` of rows that do not count as they are."""
    events: pl.DataFrame
    """What counts instead, and what was released."""
    places: dict[Place, tuple[object, ...]]
    """Of released events: their place in the stream, and by which time, id64 and `ingested_at` they were released."""

    @classmethod
    def load(cls, lake: Lake, source: EventSource, days: Collection[date] | None = None) -> Mended:
        """Return what has been decided by now, of all days or some.

        Raises:
            NotReadyError: an event that was decided on does not fit the contract any longer.
        """
        rows = scan(open_table(lake.decisions(source.name)), DECISIONS, days)
        decided = rows.filter(pl.col("kind").is_in(MENDING)).sort("revision", "decided_at", "offset").collect()
        last = decided.unique(_IDENTITY, keep="last", maintain_order=True).filter(pl.col("payload").is_not_null())
        released = decided.filter(pl.col("kind") == RELEASED)
        gone = decided.filter(pl.col("kind") != RELEASED).select(_IDENTITY).unique(maintain_order=True)
        return cls(
            source,
            gone.rename({EVENT_TIME: source.timestamp}),
            decode_events(source, last, "decisions"),
            {(row[0], row[1]): row[2:] for row in released.select("partition", "offset", *_IDENTITY).rows()},
        )

    @property
    def identity(self) -> list[str]:
        """The columns by which a row of `raw/` is named."""
        return [self.source.timestamp, ID64, INGESTED_AT]

    @cached_property
    def latest(self) -> Instant:
        """When the last of the events that were decided on was ingested."""
        found = [frame[INGESTED_AT].max() for frame in (self.gone, self.events) if frame.height]
        return max((to_instant(last) for last in found), default=BEGINNING)

    def over(self, rows: pl.LazyFrame, days: Collection[date] | None = None) -> pl.LazyFrame:
        """Return rows of `raw/`, of all days or some, as they count."""
        events = self.events if days is None else self.events.filter(pl.col(EVENT_DATE).is_in(list(days)))
        if self.gone.height:
            rows = rows.join(self.gone.lazy(), on=self.identity, how="anti")
        return pl.concat([rows, events.lazy()]) if events.height else rows

    def stale(self, built: pl.LazyFrame) -> pl.LazyFrame:
        """Return those rows of `events/` that do not count any longer."""
        named = built.join(self.gone.lazy(), on=self.identity, how="semi")
        return named.join(self.events.lazy(), on=list(raw_schema(self.source)), how="anti", nulls_equal=True)

    def apply(self, gated: Gated) -> Gated:
        """Return what the stream brought as it counts: read again, it brings what it brought before."""
        entries = gated.entries
        if not len(entries) or min(entries.ingested_at) > self.latest:
            return gated
        refused = {one.offset for one in gated.refused}
        freed = [(entries.partition, offset) in self.places for offset in entries.offsets if offset not in refused]
        good = gated.good.with_columns(signed(ID64)).filter(~pl.Series(freed, dtype=pl.Boolean))
        named = good.join(self.gone, on=self.identity, how="semi").select(*self.identity, ARRIVED)
        called = pl.concat([named, self._released(entries).cast(named.schema)])
        instead = self.events.join(called, on=self.identity, how="inner")
        kept = good.join(self.gone, on=self.identity, how="anti", maintain_order="left")
        # Of duplicates the first counts: what counts instead of an event has its place.
        counted = pl.concat([instead.select(kept.columns), kept]).sort(INGESTED_AT, maintain_order=True)
        still = [one for one in gated.refused if (entries.partition, one.offset) not in self.places]
        return Gated(entries, counted.with_columns(unsigned(ID64)), still)

    def _released(self, entries: Entries) -> pl.DataFrame:
        """Return which released events some entries are, and when they arrived."""
        places = ((entries.partition, offset) for offset in entries.offsets)
        found = [
            (*self.places[place], arrived)
            for place, arrived in zip(places, entries.arrived, strict=True)
            if place in self.places
        ]
        return pl.DataFrame(found, schema=[*self.identity, ARRIVED], orient="row")


def decode_events(source: EventSource, rows: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return the events that rows of a table of ours hold as payloads, with the columns of `raw/`, in their order.

    A null is taken also where a contract that is narrower by now does not: as in `raw/`, it is the check before
    `events/` that finds it, and neither the stream stops for it nor the fix that would mend it.

    Raises:
        NotReadyError: some do not fit the contract any longer.
    """
    schema = raw_schema(source)
    if rows.is_empty():
        return pl.DataFrame(schema=schema)
    decoded = Decoder(source.columns, lenient=True).decode(rows["payload"])
    if decoded.failures:
        row, why = next(iter(decoded.failures.items()))
        raise NotReadyError(
            f"{table}/{source.name}: {len(decoded.failures):,} events do not fit the contract any longer, such as "
            f"{rows['subject'][row]}: {why[0].detail}"
        )
    return decoded.frame.hstack(rows.select(INGESTED_AT, ID64, EVENT_DATE)).select(*schema)
