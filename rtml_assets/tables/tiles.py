"""`events/<source>` → `tiles/<view>`: states of every entity at every level of the ladder, by day.

The finest tiles come from the events, a stretch of the day at a time; those of each level above from the one below. No
tile crosses a day, because the coarsest size divides one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.counting import ROWS
from rtml.algebra.family import EVENT_TIME, ID64, Array, States
from rtml.algebra.states import StateSchema, concatenate
from rtml.columns import TIMESTAMP
from rtml.define.views import StreamFeatureView
from rtml.lake import EVENT_DATE, LEVEL, TILE_START, Lake, raw_schema, tiles_schema, unsigned
from rtml.plan import Plan
from rtml.point_in_time.index import Indexes
from rtml.point_in_time.order import Entities, by_entity, in_order
from rtml.point_in_time.parallel import in_each, in_slices
from rtml.projection import INGESTED_AT, project
from rtml_assets.tables.delta import Built, built_from, meaning_of, open_table, rebuild_days, rows_by_day, scan
from rtml_assets.tables.events import events_meaning, in_chunks

_EVENTS_AT_ONCE = _TILES_AT_ONCE = 1 << 16


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
    kept = _by_time(project(view, plan, events).drop(INGESTED_AT).collect())
    entities = Entities.of(kept, plan.key_names)
    tiles, frames = _finest(plan, kept, entities), []
    for number, size in enumerate(plan.ladder):
        if number:
            tiles = _coarser(plan, tiles, size)
        starts = pl.Series(TILE_START, tiles.starts).cast(TIMESTAMP)
        frames.append(_to_frame(plan, number, entities.keys(tiles.owners), starts, tiles.states))
    return pl.concat(frames)


class _Tiles(NamedTuple):
    """Tiles of one level, by entity and start."""

    owners: Array
    """Entities, by number."""
    starts: Array
    states: States


def _by_time(kept: pl.DataFrame) -> pl.DataFrame:
    """Return events by time, as each day of `events/` has them already; ties are settled within a stretch."""
    times = kept[EVENT_TIME].to_numpy()
    return kept.sort(EVENT_TIME, maintain_order=True) if np.any(times[1:] < times[:-1]) else kept


def _finest(plan: Plan, kept: pl.DataFrame, entities: Entities) -> _Tiles:
    """Return the finest tiles, from stretches of time that are small enough for the processor's cache."""
    numbers, size = entities.numbers(kept), plan.ladder[0]

    def work(rows: slice) -> tuple[Array, Array, Array]:
        some = kept[rows]
        order, owners, times = in_order(numbers[rows], len(entities), some)
        starts = times // size * size
        first = _first_of_runs(owners, starts)
        edges = np.append(first, len(order)).astype(order.dtype)
        states = Indexes(plan.states, some, order).over(edges[:-1], edges[1:])
        return owners[first], starts[first], _rows_of(plan.states, states)

    with np.errstate(over="ignore", invalid="ignore"):
        parts = in_each(_stretches(kept[EVENT_TIME].to_numpy(), size), work)
    owners, starts, packed = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    del parts
    rows, owners = by_entity(owners, len(entities))
    return _Tiles(owners, starts[rows], _take(plan.states, packed, rows))


def _rows_of(schema: StateSchema, states: States) -> Array:
    """Return packed states as what is joined fastest: plain bytes, where all states are of one width."""
    packed = schema.pack(states)
    return packed if schema.ragged else packed.view(np.uint8)


def _take(schema: StateSchema, packed: Array, rows: Array) -> dict[str, Array]:
    """Return some rows of packed states: a row is one place in memory, its columns would be many."""
    packed = packed if schema.ragged else packed.view(schema.dtype)
    states = {name: np.empty(len(rows), dtype=schema.types[name]) for name in schema.names}

    def work(part: slice) -> None:
        for name, column in schema.unpack(np.take(packed, rows[part])).items():
            states[name][part] = column

    in_slices(len(rows), _TILES_AT_ONCE, work)
    return states


def _stretches(times: Array, size: int) -> list[slice]:
    """Cut rows by time into slices; no tile is cut, so that its state is a matter of its own events alone."""
    cuts = np.unique(np.searchsorted(times, times[::_EVENTS_AT_ONCE] // size * size)).tolist()
    return [slice(start, end) for start, end in pairwise([*cuts, len(times)])] or [slice(0, 0)]


def _coarser(plan: Plan, tiles: _Tiles, size: int) -> _Tiles:
    """Return tiles of the next size."""
    starts = tiles.starts // size * size
    first = _first_of_runs(tiles.owners, starts)
    ends = np.append(first, len(starts))

    def work(groups: slice) -> States:
        if groups.start == groups.stop:
            return plan.states.empties(0)
        inner = slice(int(ends[groups.start]), int(ends[groups.stop]))
        finer = {name: column[inner] for name, column in tiles.states.items()}
        return plan.states.combine(finer, first[groups] - inner.start)

    with np.errstate(over="ignore", invalid="ignore"):
        states = concatenate(in_slices(len(first), _TILES_AT_ONCE, work))
    return _Tiles(tiles.owners[first], starts[first], states)


def _first_of_runs(owners: Array, tiles: Array) -> Array:
    """Return where entity or tile is another than before."""
    first = np.ones(len(owners), dtype=bool)
    np.not_equal(owners[1:], owners[:-1], out=first[1:])
    first[1:] |= tiles[1:] != tiles[:-1]
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
