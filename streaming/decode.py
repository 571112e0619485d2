"""JSON → typed columns, and for what does not fit the reasons why.

The contract is compiled once to a msgspec type; only a message that it refuses is looked at field by field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, NamedTuple

import msgspec
import polars as pl

from rtml.define.column import Column
from rtml.errors import InstantError, near_miss
from rtml.instants import to_instant

_BITS: dict[type[pl.DataType], int] = {pl.Int8: 7, pl.Int16: 15, pl.Int32: 31, pl.Int64: 63}


MOST_OTHERS = 20
"""Of a message without a field, so many others are looked at whether they are meant."""


class Reason(StrEnum):
    """Why an event was refused."""

    NO_DATA = "no_data"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING_FIELD = "missing_field"
    NULL_VALUE = "null_value"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    FUTURE = "future"


class Failure(NamedTuple):
    """One thing that is wrong with an event."""

    reason: Reason
    detail: str


class Decoded(NamedTuple):
    """The rows that fit the contract's types (`rows` are their places in the batch), and failures of the others."""

    frame: pl.DataFrame
    rows: list[int]
    failures: dict[int, list[Failure]]


class Decoder:
    """Decodes the messages of one contract."""

    def __init__(self, columns: Mapping[str, Column], *, lenient: bool = False) -> None:
        """Compile the contract; `lenient` takes nulls everywhere."""
        self._columns = {name: replace(column, nullable=column.nullable or lenient) for name, column in columns.items()}
        fields: list[Any] = []
        for number, column in enumerate(self._columns.values()):
            kind = _json_type(column)
            renamed: Any = msgspec.field(name=column.name)
            if column.nullable:
                kind, renamed = kind | None, msgspec.field(default=None, name=column.name)
            fields.append((f"c{number}", kind, renamed))
        message = msgspec.defstruct("Message", fields, kw_only=True, gc=False)
        self._decode = msgspec.json.Decoder(message).decode

    def decode(self, payloads: Iterable[bytes]) -> Decoded:
        """Return what fits, as a frame of the contract's columns, and why the rest does not."""
        messages, rows, failures = [], [], {}
        decode = self._decode
        for row, payload in enumerate(payloads):
            try:
                messages.append(decode(payload))
                rows.append(row)
            except (ValueError, RecursionError) as error:  # which msgspec's are, and Python's of what is no UTF-8
                failures[row] = self.explain(payload, error)
        columns = [self._series(f"c{number}", column, messages) for number, column in enumerate(self._columns.values())]
        return Decoded(pl.DataFrame(columns), rows, failures)

    @staticmethod
    def _series(attribute: str, column: Column, messages: list[Any]) -> pl.Series:
        values = [getattr(message, attribute) for message in messages]
        if column.is_timestamp:
            instants = [value if value is None or type(value) is int else to_instant(value) for value in values]
            return pl.Series(column.name, instants, dtype=pl.Int64).cast(column.dtype)
        return pl.Series(column.name, values, dtype=column.dtype)

    def explain(self, payload: bytes, error: Exception) -> list[Failure]:
        """Return all that is wrong with a message that did not decode."""
        if not payload:
            return [Failure(Reason.NO_DATA, "the entry has no field 'data'")]
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            return [Failure(Reason.NOT_JSON, str(error))]
        if not isinstance(message, dict):
            return [Failure(Reason.NOT_OBJECT, f"expected a JSON object; got {type(message).__name__}")]
        failures = [failure for column in self._columns.values() if (failure := self._failure(column, message))]
        return failures or [Failure(Reason.WRONG_TYPE, str(error))]

    def _failure(self, column: Column, message: dict[str, Any]) -> Failure | None:
        if column.name in message or column.nullable:
            return _misfit(column, message.get(column.name))
        others = islice((name for name in message if name not in self._columns), MOST_OTHERS)
        near = _near(column.name, tuple(others))
        return Failure(Reason.MISSING_FIELD, f"field {column.name!r} is missing.{near}")


@lru_cache(maxsize=1_000)
def _near(name: str, others: tuple[str, ...]) -> str:
    """Say which of a message's other fields may be meant; what is wrong with one message mostly is with the next."""
    words = near_miss(name, others) if others else ""
    return words.encode(errors="backslashreplace").decode()  # JSON may have half of a surrogate pair in a name


def _json_type(column: Column) -> Any:
    if column.is_timestamp:
        bound = msgspec.Meta(ge=-(2**62), le=2**62)
        return Annotated[int, bound] | Annotated[datetime, msgspec.Meta(tz=True)]
    if column.is_integer:
        low, high = integer_range(column)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if column.is_float:
        return float
    return bool if column.dtype == pl.Boolean else str


def integer_range(column: Column) -> tuple[int, int]:
    """Return the least and greatest integer of a column's type."""
    kind = type(column.dtype)
    return -(1 << _BITS[kind]), (1 << _BITS[kind]) - 1


def _misfit(column: Column, value: object) -> Failure | None:
    name = column.name
    if value is None:
        return None if column.nullable else Failure(Reason.NULL_VALUE, f"field {name!r} may not be null")
    if isinstance(value, float) and not math.isfinite(value):
        return Failure(Reason.NOT_FINITE, f"field {name!r} must be a finite number; got {value}")
    words = _mismatch(column, value)
    return Failure(Reason.WRONG_TYPE, f"field {name!r} must be {words}; got {value!r:.80}") if words else None


def _mismatch(column: Column, value: object) -> str | None:
    """Return what was expected, if that is not what was got."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if column.is_timestamp:
        return None if _is_instant(value) else "an RFC 3339 time with an offset, or integer microseconds"
    if column.is_integer:
        low, high = integer_range(column)
        fits = isinstance(value, int) and number and low <= value <= high
        return None if fits else f"an integer from {low} to {high}"
    if column.is_float:
        return None if number else "a number"
    if column.dtype == pl.Boolean:
        return None if isinstance(value, bool) else "a boolean"
    return None if isinstance(value, str) else "a string"


def _is_instant(value: object) -> bool:
    try:
        to_instant(value)
    except InstantError:
        return False
    return True
