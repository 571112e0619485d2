"""Random row-wise expressions, each as the text of a Polars expression and as what it means in plain Python."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Meaning = Callable[[Row], Any]


@dataclass(frozen=True)
class Column:
    """A column that may be read: `kind` is str, int, float or bool; a wide one has numbers too great to reckon with."""

    name: str
    kind: str
    nullable: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Expression:
    """The text, the kind of its values, and their meaning; null is `None`."""

    text: str
    kind: str
    meaning: Meaning


def condition(rng: random.Random, columns: Sequence[Column], depth: int = 2) -> Expression:
    """Draw a boolean expression that reads at least one column."""
    if depth and rng.random() < 0.6:
        left = condition(rng, columns, depth - 1)
        if rng.random() < 0.3:
            return Expression(f"~{left.text}", "bool", lambda row: _not(left.meaning(row)))
        return _both(rng.choice("&|"), left, condition(rng, columns, depth - 1))
    return _simple_condition(rng, columns, depth)


def number(rng: random.Random, columns: Sequence[Column], depth: int = 2) -> Expression:
    """Draw a numeric expression that reads at least one column; there must be one that it can reckon with."""
    if not depth or rng.random() < 0.3:
        column = rng.choice(_reckonable(columns))
        return Expression(f'pl.col("{column.name}")', column.kind, lambda row: row[column.name])
    left = number(rng, columns, depth - 1)
    if rng.random() < 0.2:
        return _one(rng, left)
    right = number(rng, columns, depth - 1) if rng.random() < 0.5 else _literal(rng)
    sign = rng.choice(["+", "+", "-", "-", "*", "*", "/", "/", "//", "%"])
    kind = "float" if "float" in (left.kind, right.kind) or sign == "/" else "int"
    return Expression(f"({left.text} {sign} {right.text})", kind, _skip_null(_ARITHMETIC[sign], left, right))


def can_reckon(columns: Sequence[Column]) -> bool:
    """Whether a numeric expression can be drawn."""
    return bool(_reckonable(columns))


def _simple_condition(rng: random.Random, columns: Sequence[Column], depth: int) -> Expression:
    column = rng.choice(columns)
    read = f'pl.col("{column.name}")'
    if rng.random() < 0.2:
        if rng.random() < 0.5:
            return Expression(f"{read}.is_null()", "bool", lambda row: row[column.name] is None)
        return Expression(f"{read}.is_not_null()", "bool", lambda row: row[column.name] is not None)
    if column.kind == "bool":
        return Expression(read, "bool", lambda row: row[column.name])
    leaf = Expression(read, column.kind, lambda row: row[column.name])
    if column.kind == "str":
        return _compared(rng.choice(["==", "!="]), leaf, _constant(rng.choice(["", "a", "plain", "späce y"]), "str"))
    sign = rng.choice(list(_COMPARISONS))
    if column.wide or not can_reckon(columns):
        return _compared(sign, leaf, _constant(rng.randrange(-5, 6), "int"))
    other = number(rng, columns, min(depth, 1)) if rng.random() < 0.4 else _literal(rng)
    return _compared(sign, number(rng, columns, min(depth, 1)), other)


def _reckonable(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.kind in ("int", "float") and not column.wide]


def _one(rng: random.Random, part: Expression) -> Expression:
    if rng.random() < 0.5:
        return Expression(f"{part.text}.abs()", part.kind, lambda row: _abs(part.meaning(row)))
    instead = rng.randrange(-5, 6)
    return Expression(f"{part.text}.fill_null({instead})", part.kind, lambda row: _or_else(part.meaning(row), instead))


def _abs(value: Any) -> Any:
    return None if value is None else abs(value)


def _or_else(value: Any, instead: Any) -> Any:
    return instead if value is None else value


def _literal(rng: random.Random) -> Expression:
    """Draw a number other than zero: of `-0.0 + 0.0`, Polars makes `-0.0`."""
    if rng.random() < 0.6:
        return _constant(rng.choice([-5, -2, -1, 1, 2, 3, 7]), "int")
    return _constant(rng.choice([-1.5, 0.1, 0.25, 1e6]), "float")


def _constant(value: Any, kind: str) -> Expression:
    return Expression(repr(value), kind, lambda row: value)


def _compared(sign: str, left: Expression, right: Expression) -> Expression:
    return Expression(f"({left.text} {sign} {right.text})", "bool", _skip_null(_COMPARISONS[sign], left, right))


def _both(sign: str, left: Expression, right: Expression) -> Expression:
    """Kleene's: one side may settle it, whatever the other is."""
    settles = sign == "|"

    def meaning(row: Row) -> bool | None:
        sides = (left.meaning(row), right.meaning(row))
        if settles in sides:
            return settles
        return None if None in sides else not settles

    return Expression(f"({left.text} {sign} {right.text})", "bool", meaning)


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _skip_null(apply: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Meaning:
    def meaning(row: Row) -> Any:
        sides = (left.meaning(row), right.meaning(row))
        return None if None in sides else apply(*sides)

    return meaning


def _divide(left: float, right: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(left) / np.float64(right))


def _floor_divide(left: float, right: float) -> float | int | None:
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right else None
    return float(np.floor(_divide(left, right)))


def _modulo(left: float, right: float) -> float | int | None:
    if isinstance(left, int) and isinstance(right, int):
        return left % right if right else None
    return left - right * float(np.floor(_divide(left, right)))


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Polars' order of floats: not-a-number equals itself, and is greater than all others."""
    return lambda left, right: compare(_place(left), _place(right))


def _place(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)
    return nan, 0 if nan else value


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "//": _floor_divide,
    "%": _modulo,
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "==": _ordered(operator.eq),
    "!=": _ordered(operator.ne),
}
