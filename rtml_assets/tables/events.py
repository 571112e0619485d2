"""`raw/<source>` → `events/<source>`: every event once, by day, sorted by time and id64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial

import polars as pl

from quality.contracts import breaking_rows, check_contract
from quality.profiles import ColumnProfile, profile_days
from quality.verdict import Verdict
from rtml.algebra.family import ID64
from rtml.define.source import EventSource
from rtml.instants import Duration
from rtml.lake import EVENT_DATE, Lake, raw_schema, unsigned
from rtml.projection import INGESTED_AT
from rtml_assets.tables.delta import Built, meaning_of, open_table, rebuild_days, scan, tidy
from rtml_assets.tables.gates import JudgedDay, judge_days, keep
from rtml_assets.tables.quarantine import CONTRACT, hold
from streaming.contracts import refuse_other
from streaming.mended import Mended, mirrored_by_day, scan_mirrored

ROWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class EventsDay:
    """The figures of one day of events."""

    day: date
    rows: int
    duplicates: int
    """Rows of `raw/` that were another event's repetition."""
    conflicting: int
    """Events that came with different payloads under one id."""
    late: int
    profile: tuple[ColumnProfile, ...] = ()
    """What the columns of the contract hold."""


@dataclass(frozen=True)
class CompactedEvents:
    """What became of some days: the figures of those that were written, and the contract's verdict on the others."""

    days: list[EventsDay]
    refused: dict[date, Verdict]
    """Days with events that break the contract; they were left as they are."""
    breaking: dict[date, pl.DataFrame] = field(default_factory=dict, repr=False)
    """Of the days that are refused, the events that break the contract."""
    judged: dict[date, JudgedDay] = field(default_factory=dict)
    """Days that keep the contract, by what their source expects beside it; those that are blocked were left, too."""

    @property
    def blocked(self) -> dict[date, JudgedDay]:
        """The days that an expectation keeps as they were."""
        return {day: judged for day, judged in self.judged.items() if judged.blocked}

    @property
    def checked(self) -> int:
        """How many events were held against the contract."""
        left = [verdict.checked for verdict in self.refused.values()]
        left += [day.judgement.checked for day in self.blocked.values()]
        return sum(day.rows for day in self.days) + sum(left)


def compact_events(lake: Lake, source: EventSource, days: Sequence[date]) -> CompactedEvents:
    """Build days of `events/` from `raw/`; what breaks the contract, or is not as expected, is left as it is.

    Raises:
        RequestError: the contract in force does not allow the source's.
    """
    refuse_other(lake, source)
    tidy(lake.raw(source.name), days)
    counts = mirrored_by_day(lake, source)
    uri, schema, meaning = lake.events(source.name), raw_schema(source), events_meaning(source)
    figures: list[EventsDay] = []
    refused: dict[date, Verdict] = {}
    judged: dict[date, JudgedDay] = {}
    newest = max(days, default=date.min)
    for some in in_chunks({day: counts.get(day, 0) for day in days}):
        done = rebuild_days(uri, schema, meaning, partial(_build, lake, source, list(some), newest))
        for day, verdict in done.refused.items():
            hold(lake, source, day, done.breaking[day], CONTRACT, str(verdict))
        keep(lake, source, done.judged.values())
        figures += done.days
        refused |= done.refused
        judged |= done.judged
    return CompactedEvents(figures, refused, judged=judged)


def _build(lake: Lake, source: EventSource, days: Sequence[date], newest: date) -> Built[CompactedEvents]:
    counts = mirrored_by_day(lake, source)  # first: what comes meanwhile touches the day again
    events, repeated = deduplicate(source, scan_mirrored(lake, source, days).collect())
    broken = _broken_days(source, events)
    judged = judge_days(lake, source, events, [day for day in days if day not in broken], newest)
    left = broken.keys() | {day for day, found in judged.items() if found.blocked}
    good = {day: counts.get(day, 0) for day in days if day not in left}
    kept = events.filter(pl.col(EVENT_DATE).is_in(list(good)))
    breaking = {day: breaking_rows(source, events.filter(pl.col(EVENT_DATE) == day)) for day in broken}
    return Built(kept, good, CompactedEvents(_figures(source, kept, repeated, list(good)), broken, breaking, judged))


def in_chunks(counts: Mapping[date, int], limit: int = ROWS_AT_ONCE) -> Iterator[dict[date, int]]:
    """Split days with their numbers of rows into as few chunks as hold about `limit` rows each."""
    chunk: dict[date, int] = {}
    for day, count in counts.items():
        if chunk and sum(chunk.values()) + count > limit:
            yield chunk
            chunk = {}
        chunk[day] = count
    if chunk:
        yield chunk


def deduplicate(source: EventSource, raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the events, and the rows of `raw` whose event is there more than once.

    Of duplicates the one with the least `ingested_at` counts (I7), then the least payload: any order of the same rows
    gives the same table.
    """
    identity = [source.timestamp, ID64]
    payload = [name for name in source.columns if name != source.timestamp]
    ordered = raw.sort(source.timestamp, unsigned(ID64), INGESTED_AT, *payload, nulls_last=True)
    repeated = ordered.filter(pl.struct(identity).is_duplicated())
    return ordered.unique(identity, keep="first", maintain_order=True), repeated


def load_events(lake: Lake, source: EventSource, days: Sequence[date]) -> pl.LazyFrame:
    """Return days of `events/`, with unsigned `id64` as on the stream; in no order."""
    return scan(open_table(lake.events(source.name)), raw_schema(source), days).with_columns(unsigned(ID64))


def events_meaning(source: EventSource) -> str:
    """Return what the rows of `events/` mean: it changes with the contract and with what tells events apart."""
    return meaning_of(source.name, raw_schema(source), source.timestamp, source.event_id)


def is_late(source: EventSource, lateness: Duration | None = None) -> pl.Expr:
    """Whether an event came too late to count online at once: a property of the event alone (I6).

    A former version may have had another lateness than its source has now.
    """
    allowed = source.lateness_us if lateness is None else lateness
    return pl.col(INGESTED_AT) - pl.col(source.timestamp) > pl.duration(microseconds=allowed)


def missing_since(lake: Lake, source: EventSource, days: Sequence[date]) -> pl.Series:
    """Return when the rows of `raw/` were ingested that `events/` does not hold yet, or not as they count by now.

    Only some days are looked at.
    """
    identity = [source.timestamp, ID64]
    built = scan(open_table(lake.events(source.name)), raw_schema(source), days)
    known = built.select(*identity, pl.col(INGESTED_AT).alias("known"))
    raw, mended = open_table(lake.raw(source.name)), Mended.load(lake, source, days)
    counting = mended.over(scan(raw, raw_schema(source), days), days).select(*identity, INGESTED_AT)
    rows = counting.join(known, on=identity, how="left")
    missing = rows.filter((pl.col("known") > pl.col(INGESTED_AT)).fill_null(value=True))
    return pl.concat([missing.select(INGESTED_AT), mended.stale(built).select(INGESTED_AT)]).collect()[INGESTED_AT]


def _broken_days(source: EventSource, events: pl.DataFrame) -> dict[date, Verdict]:
    if check_contract(source, events).passed:
        return {}
    days = events.partition_by(EVENT_DATE, as_dict=True, maintain_order=True)
    verdicts = {day: check_contract(source, part) for (day,), part in days.items()}
    return {day: verdict for day, verdict in verdicts.items() if not verdict.passed}


def _figures(source: EventSource, events: pl.DataFrame, repeated: pl.DataFrame, days: list[date]) -> list[EventsDay]:
    identity = [source.timestamp, ID64]
    kept = events.group_by(EVENT_DATE).agg(pl.len().alias("rows"), is_late(source).sum().alias("late"))
    groups = repeated.group_by(EVENT_DATE, *identity).agg(
        (pl.len() - 1).alias("duplicates"), (pl.struct(list(source.columns)).n_unique() > 1).alias("conflicting")
    )
    doubled = groups.group_by(EVENT_DATE).agg(pl.col("duplicates", "conflicting").sum())
    table = (
        pl.DataFrame({EVENT_DATE: days}, schema={EVENT_DATE: pl.Date})
        .join(kept, on=EVENT_DATE, how="left")
        .join(doubled, on=EVENT_DATE, how="left")
    )
    columns = table.select(EVENT_DATE, "rows", "duplicates", "conflicting", "late").fill_null(0)
    profiles = profile_days(source.columns.values(), events)
    found = [EventsDay(*row) for row in columns.sort(EVENT_DATE).rows()]
    return [replace(figures, profile=profiles.get(figures.day, ())) for figures in found]
