"""Features computed from `events/` by filter and aggregate: the demo's truth.

It shares the definitions with the platform and nothing else: no tiles, no states, no algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rtml.define.service import FeatureService
from rtml.define.views import Feature, StreamFeatureView
from rtml.instants import parse_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Column = Callable[[pl.Expr], pl.Expr]
_AGGREGATES: dict[str, Column] = {
    "sum": lambda column: pl.when(column.count() > 0).then(column.sum()),
    "mean": lambda column: column.mean(),
    "min": lambda column: column.min(),
    "max": lambda column: column.max(),
    "variance": lambda column: column.var(ddof=1),
    "stddev": lambda column: column.std(ddof=1),
    "first": lambda column: column.drop_nulls().first(),
    "last": lambda column: column.drop_nulls().last(),
    "share": lambda column: column.mean(),
    "skew": lambda column: _unless_constant(column, column.skew(bias=False), 3),
    "kurtosis": lambda column: _unless_constant(column, column.kurtosis(bias=False), 4),
}
_KINDS = {"f64": pl.Float64(), "i64": pl.Int64(), "str": pl.String()}
_COUNTS = ("count", "rate", "decayed_count")
_LISTS: dict[str, Column] = {
    "first_n": lambda column: column.drop_nulls(),
    "last_n": lambda column: column.drop_nulls().reverse(),
    "last_distinct_n": lambda column: column.drop_nulls().reverse().unique(maintain_order=True),
}


def recompute(
    service: FeatureService, events: Mapping[str, pl.LazyFrame], entities: pl.DataFrame, at: datetime
) -> pl.DataFrame:
    """Return a service's features at an instant: one row an entity in their order, columns `view__feature`.

    Args:
        service: what to compute.
        events: the table `events/<source>` of every source.
        entities: a column for each join key.
        at: the instant that windows end at.
    """
    columns = []
    for view in service.views:
        names = [name for owner, name in service.columns if owner is view]
        found = _view_features(view, names, events[view.source.name], at)
        joined = entities.select(list(view.key_types)).join(
            found, on=list(view.key_types), how="left", maintain_order="left"
        )
        # No events in the window: a count is 0, a list is empty, everything else is null.
        counts = [name for name in names if view.resolved[name].aggregate in _COUNTS]
        lists = [name for name in names if view.resolved[name].aggregate in _LISTS]
        columns.append(
            joined.with_columns(pl.col(counts).fill_null(0), pl.col(lists).fill_null([]))
            .select(names)
            .rename({name: f"{view.name}__{name}" for name in names})
        )
    return pl.concat(columns, how="horizontal")


def _view_features(view: StreamFeatureView, names: list[str], events: pl.LazyFrame, at: datetime) -> pl.DataFrame:
    rows = events.with_columns(**view.derive)
    if view.where is not None:
        rows = rows.filter(view.where)
    time = pl.col(view.source.timestamp)
    earliest = min(edges(view, view.resolved[name], at)[0] for name in names)
    rows = rows.filter(time >= earliest, time < at)
    ordered = rows.sort(view.source.timestamp, pl.col("id64").reinterpret(signed=False)).collect()
    keys = list(view.key_types)
    found = ordered.select(keys).unique()
    for name in names:
        left, right = edges(view, view.resolved[name], at)
        age, seconds = (pl.lit(right) - time).dt.total_microseconds(), (right - left).total_seconds()
        inside = ordered.filter(time >= left, time < right)
        value = _value(view.resolved[name], age, seconds)
        values = inside.group_by(keys, maintain_order=True).agg(value.alias(name))
        found = found.join(values, on=keys, how="left")
    return found


def edges(view: StreamFeatureView, feature: Feature, at: datetime) -> tuple[datetime, datetime]:
    """Return a window's first instant, and the first one after it; what is not exact is floored to the finest tile."""
    window, finest = feature.window, timedelta(microseconds=view.tiles.finest)
    if window.lifetime:
        return EPOCH, at
    right = at - timedelta(microseconds=window.offset)
    left = right - timedelta(microseconds=window.length)
    if window.exact:
        return left, right
    floored = left - (left - EPOCH) % finest
    return floored, right - (right - EPOCH) % finest if window.offset else right


def _value(feature: Feature, age: pl.Expr, seconds: float) -> pl.Expr:
    """Return a feature's value, where events have such ages (µs) at the end of a window of so many seconds."""
    if feature.aggregate in ("count", "rate"):
        return pl.len() if feature.aggregate == "count" else pl.len() / seconds
    given: dict[str, Any] = dict(feature.parameters)
    if feature.aggregate == "decayed_count":
        return _weight(age, given).sum()
    # Booleans count as 0 and 1.
    column = pl.col(feature.column).cast(_KINDS[feature.kind])
    if feature.aggregate in _LISTS:
        return _LISTS[feature.aggregate](column).head(given["n"])
    if feature.aggregate == "sum_rate":
        return _AGGREGATES["sum"](column) / seconds
    if feature.aggregate in ("decayed_sum", "decayed_mean"):
        weight = pl.when(column.is_not_null()).then(_weight(age, given))
        total = _AGGREGATES["sum"](column * weight)
        return total if feature.aggregate == "decayed_sum" else total / weight.sum()
    return _AGGREGATES[feature.aggregate](column)


def _weight(age: pl.Expr, given: Mapping[str, Any]) -> pl.Expr:
    return pl.lit(0.5).pow(age / parse_duration(given["half_life"]))


def _unless_constant(column: pl.Expr, value: pl.Expr, least: int) -> pl.Expr:
    return pl.when(column.count() >= least, column.min() < column.max()).then(value)
