"""`events/<source>` → `tiles/<view>`: states of every entity at every level of the ladder, by day.

The finest level is lowered in Polars, each coarser one combined from the finer one in numpy. No tile crosses a day,
because the coarsest size divides one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import polars as pl

from rtml.algebra.counting import ROWS
from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.define.contract import TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.lake import EVENT_DATE, LEVEL, TILE_START, Lake, raw_schema, tiles_schema, unsigned
from rtml.plan import Plan
from rtml.projection import project
from rtml_assets.tables.delta import Built, built_from, meaning_of, open_table, rebuild_days, rows_by_day, scan
from rtml_assets.tables.events import events_meaning, in_chunks


@dataclass(frozen=True)
class TilesDay:
    """The figures of one day of tiles."""

    day: date
    rows: int
    entities: int
    events: int
    """How many events the view's `where` kept."""
    counted: tuple[int, ...]
    """By level: how many events all states together count; empty where the view does not count events."""

    @property
    def agrees(self) -> bool:
        """Whether every level counts every event once."""
        return all(count == self.events for count in self.counted)


@dataclass(frozen=True)
class _Level:
    """The tiles of one level: keys and states, sorted by key and start (int64 µs)."""

    keys: pl.DataFrame
    starts: Array
    states: dict[str, Array]


def compact_tiles(lake: Lake, view: StreamFeatureView, plan: Plan, days: Sequence[date]) -> list[TilesDay]:
    """Build days of `tiles/` from `events/`."""
    counts = rows_by_day(open_table(lake.events(view.source.name)))
    uri, schema, meaning = lake.tiles(view.name), tiles_schema(plan), tiles_meaning(plan)
    figures: list[TilesDay] = []
    for some in in_chunks({day: counts.get(day, 0) for day in days}):
        done = rebuild_days(uri, schema, meaning, partial(_build, lake, view, plan, list(some)))
        figures += done
    return figures


def _build(lake: Lake, view: StreamFeatureView, plan: Plan, days: list[date]) -> Built[list[TilesDay]]:
    source = view.source
    events = open_table(lake.events(source.name))
    sources = built_from(events, days, events_meaning(source))
    rows = scan(events, raw_schema(source), days).with_columns(unsigned(ID64))
    tiles = build_tiles(view, plan, rows)
    return Built(tiles, {day: sources.get(day, 0) for day in days}, _figures(view, plan, rows, tiles, days))


def tiles_meaning(plan: Plan) -> str:
    """Return what the rows of `tiles/` mean: what the view means, and how its states are kept."""
    return meaning_of(plan.view, plan.fingerprint, tiles_schema(plan))


def build_tiles(view: StreamFeatureView, plan: Plan, events: pl.LazyFrame) -> pl.DataFrame:
    """Return the tiles of whole days of events (`id64` unsigned) at every level."""
    level = _finest(view, plan, events)
    frames = [_to_frame(plan, level, 0)]
    for number in range(1, len(plan.ladder)):
        level = _coarser(plan, level, plan.ladder[number])
        frames.append(_to_frame(plan, level, number))
    return pl.concat(frames)


def _finest(view: StreamFeatureView, plan: Plan, events: pl.LazyFrame) -> _Level:
    finest = plan.tiles.finest
    start = (pl.col(EVENT_TIME) // finest * finest).alias(TILE_START)
    lowered = (
        project(view, plan, events)
        .sort(*plan.key_names, EVENT_TIME, ID64)
        .group_by(*plan.key_names, start, maintain_order=True)
        .agg(plan.states.lower())
        .collect()
    )
    dtypes = plan.states.dtype
    states = {name: lowered[name].to_numpy().astype(dtypes[name], copy=False) for name in plan.states.names}
    return _Level(lowered.select(plan.key_names), lowered[TILE_START].to_numpy(), states)


def _coarser(plan: Plan, finer: _Level, size: int) -> _Level:
    """Combine runs of finer tiles that lie in one coarser tile of one entity."""
    starts = finer.starts // size * size
    entities = finer.keys.select(pl.struct(plan.key_names).rle_id()).to_series().to_numpy()
    first = np.ones(len(starts), dtype=bool)
    first[1:] = (entities[1:] != entities[:-1]) | (starts[1:] != starts[:-1])
    runs = np.flatnonzero(first)
    if not len(runs):
        return finer
    return _Level(finer.keys[runs], starts[runs], plan.states.combine(finer.states, runs))


def _to_frame(plan: Plan, level: _Level, number: int) -> pl.DataFrame:
    states = {name: values.view("<i8") if values.dtype == "<u8" else values for name, values in level.states.items()}
    start = pl.Series(TILE_START, level.starts, dtype=pl.Int64).cast(TIMESTAMP)
    frame = level.keys.with_columns(
        pl.lit(number, dtype=pl.Int8).alias(LEVEL),
        start,
        start.dt.date().alias(EVENT_DATE),
        *(pl.Series(name, values) for name, values in states.items()),
    )
    return frame.select(*tiles_schema(plan))


def _figures(
    view: StreamFeatureView, plan: Plan, events: pl.LazyFrame, tiles: pl.DataFrame, days: list[date]
) -> list[TilesDay]:
    kept = project(view, plan, events, keep=(EVENT_DATE,)).group_by(EVENT_DATE).agg(pl.len().alias("events")).collect()
    levels = range(len(plan.ladder)) if ROWS in plan.states.names else ()
    counts = [pl.col(ROWS).filter(pl.col(LEVEL) == level).sum().alias(f"level_{level}") for level in levels]
    entities = pl.struct(plan.key_names).filter(pl.col(LEVEL) == plan.tiles.top).n_unique().alias("entities")
    counted = tiles.group_by(EVENT_DATE).agg(pl.len().alias("rows"), entities, *counts)
    table = pl.DataFrame({EVENT_DATE: days})
    for part in (counted, kept):
        table = table.join(part, on=EVENT_DATE, how="left")
    ordered = table.fill_null(0).sort(EVENT_DATE)
    by_level = ordered.select(f"level_{level}" for level in levels).rows() if levels else [()] * len(days)
    leading = ordered.select(EVENT_DATE, "rows", "entities", "events").rows()
    return [
        TilesDay(day, rows, entities, events, tuple(level_counts))
        for (day, rows, entities, events), level_counts in zip(leading, by_level, strict=True)
    ]
