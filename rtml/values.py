"""Values on their way out: as columns of a table, and as what JSON holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtml.algebra.family import NUMPY_KIND, Array, Kind, Output, Values
from rtml.lazy import pl
from rtml.texts import Texts, hashes

_WORDS: dict[Kind, str] = {"f64": "float", "i64": "integer", "str": "string"}


def value_type(output: Output) -> pl.DataType:
    """Return the type of a column of values."""
    scalars: dict[Kind, pl.DataType] = {"f64": pl.Float64(), "i64": pl.Int64(), "str": pl.String()}
    scalar = scalars[output.kind]
    return pl.List(scalar) if output.width else scalar


def type_words(output: Output) -> str:
    """Return the type as people read it."""
    word = _WORDS[output.kind]
    return f"list of {word}s, at most {output.width}" if output.width else word


def to_series(values: Values, texts: Texts | None = None) -> pl.Series:
    """Return values as a column, null where there is none; strings by the texts of their hashes.

    Raises:
        CodecError: a string's text is not among them.
    """
    column = pl.Series(values.values) if values.values.dtype.kind != "u" else _strings(values, texts or Texts.none())
    if values.lengths is not None:
        frame = pl.DataFrame({"values": column, "length": values.lengths})
        lists = pl.col("values").arr.to_list().list.head(pl.col("length"))
        column = frame.select(lists).to_series()
    if values.valid.all():
        return column
    return column.zip_with(pl.Series(values.valid), pl.Series([None], dtype=column.dtype))


def _strings(values: Values, texts: Texts) -> pl.Series:
    if values.lengths is None:
        return texts.look_up(values.values, values.valid)
    width = values.values.shape[1]
    there = (np.arange(width) < values.lengths[:, None]) & values.valid[:, None]
    return texts.look_up(values.values.ravel(), there.ravel()).reshape((-1, width))


def from_series(column: pl.Series, output: Output) -> Values:
    """Return what `to_series` made a column of; strings as their hashes."""
    valid = column.is_not_null().to_numpy()
    if not output.width:
        if output.kind == "str":
            column = hashes(column)
        return Values(column.fill_null(0).to_numpy().astype(NUMPY_KIND[output.kind], copy=False), valid)
    found = output.room(len(column))
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    items = column.explode(empty_as_null=False, keep_nulls=False)
    flat = (hashes(items) if output.kind == "str" else items).to_numpy()
    inside = np.arange(output.width) < lengths[:, None]
    found.values[inside] = flat
    return Values(found.values, valid, lengths)


def to_list(values: Values) -> list[Any]:
    """Return values as Python has them, `None` where there is none."""
    valid = values.valid.tolist()
    found = values.values.tolist()
    if values.lengths is not None:
        found = [row[:length] for row, length in zip(found, values.lengths.tolist(), strict=True)]
    return [value if there else None for value, there in zip(found, valid, strict=True)]


def take_rows(values: Values, rows: Array) -> Values:
    """Return some rows."""
    return Values(values.values[rows], values.valid[rows], None if values.lengths is None else values.lengths[rows])


def put_rows(values: Values, rows: Array, found: Values) -> None:
    """Write some rows."""
    values.values[rows] = found.values
    values.valid[rows] = found.valid
    if values.lengths is not None:
        values.lengths[rows] = found.lengths
