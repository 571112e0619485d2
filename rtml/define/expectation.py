"""What a user expects of data beyond its contract: one expectation of Great Expectations, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from rtml.define.expectation_types import LEFT_OUT, TYPES, ExpectationType
from rtml.define.expression import check_expression, relaxed
from rtml.define.naming import check_type, place
from rtml.errors import DefinitionError, near_miss

Severity = Literal["critical", "warning"]
SEVERITIES = ("critical", "warning")

OWN_CHECKS = frozenset({"contract", "days_built", "expectations", "volume"})
"""The platform's own checks of the same assets."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_LEFT_OUT_OF_NAMES = frozenset({"expect", "column", "columns", "to", "be", "table", "select"})
_COLUMNS = ("column", "column_A", "column_B")
_LISTS = ("column_list", "column_set")


@dataclass(frozen=True, eq=False, init=False)
class Expect:
    """One thing that is expected of every day of a source's events, or of a view's values.

    Args:
        type: as Great Expectations calls it, such as `"expect_column_values_to_be_between"`.
        column: the column it is about, where it is about one.
        severity: `"critical"` keeps a day that fails from being built; `"warning"` is only told.
        name: the name of its check; by default made of the column and the type.
        where: of which rows; a row-wise Polars expression over the same columns.
        min_rows: a day with fewer rows (of those, `where` holds for) is not judged: it is still filling up.
        arguments: what Great Expectations calls them, such as `min_value=0, max_value=1, mostly=0.99`.

    Raises:
        DefinitionError: no such type, argument or severity; what needs the columns is checked where it is used.
    """

    type: str
    column: str | None
    severity: Severity
    name: str | None
    where: pl.Expr | None
    min_rows: int
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        type: str,
        column: str | None = None,
        *,
        severity: Severity = "critical",
        name: str | None = None,
        where: pl.Expr | None = None,
        min_rows: int = 0,
        **arguments: Any,
    ) -> None:
        """Validate what can be without the columns."""
        given = {**({} if column is None else {"column": column}), **arguments}
        self.__dict__.update(
            type=type, column=column, severity=severity, name=name, where=where, min_rows=min_rows, arguments=given
        )
        self.__dict__["place"] = f"Expect({type!r}) ({place()})"
        known = _type_of(self.place, type)
        _check_arguments(self.place, known, given)
        if severity not in SEVERITIES:
            raise DefinitionError.at(self.place, "severity", "'critical' or 'warning'", severity)
        if not isinstance(min_rows, int) or min_rows < 0:
            raise DefinitionError.at(self.place, "min_rows", "a number of rows", min_rows)
        if where is not None and not known.conditional:
            raise DefinitionError(f"{self.place}: where: this one is about the table, not about some of its rows")

    place: str = field(init=False, repr=False, default="")

    @property
    def check(self) -> str:
        """The name of its check."""
        return self.name or "_".join(
            [
                *_mentioned(self.arguments),
                *(word for word in self.type.split("_") if word not in _LEFT_OUT_OF_NAMES),
            ]
        )


@dataclass(frozen=True, eq=False)
class Expectation:
    """An `Expect` that fits the columns it was given: what is judged."""

    name: str
    type: str
    arguments: Mapping[str, Any]
    severity: Severity = "critical"
    where: pl.Expr | None = None
    min_rows: int = 0

    @property
    def rows(self) -> bool:
        """Whether it names the rows that fail."""
        return TYPES[self.type].rows

    @property
    def blocks(self) -> bool:
        """Whether a day that fails it may not go on."""
        return self.severity == "critical"

    def __str__(self) -> str:
        """Say what is expected, as Great Expectations names it."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        of = "" if self.where is None else f" where {self.where}"
        return f"{self.type}({given}){of}"


def resolve_quality(
    where: str, quality: Sequence[Expect], columns: Mapping[str, pl.DataType], taken: Iterable[str] = OWN_CHECKS
) -> tuple[Expectation, ...]:
    """Return what a definition expects of rows with these columns.

    Raises:
        DefinitionError: an unknown column, one of another type than is looked at, or two checks of one name.
    """
    found: dict[str, Expectation] = {}
    if isinstance(quality, Expect):
        raise DefinitionError.at(where, "quality", "a list of Expect(…)", quality)
    for expect in quality:
        check_type(where, "quality", expect, Expect, "a list of Expect(…)")
        own = f"{where}: quality: {expect.place}"
        name = _checked_name(own, expect.check, found, taken)
        _check_columns(own, expect, columns)
        condition = None if expect.where is None else _condition(f"{own}: where", expect.where, columns)
        found[name] = Expectation(
            name, expect.type, dict(expect.arguments), expect.severity, condition, expect.min_rows
        )
    return tuple(found.values())


def _type_of(where: str, name: object) -> ExpectationType:
    if isinstance(name, str) and name in TYPES:
        return TYPES[name]
    if isinstance(name, str) and name in LEFT_OUT:
        raise DefinitionError(f"{where}: this expectation cannot be used here: {LEFT_OUT[name]}")
    raise DefinitionError(f"{where}: no such expectation.{near_miss(str(name), TYPES)}")


def _check_arguments(where: str, known: ExpectationType, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known.arguments:
            raise DefinitionError(f"{where}: it has no argument {name!r}.{near_miss(name, known.arguments)}")
    for name in known.required:
        if given.get(name) is None:
            raise DefinitionError(f"{where}: it needs the argument {name!r}; got {', '.join(given) or 'none'}")
    if "min_value" in known.optional and given.get("min_value") is None and given.get("max_value") is None:
        raise DefinitionError(f"{where}: it needs min_value or max_value, or both")
    for name in _LISTS:
        listed = given.get(name)
        if listed is not None and (isinstance(listed, str) or len(listed) < (2 if name in known.required else 1)):
            raise DefinitionError.at(where, name, "a list of columns, of two where they are compared", listed)
    mostly = given.get("mostly", 1)
    if isinstance(mostly, bool) or not isinstance(mostly, (int, float)) or not 0 < mostly <= 1:
        raise DefinitionError.at(where, "mostly", "a share above 0, up to 1", mostly)


def _mentioned(arguments: Mapping[str, Any]) -> list[str]:
    """Return the columns that an expectation is about."""
    one = [str(arguments[name]) for name in _COLUMNS if arguments.get(name) is not None]
    return one + [str(column) for name in _LISTS for column in arguments.get(name) or ()]


def _checked_name(where: str, name: str, found: Mapping[str, object], taken: Iterable[str]) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DefinitionError.at(where, "name", "letters, digits and underscores, from a letter on, at most 100", name)
    if name in found:
        raise DefinitionError(f"{where}: two checks are called {name!r}; give one of them a name=")
    if name in taken:
        raise DefinitionError(f"{where}: {name!r} is a check of the platform itself; give it another name=")
    return name


def _check_columns(where: str, expect: Expect, columns: Mapping[str, pl.DataType]) -> None:
    looks_at = TYPES[expect.type].looks_at
    for name in _mentioned(expect.arguments):
        if name not in columns:
            raise DefinitionError(f"{where}: unknown column {name!r}.{near_miss(name, columns)}")
        dtype = columns[name]
        if dtype.is_nested() and not expect.type.endswith("_be_null"):
            raise DefinitionError.at(where, f"column {name!r}", "of single values: of lists, only nulls", str(dtype))
        if looks_at == "number" and not dtype.is_numeric():
            raise DefinitionError.at(where, f"column {name!r}", "of numbers", str(dtype))
        if looks_at == "string" and dtype != pl.String:
            raise DefinitionError.at(where, f"column {name!r}", "of strings", str(dtype))


def _condition(where: str, expression: pl.Expr, columns: Mapping[str, pl.DataType]) -> pl.Expr:
    condition = relaxed(where, expression)
    dtype = check_expression(where, condition, columns)
    if dtype != pl.Boolean:
        raise DefinitionError.at(where, "its value", "boolean", str(dtype))
    return condition
