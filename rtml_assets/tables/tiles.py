"""`events/<source>` → `tiles/<view>`: states of every entity at every level of the ladder, by day.

Events are put in order once; a tile of any level is a range of them. No tile crosses a day, because the coarsest size
divides one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import polars as pl

from rtml.algebra.counting import ROWS
from rtml.algebra.family import ID64, Array, States
from rtml.algebra.states import concatenate
from rtml.columns import TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.lake import EVENT_DATE, LEVEL, TILE_START, Lake, raw_schema, tiles_schema, unsigned
from rtml.plan import Plan
from rtml.point_in_time.index import Indexes
from rtml.point_in_time.order import Entities, in_order
from rtml.point_in_time.parallel import in_slices
from rtml.projection import project
from rtml_assets.tables.delta import Built, built_from, meaning_of, open_table, rebuild_days, rows_by_day, scan
from rtml_assets.tables.events import events_meaning, in_chunks

_TILES_AT_ONCE = 1 << 18


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
    """Return the tiles of whole days of events (`id64` unsigned) at every level, each by key and start."""
    kept = project(view, plan, events).collect()
    entities = Entities.of(kept, plan.key_names)
    order, owners, times = in_order(entities.numbers(kept), len(entities), kept)
    indexes = Indexes(plan.states, kept, order)
    starts, frames = np.arange(len(order), dtype=order.dtype), []
    for number, size in enumerate(plan.ladder):
        starts = starts[_first_of_runs(owners[starts], times[starts] // size)]
        states = _states(indexes, np.append(starts, starts.dtype.type(len(order))))
        tiles = pl.Series(TILE_START, times[starts] // size * size).cast(TIMESTAMP)
        frames.append(_to_frame(plan, number, entities.keys(owners[starts]), tiles, states))
    return pl.concat(frames)


def _states(indexes: Indexes, edges: Array) -> States:
    """Return the states of what lies between edges."""
    with np.errstate(over="ignore", invalid="ignore"):
        parts = in_slices(len(edges) - 1, _TILES_AT_ONCE, lambda part: indexes.over(edges[:-1][part], edges[1:][part]))
    return concatenate(parts)


def _first_of_runs(owners: Array, tiles: Array) -> Array:
    """Return where entity or tile is another than before."""
    first = np.ones(len(owners), dtype=bool)
    first[1:] = (owners[1:] != owners[:-1]) | (tiles[1:] != tiles[:-1])
    return np.flatnonzero(first)


def _to_frame(plan: Plan, number: int, keys: pl.DataFrame, starts: pl.Series, states: States) -> pl.DataFrame:
    columns = {name: column.view("<i8") if column.dtype == "<u8" else column for name, column in states.items()}
    frame = keys.with_columns(
        pl.lit(number, dtype=pl.Int8).alias(LEVEL),
        starts,
        starts.dt.date().alias(EVENT_DATE),
        *(pl.Series(name, column) for name, column in columns.items()),
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
