"""What columns hold, day by day: how much is null, where numbers lie, how many strings differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import polars as pl

from rtml.define.column import Column
from rtml.lake import EVENT_DATE

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ColumnProfile:
    """One column over one day; what a type does not have is None."""

    column: str
    nulls: float
    """The share of rows that are null."""
    nullable: bool
    distinct: int | None = None
    """How many values differ, of what is not a float; null is none of them."""
    mean: float | None = None
    """Of numbers, and of booleans: the share that is true."""
    least: float | None = None
    quantiles: tuple[float | None, ...] = ()
    """At `QUANTILES`, interpolated."""
    greatest: float | None = None


def profile_days(columns: Iterable[Column], events: pl.DataFrame) -> dict[date, tuple[ColumnProfile, ...]]:
    """Return the profile of every day in `events`, of columns in their order; instants have none."""
    profiled = [column for column in columns if not column.is_timestamp]
    asked = [expression for column in profiled for expression in _asked(column)]
    found = events.group_by(EVENT_DATE).agg(asked)
    return {row[EVENT_DATE]: tuple(_profile(column, row) for column in profiled) for row in found.to_dicts()}


def _asked(column: Column) -> list[pl.Expr]:
    value = pl.col(column.name)
    asked = {"nulls": value.is_null().mean()}
    if not column.is_float:
        asked["distinct"] = value.drop_nulls().n_unique()
    if column.dtype == pl.Boolean:
        asked["mean"] = value.mean()
    if column.is_float or column.is_integer:
        asked |= {"mean": value.mean(), "least": value.min(), "greatest": value.max()}
        asked |= {_at(quantile): value.quantile(quantile, "linear") for quantile in QUANTILES}
    return [expression.alias(f"{column.name}/{name}") for name, expression in asked.items()]


def _profile(column: Column, row: dict[str, float | int | None]) -> ColumnProfile:
    def found(name: str) -> float | None:
        value = row.get(f"{column.name}/{name}")
        return None if value is None else float(value)

    distinct = found("distinct")
    numbers = column.is_float or column.is_integer
    return ColumnProfile(
        column.name,
        found("nulls") or 0.0,
        column.nullable,
        None if distinct is None else int(distinct),
        found("mean"),
        found("least"),
        tuple(found(_at(quantile)) for quantile in QUANTILES) if numbers else (),
        found("greatest"),
    )


def _at(quantile: float) -> str:
    return f"at {quantile}"
