"""`events/<source>` → `features/<view>`: the values of every entity at chosen instants, by day, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME
from rtml.columns import SPINE_TIME, TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.instants import DAY, Instant, to_instant
from rtml.lake import EVENT_DATE, Lake, features_schema
from rtml.plan import Plan
from rtml.point_in_time.join import point_in_time
from rtml.texts import Texts
from rtml.values import to_series
from rtml_assets.tables.delta import Built, meaning_of, open_table, rebuild_days, rows_by_day
from rtml_assets.tables.seen import AT, SEEN, SEEN_LATE, Asked
from rtml_assets.tables.spans import ROWS_AT_ONCE, Span, days_between, entity_parts, spans
from rtml_assets.tables.training_set import load_part


@dataclass(frozen=True)
class SnapshotDay:
    """The figures of one day of snapshots."""

    day: date
    rows: int
    entities: int
    sample: pl.DataFrame
    """The last rows of the day."""


SAMPLE_ROWS = 10
SNAPSHOT_ROWS_AT_ONCE = 2_000_000
"""About so many rows are made at a time, and never less than a day's."""


def build_snapshots(
    lake: Lake, view: StreamFeatureView, plan: Plan, days: Sequence[date], limit: int = ROWS_AT_ONCE
) -> list[SnapshotDay]:
    """Build days of `features/`: a day's instants are `every`, 2 · `every`, … after its beginning, up to its end.

    An entity has a row at an instant where an event of its lies in any of the view's windows. All events count, by
    event time alone: what serving had is what training sets are for.
    """
    asked = Asked.of(view, plan, list(view.resolved))
    counts = rows_by_day(open_table(lake.events(view.source.name)))
    uri, schema = lake.features(view.name), features_schema(plan)
    found: list[SnapshotDay] = []
    latest = np.concatenate([instants_of(view, day) for day in sorted(set(days))] or [np.zeros(0, np.int64)]) - 1
    for span in spans(latest, asked.reach, counts, limit):
        of_span = [day for day in sorted(set(days)) if span.first <= to_instant(day) + DAY - 1 <= span.last]
        for some in _by_rows(lake, asked, of_span, span):
            first, last = int(instants_of(view, some[0])[0]) - 1, to_instant(some[-1]) + DAY - 1
            looked_at = days_between(counts, first - asked.reach.before, last)
            build = partial(_build, lake, asked, some, Span(first, last, looked_at, span.parts), counts)
            done: list[SnapshotDay] = rebuild_days(uri, schema, snapshots_meaning(view, plan), build)
            found += done
    return found


def _by_rows(lake: Lake, asked: Asked, days: list[date], span: Span) -> Iterator[list[date]]:
    """Split the days of a span so that each part has about so many rows at most, and a day at least."""
    entities = sum(keys.height for keys in _entities(lake, asked, span))
    of_day = DAY // asked.view.snapshots_us * entities
    step = max(1, SNAPSHOT_ROWS_AT_ONCE // max(of_day, 1))
    return (days[start : start + step] for start in range(0, len(days), step))


def instants_of(view: StreamFeatureView, day: date) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the instants of a day, in int64 µs: the last one is its end."""
    every = view.snapshots_us
    return to_instant(day) + np.arange(every, DAY + 1, every, dtype=np.int64)


def snapshots_meaning(view: StreamFeatureView, plan: Plan) -> str:
    """Return what the rows of `features/` mean."""
    return meaning_of(view.name, plan.fingerprint, view.snapshots_us, features_schema(plan))


def _build(lake: Lake, asked: Asked, days: list[date], span: Span, counts: dict[date, int]) -> Built[list[SnapshotDay]]:
    instants = [int(instant) for day in days for instant in instants_of(asked.view, day)]
    schema = features_schema(asked.plan)
    renamed = {new: old for old, new in asked.renamed.items()}
    parts = [
        _values(asked.plan, load_part(lake, asked, keys, span, "hindsight"), instants)
        for keys in _entities(lake, asked, span)
    ]
    rows = pl.concat(parts) if parts else pl.DataFrame(schema=schema)
    rows = rows.rename(renamed, strict=False).sort(SPINE_TIME, *asked.whole.key_names)
    return Built(rows, {day: counts.get(day, 0) for day in days}, list(_figures(rows, asked, days)))


def _entities(lake: Lake, asked: Asked, span: Span) -> Iterator[pl.DataFrame]:
    """Return the entities with events in reach of a span, in parts."""
    time = pl.col(EVENT_TIME)
    events = asked.events(lake, span.days, "hindsight")
    events = events.filter(time >= span.first - asked.reach.before, time <= span.last + asked.reach.after)
    keys = events.select(asked.plan.key_names).unique().collect(engine="streaming")
    return (keys[rows] for rows in entity_parts(keys, span.parts) if len(rows))


def _values(plan: Plan, events: pl.DataFrame, instants: Sequence[Instant]) -> pl.DataFrame:
    spine = pl.concat(_present(plan, events, instant) for instant in instants)
    found = point_in_time(plan, events, spine)
    at = pl.col(AT).cast(TIMESTAMP)
    day = pl.from_epoch(pl.col(AT) - 1, "us").dt.date().alias(EVENT_DATE)
    keys = spine.select(*plan.key_names, at.alias(SPINE_TIME), day)
    texts = Texts.of(events, plan.texts)
    features = [to_series(found[feature.name], texts).alias(feature.name) for feature in plan.features]
    return keys.with_columns(features).select(*plan.key_names, SPINE_TIME, *found, EVENT_DATE)


def _present(plan: Plan, events: pl.DataFrame, instant: Instant) -> pl.DataFrame:
    """Return the entities with an event in any window at an instant, as rows of a spine."""
    edges = [window.edges(instant, plan.tiles.finest) for window in plan.windows]
    inside = pl.any_horizontal(pl.col(EVENT_TIME).is_between(a, b, closed="left") for a, b in edges)
    keys = events.filter(inside).select(plan.key_names).unique()
    return keys.with_columns(pl.lit(instant, dtype=pl.Int64).alias(name) for name in (AT, SEEN, SEEN_LATE))


def _figures(rows: pl.DataFrame, asked: Asked, days: Sequence[date]) -> Iterator[SnapshotDay]:
    for day in days:
        some = rows.filter(pl.col(EVENT_DATE) == day)
        entities = some.select(asked.whole.key_names).n_unique() if some.height else 0
        yield SnapshotDay(day, some.height, entities, some.tail(SAMPLE_ROWS))
