"""What a Delta table makes of columns of any types: the nearest type that it has, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rtml.errors import RequestError
from rtml_assets.tables.delta import SIGNED

_NEAREST: Mapping[type[pl.DataType], pl.DataType] = {
    **SIGNED,
    pl.UInt64: pl.Int64(),
    pl.Float16: pl.Float32(),
    pl.Categorical: pl.String(),
    pl.Enum: pl.String(),
}
_INSTEAD: Mapping[type[pl.DataType], str] = {
    pl.Null: "the type that is meant, such as pl.Float64",
    pl.Time: "pl.String, or pl.Int64 (nanoseconds)",
    pl.Duration: "pl.Int64, as by .dt.total_microseconds()",
    pl.Int128: "pl.Int64 or pl.String",
    pl.UInt128: "pl.Int64 or pl.String",
    pl.Object: "a type of Polars'",
}


def delta_schema(schema: Mapping[str, pl.DataType]) -> pl.Schema:
    """Return the types that a Delta table stores columns in.

    Raises:
        RequestError: a column is of a type that it has nothing for; names the column, and what to cast it to.
    """
    return pl.Schema({name: _stored(name, dtype) for name, dtype in schema.items()})


def to_delta(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return rows in the types that `delta_schema` gives.

    Raises:
        RequestError: an unsigned integer that 64 bits with a sign do not hold; names the column.
    """
    for name, dtype in schema.items():
        if rows.schema[name] != dtype:
            try:
                rows = rows.with_columns(pl.col(name).cast(dtype))
            except pl.exceptions.InvalidOperationError:
                raise RequestError(
                    f"column {name!r} must fit signed 64 bits, as all integers of a Delta table; got "
                    f"{rows.schema[name]} with values of 2**63 and more: cast it to pl.String, or write a .parquet file"
                ) from None
    return rows


def _stored(name: str, dtype: Any) -> Any:
    """Return the type for a column, or for what it holds; an inner type may be a class."""
    kind = dtype.base_type()
    if instead := _INSTEAD.get(kind):
        raise RequestError(
            f"column {name!r} must be of a type that a Delta table has; got {dtype}: cast it to {instead}, or write a "
            ".parquet file"
        )
    if kind in (pl.List, pl.Array):
        return pl.List(_stored(name, dtype.inner))
    if kind == pl.Struct:
        return pl.Struct({field.name: _stored(name, field.dtype) for field in dtype.fields})
    return _NEAREST.get(kind, dtype)
