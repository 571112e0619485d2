"""A spine, checked: entity keys, instants, and the columns that are kept as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rtml.algebra.family import Array
from rtml.columns import KEY_TYPES, SPINE_TIME
from rtml.define.service import FeatureService
from rtml.define.source import KEY_WORDS
from rtml.errors import InstantError, RequestError, near_miss


@dataclass(frozen=True)
class CheckedSpine:
    """Rows for which features or labels are wanted."""

    rows: pl.DataFrame
    """As they were given."""
    keys: pl.DataFrame
    """The join keys, in the types of `KEY_TYPES`."""
    at: Array
    """Each row's instant, in int64 µs."""

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.at)


def service_keys(service: FeatureService) -> dict[str, str]:
    """Return the join keys of all of a service's views, with their types.

    Raises:
        RequestError: two views have a key of one name and of different types: no column can be both.
    """
    found: dict[str, tuple[str, str]] = {}
    for view in service.views:
        for key, kind in view.key_types.items():
            other, known = found.setdefault(key, (view.name, kind))
            if known != kind:
                raise RequestError(
                    f"service {service.name!r}: join key {key!r} is {KEY_WORDS[known]} in view {other!r} and "
                    f"{KEY_WORDS[kind]} in view {view.name!r}: no column of a spine can be both"
                )
    return {key: kind for key, (_, kind) in found.items()}


def check_spine(
    spine: pl.DataFrame | pl.LazyFrame, keys: Mapping[str, str], added: Iterable[str] = (), where: str = "spine"
) -> CheckedSpine:
    """Return a spine whose keys and instants are what they should be.

    Args:
        spine: the join keys, `timestamp`, and any other columns.
        keys: the join keys, and their types.
        added: the columns that the result will have besides; the spine may not have them.
        where: what to call it in errors.

    Raises:
        RequestError: a missing column, one of another type, a null, or a column that the result will have.
        InstantError: the timestamps have no time zone.
    """
    if not isinstance(spine, pl.DataFrame | pl.LazyFrame):
        raise RequestError(f"{where} must be a Polars DataFrame or LazyFrame; got {type(spine).__name__}")
    _check_columns(where, spine.collect_schema(), keys, added)
    rows = spine.lazy().collect()
    for name in (*keys, SPINE_TIME):
        if nulls := rows[name].null_count():
            raise RequestError(f"{where}: column {name!r} must not be null; got {nulls:,} nulls of {rows.height:,}")
    cast = pl.DataFrame([_cast(rows[name], kind, where) for name, kind in keys.items()])
    return CheckedSpine(rows, cast, rows[SPINE_TIME].dt.epoch("us").to_numpy())


def _cast(column: pl.Series, kind: str, where: str) -> pl.Series:
    try:
        return column.cast(KEY_TYPES[kind])
    except pl.exceptions.InvalidOperationError:
        raise RequestError(
            f"{where}: join key {column.name!r} must fit signed 64 bits; got {column.dtype} up to {column.max()!r}"
        ) from None


def _check_columns(where: str, schema: pl.Schema, keys: Mapping[str, str], added: Iterable[str]) -> None:
    for name in (*keys, SPINE_TIME):
        if name not in schema:
            raise RequestError(f"{where}: no column {name!r}.{near_miss(name, schema)}")
    for name, kind in keys.items():
        if not _fits(schema[name], kind):
            raise RequestError(f"{where}: join key {name!r} must be {KEY_WORDS[kind]} column; got {schema[name]}")
    _check_timestamp(where, schema[SPINE_TIME])
    for name in added:
        if name in schema:
            raise RequestError(f"{where}: column {name!r} is what is asked for: leave it out of the spine")


def _fits(dtype: pl.DataType, kind: str) -> bool:
    if kind == "str":
        return dtype in (pl.String, pl.Categorical, pl.Enum)
    return dtype.is_integer() if kind == "int" else dtype == pl.Boolean


def _check_timestamp(where: str, dtype: Any) -> None:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        raise InstantError(
            f"{where}: column {SPINE_TIME!r} must carry a time zone; got the naive {dtype} (say which zone it is in: "
            f"pl.col({SPINE_TIME!r}).dt.replace_time_zone('UTC'))"
        )
    if not isinstance(dtype, pl.Datetime) or dtype.time_unit == "ns":
        raise RequestError(f"{where}: column {SPINE_TIME!r} must be Datetime('us', 'UTC'); got {dtype}")
