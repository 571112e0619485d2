"""The contract of an event: a pandera (Polars) model, read once into plain columns and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl

from rtml.columns import TIMESTAMP
from rtml.define.checks import CHECKS
from rtml.define.column import FLOATS, INTEGERS, Column
from rtml.errors import DefinitionError

Timestamp = Annotated[pl.Datetime, "us", "UTC"]
"""The type of a time column: microseconds, UTC."""
Field = pa.Field

RESERVED = ("ingested_at", "id64", "event_date", "partition", "offset")
"""Columns that the platform adds to every event."""


class Event(pa.DataFrameModel):
    """The base of every event contract."""


def read_contract(where: str, model: object) -> dict[str, Column]:
    """Return the columns of a contract, in its order.

    Raises:
        DefinitionError: not a contract, or one that uses a type or check that a stream cannot honour.
    """
    if not (isinstance(model, type) and issubclass(model, pa.DataFrameModel)):
        raise DefinitionError.at(where, "schema", "a subclass of rtml.Event", model)
    schema = model.to_schema()
    if schema.checks:
        raise DefinitionError(
            f"{where}: schema {model.__name__}: checks over the whole frame cannot be applied to one event"
        )
    columns = {
        name: _read_column(f"{where}: schema {model.__name__}.{name}", name, column)
        for name, column in schema.columns.items()
    }
    if not columns:
        raise DefinitionError(f"{where}: schema {model.__name__} has no columns")
    return columns


def _read_column(where: str, name: str, column: Any) -> Column:
    if name in RESERVED:
        raise DefinitionError(f"{where}: the platform itself adds {', '.join(RESERVED)}; choose another name")
    dtype = column.dtype.type
    dtype = dtype() if isinstance(dtype, type) else dtype
    if not (dtype in (pl.String, pl.Boolean, *INTEGERS, *FLOATS) or dtype == TIMESTAMP):
        raise DefinitionError.at(where, "its type", "str, int, float, bool or rtml.Timestamp", dtype)
    if column.unique:
        raise DefinitionError(
            f"{where}: unique=True cannot be checked on one event; the source's event_id removes duplicates"
        )
    checks = tuple((check.name, dict(check.statistics or {})) for check in column.checks)
    _check_patterns(where, checks)
    for check, _ in checks:
        if check not in CHECKS:
            raise DefinitionError.at(where, "checks", f"among {', '.join(sorted(CHECKS))}", check)
    read = Column(name, dtype, bool(column.nullable), checks)
    _check_lists(where, read)
    return read


def _check_lists(where: str, column: Column) -> None:
    """Refuse lists of another kind of number than the column's: Polars compares those with nothing."""
    for check, given in column.checks:
        for value in {"isin": given.get("allowed_values"), "notin": given.get("forbidden_values")}.get(check) or ():
            if (column.is_float and isinstance(value, int)) or (column.is_integer and isinstance(value, float)):
                raise DefinitionError.at(where, check, f"a list of {column.dtype}s, such as {_other(value)!r}", value)


def _other(value: float) -> float:
    return int(value) if isinstance(value, float) else float(value)


def _check_patterns(where: str, checks: tuple[tuple[str, Mapping[str, Any]], ...]) -> None:
    """Refuse a regular expression that Polars' engine does not know, such as one that looks ahead."""
    for _, given in checks:
        pattern = given.get("pattern")
        if pattern is not None:
            try:
                pl.Series(["x"]).str.contains(str(getattr(pattern, "pattern", pattern)))
            except pl.exceptions.PolarsError as error:
                raise DefinitionError(f"{where}: pattern {pattern!r}: {error}") from None
