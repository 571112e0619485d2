"""`tiles/<view>` against `events/<source>`: each level of a day lowered from the events by itself, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from quality.approximate import judged, reference
from quality.parity import (
    Compared,
    Parity,
    allowed,
    compare,
    exact,
    magnitude,
    magnitude_columns,
    or_zero,
    with_magnitudes,
)
from rtml.algebra.family import EVENT_TIME, ID64, Array, Span, Values
from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError
from rtml.instants import format_duration
from rtml.lake import LEVEL, TILE_START, Lake, tiles_schema
from rtml.plan import Plan, PlannedFeature
from rtml.projection import project
from rtml_assets.tables.delta import built_from, open_table, scan
from rtml_assets.tables.events import events_meaning, load_events
from rtml_assets.tables.tiles import tiles_meaning

_GOT, _EXPECTED, _SIZED = "got_row", "expected_row", "sized_row"


def tiles_versus_events(lake: Lake, view: StreamFeatureView, plan: Plan, day: date) -> Parity:
    """Compare a day of `tiles/` with its events, level by level.

    Raises:
        NotReadyError: the day's tiles are not built from all of its events.
    """
    check_built(lake, view, plan, day)
    events = events_of(lake, view, plan, day)
    stored = stored_tiles(lake, plan, day)
    parts = []
    for level in range(len(plan.ladder)):
        lowered = lower(plan, events, level)
        parts.append(compare_tiles(plan, level, stored.filter(pl.col(LEVEL) == level).drop(LEVEL), lowered, lowered))
    return Parity.joined(parts)


def check_built(lake: Lake, view: StreamFeatureView, plan: Plan, day: date) -> None:
    """Refuse a day whose tiles are behind its events.

    Raises:
        NotReadyError: they are.
    """
    events = built_from(open_table(lake.events(view.source.name)), [day], events_meaning(view.source))
    tiles = built_from(open_table(lake.tiles(view.name)), [day], tiles_meaning(plan))
    if tiles.get(day, 0) != events.get(day, 0):
        raise NotReadyError(
            f"view {view.name!r}: tiles of {day} are built from {tiles.get(day, 0):,} raw rows, its events from "
            f"{events.get(day, 0):,}: materialise tiles/{view.name} of that day first"
        )


def events_of(lake: Lake, view: StreamFeatureView, plan: Plan, day: date) -> pl.DataFrame:
    """Return a day's events as a view sees them, with the magnitudes of its values, by entity and time."""
    projected = project(view, plan, load_events(lake, view.source, [day]))
    ordered = projected.sort(*plan.key_names, EVENT_TIME, ID64)
    return ordered.with_columns(magnitude_columns(plan)).collect()


def stored_tiles(lake: Lake, plan: Plan, day: date) -> pl.DataFrame:
    """Return a day's rows of `tiles/`, with starts in microseconds."""
    rows = scan(open_table(lake.tiles(plan.view)), tiles_schema(plan), [day])
    return rows.with_columns(pl.col(TILE_START).dt.epoch("us")).collect()


def lower(plan: Plan, events: pl.DataFrame, level: int) -> pl.DataFrame:
    """Return the tiles of one level, straight from events with magnitudes; the states are those of all of them."""
    size = plan.ladder[level]
    start = (pl.col(EVENT_TIME) // size * size).alias(TILE_START)
    grouped = events.lazy().group_by(*plan.key_names, start, maintain_order=True)
    return grouped.agg(with_magnitudes(plan).states.lower()).collect()


def compare_tiles(
    plan: Plan, level: int, got: pl.DataFrame, expected: pl.DataFrame, lowered: pl.DataFrame, note: str = ""
) -> Parity:
    """Compare the tiles of one level as the values that their states are worth.

    Args:
        plan: what the states are of.
        level: the level of all tiles.
        got: keys, `tile_start` (µs) and states; a row a tile, and wrong where a tile has several.
        expected: the same.
        lowered: what `lower` gives of the same events: tolerances are judged by it.
        note: what the tiles are, for people.
    """
    identity = [*plan.key_names, TILE_START]
    rows = _numbered(got, identity, _GOT).join(
        _numbered(expected, identity, _EXPECTED), on=identity, how="full", coalesce=True
    )
    sized = lowered.select(*identity, pl.int_range(pl.len()).alias(_SIZED))
    rows = rows.join(sized, on=identity, how="left").sort(identity)
    places = {name: rows[name].fill_null(-1).to_numpy() for name in (_GOT, _EXPECTED, _SIZED)}
    features = tile_features(plan)
    starts = rows[TILE_START].to_numpy()
    span = Span(starts, starts + plan.ladder[level])
    values = _values(plan, got, places[_GOT], features, span)
    truth = _values(plan, expected, places[_EXPECTED], features, span)
    sized_plan = with_magnitudes(plan)
    wanted = [sized_plan.feature(magnitude(feature)) for feature in features if not exact(feature)]
    truths = {feature.name: judge for feature in features if (judge := reference(feature)) is not None}
    sizes = _values(sized_plan, lowered, places[_SIZED], [*wanted, *truths.values()], span)

    def near(feature: PlannedFeature) -> Array | None:
        roads = [values[feature.name], truth[feature.name]]
        return judged(feature, roads, sizes[truths[feature.name].name]) if feature.name in truths else None

    compared = [
        Compared(
            label(plan, feature),
            values[feature.name],
            truth[feature.name],
            _allowed(feature, truth[feature.name], sizes.get(magnitude(feature))),
            near(feature),
        )
        for feature in features
    ]
    shown = rows.select(
        *plan.key_names,
        pl.lit(format_duration(plan.ladder[level]) + note).alias("tile"),
        pl.from_epoch(TILE_START, time_unit="us").dt.replace_time_zone("UTC").alias("start"),
    )
    # A tile that is there twice would count twice, whatever it holds.
    doubled = rows.select(pl.struct(identity).is_duplicated()).to_series().to_numpy()
    return compare(shown, compared, absent=(places[_GOT] < 0) | (places[_EXPECTED] < 0), doubled=doubled)


def _numbered(tiles: pl.DataFrame, identity: Sequence[str], name: str) -> pl.DataFrame:
    return tiles.select(*identity, pl.int_range(pl.len()).alias(name))


def tile_features(plan: Plan) -> list[PlannedFeature]:
    """Return one feature of each aggregate and column: a tile has no window."""
    first: dict[tuple[Any, ...], PlannedFeature] = {}
    for feature in plan.features:
        first.setdefault((feature.aggregate, feature.parameters, feature.column, feature.kind), feature)
    return list(first.values())


def label(plan: Plan, feature: PlannedFeature) -> str:
    """Return the name of a feature without its window."""
    parameters = "".join(f", {name}={value}" for name, value in feature.parameters)
    return f"{plan.view}__{f'{feature.column}_' if feature.column else ''}{feature.aggregate}{parameters}"


def _values(
    plan: Plan, tiles: pl.DataFrame, places: Array, features: list[PlannedFeature], span: Span
) -> dict[str, Values]:
    """Return what states are worth, row by row; the identity where a tile has no row."""
    there = np.flatnonzero(places >= 0)
    states = plan.states.empties(len(places))
    for name in plan.states.names:
        column = tiles[name].to_numpy()
        kind = plan.states.types[name]
        states[name][there] = (column.view(kind) if kind.kind == "u" else column.astype(kind))[places[there]]
    return {feature.name: feature.finalize(states, span) for feature in features}


def _allowed(feature: PlannedFeature, expected: Values, size: Values | None) -> Array:
    if size is None:
        return np.zeros(len(expected.values))
    return allowed(feature.aggregate, feature.kind, or_zero(expected), or_zero(size), feature.parameters)
