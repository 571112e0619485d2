"""Polars expressions of a view, proven to mean the same on a micro-batch and on a year of history: row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rtml.errors import DefinitionError, near_miss

_SAMPLES: dict[str, list[object]] = {
    "integer": [3, 1, 3, -2, 7, 0, 100, 1],
    "float": [2.5, -1.0, 2.5, 0.0, 1000.0, 16.0, 3.25, -1.0],
    "string": ["b", "a", "b", "", "JFK", "z", "a", "c"],
    "boolean": [True, False, True, True, False, False, True, False],
}

_DIVISIONS = ("TrueDivide", "FloorDivide", "Modulus")


def check_expression(where: str, expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> pl.DataType:
    """Return the type of an expression over a contract's columns.

    It is evaluated on a small frame, whole and then one row at a time: an expression that looks at other rows
    (`shift`, `mean`, …) differs and is refused.

    Raises:
        DefinitionError: an unknown column, an evaluation error, or not row by row.
    """
    for column in expression.meta.root_names():
        if column not in schema:
            raise DefinitionError(f"{where}: unknown column {column!r}.{near_miss(column, schema)}")
    frame = _sample(schema)
    try:
        whole = _evaluate(frame, expression)
        rows = pl.concat([_evaluate(frame.slice(row, 1), expression) for row in range(frame.height)])
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(f"{where} cannot be evaluated over the contract: {error}") from None
    if not whole.equals(rows, null_equal=True):
        raise DefinitionError(f"{where} must be row by row: its value for one event may not depend on other events")
    return whole.dtype


def relaxed(where: str, expression: object) -> pl.Expr:
    """Return the expression such that it never stops the stream, and means the same in frames of any length.

    Casts give null where a value does not fit. A divisor is one a row, even where it is constant.

    Raises:
        DefinitionError: no expression, or one that calls Python.
    """
    if not isinstance(expression, pl.Expr):
        raise DefinitionError(f"{where} must be a Polars expression such as pl.col('x') > 1; got {expression!r}")
    text = json.dumps(_row_by_row(_relaxed(_tree(where, expression))))
    return pl.Expr.deserialize(text.encode(), format="json")


def _relaxed(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_relaxed(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        name: "NonStrict" if (name, part) == ("options", "Strict") else _relaxed(part) for name, part in tree.items()
    }


def _row_by_row(tree: Any) -> Any:
    """Divide by a column where it says a number.

    By a number, Polars multiplies with its reciprocal, but not in a frame of one row: `49.0 // 49` is 0 in the one
    and 1 in the other.
    """
    if isinstance(tree, list):
        return [_row_by_row(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    tree = {name: _row_by_row(part) for name, part in tree.items()}
    binary = tree.get("BinaryExpr")
    if not isinstance(binary, dict) or binary["op"] not in _DIVISIONS or not _is_number(binary["right"]):
        return tree
    column = _first_column(binary["left"])
    if column is None:
        return tree
    # Of `when(…).then(3).otherwise(3)`, and of sums of literals, Polars makes a single number again.
    zeros = json.loads((pl.col(column).is_null().cast(pl.Int64) * 0).meta.serialize(format="json"))
    divisor = {"BinaryExpr": {"left": binary["right"], "op": "Plus", "right": zeros}}
    return {"BinaryExpr": {**binary, "right": divisor}}


def _is_number(tree: Any) -> bool:
    """Whether an expression is a number, or reckons with numbers alone."""
    if "Cast" in tree:
        return _is_number(tree["Cast"]["expr"])
    if "BinaryExpr" in tree:
        return _is_number(tree["BinaryExpr"]["left"]) and _is_number(tree["BinaryExpr"]["right"])
    literal = tree.get("Literal")
    kinds = {**literal.get("Dyn", {}), **literal.get("Scalar", {})} if isinstance(literal, dict) else {}
    return any(kind.startswith(("Int", "UInt", "Float")) for kind in kinds)


def _first_column(tree: Any) -> str | None:
    """Return the first column that an expression reads, if it reads one."""
    if isinstance(tree, dict) and isinstance(tree.get("Column"), str):
        return str(tree["Column"])
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return next((column for part in parts if (column := _first_column(part)) is not None), None)


def meaning(where: str, expression: pl.Expr) -> str:
    """Return the expression as text that is the same for the same meaning.

    Raises:
        DefinitionError: the expression calls Python, which cannot be written down.
    """
    return json.dumps(_canonical(_tree(where, expression)), sort_keys=True)


def _tree(where: str, expression: pl.Expr) -> Any:
    try:
        return json.loads(expression.meta.serialize(format="json"))
    except pl.exceptions.PolarsError:
        raise DefinitionError(
            f"{where} may not call Python functions: it could not be compared between versions"
        ) from None


def _canonical(tree: Any) -> Any:
    """Sort the choices of `is_in`: a Python set hands them over in an order of the process's own."""
    if isinstance(tree, list):
        return [_canonical(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if _is_membership(tree):
        value, choices = tree["input"]
        return {**tree, "input": [_canonical(value), _sorted_choices(choices)]}
    return {name: _canonical(part) for name, part in tree.items()}


def _is_membership(tree: dict[str, Any]) -> bool:
    function = tree.get("function")
    return isinstance(function, dict) and isinstance(function.get("Boolean"), dict) and "IsIn" in function["Boolean"]


def _sorted_choices(choices: Any) -> Any:
    """Return a literal list's values in order; they are serialised as an Arrow stream of one column."""
    try:
        data = bytes(choices["Literal"]["Scalar"]["List"])
    except (KeyError, TypeError):
        return _canonical(choices)
    values = pl.read_ipc_stream(data).to_series()
    return [str(values.dtype), sorted(repr(value) for value in set(values.to_list()))]


def _evaluate(frame: pl.DataFrame, expression: pl.Expr) -> pl.Series:
    return frame.with_columns(expression.alias("__probe"))["__probe"]


def _sample(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return eight rows with ties and a null in each column, each column turned by one against the one before."""
    columns = []
    for turn, (name, dtype) in enumerate(schema.items()):
        values = _values(dtype)
        turned = values[turn % 8 :] + values[: turn % 8]
        columns.append(pl.Series(name, turned, dtype=dtype, strict=False))
    return pl.DataFrame(columns)


def _values(dtype: pl.DataType) -> list[object]:
    if dtype == pl.Datetime:
        return [datetime(2024, 2, 28, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, 1, 1, 30, 700, 5, 9)] + [
            None
        ]
    kind = (
        "string"
        if dtype == pl.String
        else "boolean"
        if dtype == pl.Boolean
        else "integer"
        if dtype.is_integer()
        else "float"
    )
    return [*_SAMPLES[kind][:7], None]
