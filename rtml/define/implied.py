"""Whether a column accepts all that another accepted: a value that it does not, or a proof from the checks.

Values are judged as they are kept: those of a Float32 column are Float32s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rtml.define.checks import CHECKS
from rtml.define.column import Column
from rtml.errors import InstantError
from rtml.instants import to_instant

BITS: dict[type[pl.DataType], int] = {pl.Int8: 7, pl.Int16: 15, pl.Int32: 31, pl.Int64: 63}
MANTISSA: dict[type[pl.DataType], int] = {pl.Float32: 24, pl.Float64: 53}
"""Up to so many bits, every integer is a float."""
_LONGEST = 1_000
"""No string of more characters is tried."""
_RANGES = ("greater_than", "greater_than_or_equal_to", "less_than", "less_than_or_equal_to", "in_range")
_FINITE = {"equal_to": "value", "isin": "allowed_values"}
_NEVER = {"not_equal_to": "value", "notin": "forbidden_values"}


def is_wider(dtype: pl.DataType, than: pl.DataType) -> bool:
    """Whether a type holds all values of another, exactly."""
    if dtype == than:
        return True
    bits, narrow = BITS.get(type(dtype)), BITS.get(type(than))
    if narrow is not None:
        return (bits is not None and bits >= narrow) or MANTISSA.get(type(dtype), 0) > narrow
    return dtype == pl.Float64 and than == pl.Float32


def fits(dtype: pl.DataType, value: object) -> bool:
    """Whether a value of JSON is one of a type's."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if (bits := BITS.get(type(dtype))) is not None:
        return number and isinstance(value, int) and -(1 << bits) <= value < 1 << bits
    if dtype.is_float():
        return number and _is_finite(dtype, value)
    if dtype == pl.Boolean:
        return isinstance(value, bool)
    return isinstance(value, datetime) if dtype.is_temporal() else isinstance(value, str)


def passing(column: Column, values: Iterable[Any]) -> list[Any]:
    """Return those of some values, none of them null, that a column accepts."""
    fitting = [value for value in values if fits(column.dtype, value)]
    kept = pl.Series(column.name, fitting, dtype=column.dtype, strict=False).to_frame()
    rules = [CHECKS[name](pl.col(column.name), dict(given)).fill_null(value=True) for name, given in column.checks]
    if not rules or not fitting:
        return fitting
    passes = kept.select(pl.all_horizontal(rules)).to_series()
    return [value for value, taken in zip(fitting, passes, strict=True) if taken]


def witnesses(old: Column, new: Column) -> list[Any]:
    """Return values that the old column accepts, and at which the two may part: the edges of all their checks."""
    given = [(name, arguments) for column in (old, new) for name, arguments in column.checks]
    found = chain.from_iterable(_edges(name, arguments) for name, arguments in given)
    tried = [*found, *_plain_values(old.dtype, new.dtype)]
    if old.dtype == pl.Float32:
        tried = [_single(value) if isinstance(value, float) else value for value in tried]
    return passing(old, tried)


def implies(old: Column, new: Column, name: str, given: Mapping[str, Any]) -> bool:
    """Whether all that the old column accepts passes one of the new's checks, where no witness says otherwise."""
    if old.dtype == pl.Boolean or any(check in _FINITE for check, _ in old.checks) or name in _NEVER:
        return True  # each value that matters is among the witnesses
    if name in _RANGES:
        return _interval(old, old.checks).is_within(_interval(new, [(name, given)]))
    if name == "str_length":
        return _lengths(old.checks).is_within(_lengths([(name, given)]))
    if name == "str_startswith":
        return any(check == name and str(had["string"]).startswith(given["string"]) for check, had in old.checks)
    if name == "str_endswith":
        return any(check == name and str(had["string"]).endswith(given["string"]) for check, had in old.checks)
    return (name, dict(given)) in [(check, dict(had)) for check, had in old.checks]


class _Interval(NamedTuple):
    """From `low` to `high`, either without its end; nothing stands for no end."""

    low: Any = None
    above: bool = False
    high: Any = None
    below: bool = False

    def is_within(self, other: _Interval) -> bool:
        """Whether another holds all of this one; ends of different kinds cannot be compared, and are not."""
        try:
            return self._begins_within(other) and self._ends_within(other)
        except TypeError:
            return False

    def _begins_within(self, other: _Interval) -> bool:
        if other.low is None:
            return True
        return self.low is not None and (self.low, self.above) >= (other.low, other.above)

    def _ends_within(self, other: _Interval) -> bool:
        if other.high is None:
            return True
        return self.high is not None and (self.high, not self.below) <= (other.high, not other.below)

    def cut(self, other: _Interval) -> _Interval:
        """Return what both hold."""
        low, high = (self.low, self.above), (self.high, self.below)
        if other.low is not None and (self.low is None or (other.low, other.above) > low):
            low = (other.low, other.above)
        if other.high is not None and (self.high is None or (other.high, not other.below) < (high[0], not high[1])):
            high = (other.high, other.below)
        return _Interval(low[0], low[1], high[0], high[1])


def _interval(column: Column, checks: Iterable[tuple[str, Mapping[str, Any]]]) -> _Interval:
    bits = BITS.get(type(column.dtype))
    held = _Interval() if bits is None else _Interval(low=-(1 << bits), high=(1 << bits) - 1)
    for name, given in checks:
        if name in _RANGES:
            low, high = _end(column, given.get("min_value")), _end(column, given.get("max_value"))
            above = name == "greater_than" or not given.get("include_min", True)
            below = name == "less_than" or not given.get("include_max", True)
            held = held.cut(_whole(_Interval(low, above, high, below)) if bits else _Interval(low, above, high, below))
    return held


def _whole(ends: _Interval) -> _Interval:
    """Return the same for integers: from and to whole numbers, both included."""
    low, high = ends.low, ends.high
    if isinstance(low, (int, float)):
        low = math.floor(low) + 1 if ends.above else math.ceil(low)
    if isinstance(high, (int, float)):
        high = math.ceil(high) - 1 if ends.below else math.floor(high)
    return _Interval(low, False, high, False)


def _end(column: Column, value: Any) -> Any:
    """Return an end as the column's values are held against it."""
    if isinstance(value, datetime):
        return _microseconds(value)
    return _single(value) if column.dtype == pl.Float32 and isinstance(value, (int, float)) else value


def _microseconds(value: datetime) -> Any:
    try:
        return to_instant(value)
    except InstantError:
        return value


def _lengths(checks: Iterable[tuple[str, Mapping[str, Any]]]) -> _Interval:
    held = _Interval(low=0)
    for name, given in checks:
        if name == "str_length":
            exact = given.get("exact_value")
            low, high = (exact, exact) if exact is not None else (given.get("min_value"), given.get("max_value"))
            held = held.cut(_Interval(low=low, high=high))
    return held


def _edges(name: str, given: Mapping[str, Any]) -> list[Any]:
    """Return the values around which a check changes its mind."""
    if name == "str_length":
        lengths = [value + step for value in given.values() if value is not None for step in (-1, 0, 1)]
        return ["x" * length for length in lengths if 0 <= length <= _LONGEST]
    named = {**_FINITE, **_NEVER}.get(name)
    values = given.values() if named is None else [given[named]]
    flat = chain.from_iterable(
        value if isinstance(value, (list, set, frozenset, tuple)) else [value] for value in values
    )
    return [edge for value in flat for edge in _around(value)]


def _around(value: Any) -> list[Any]:
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        near = [
            value,
            value - 1,
            value + 1,
            float(value),
            *(float(np.nextafter(value, to)) for to in (-np.inf, np.inf)),
        ]
        single = np.float32(value)
        return [*near, *(float(np.nextafter(single, np.float32(to))) for to in (-np.inf, np.inf)), *_integers(value)]
    if isinstance(value, datetime):
        return [value + timedelta(microseconds=step) for step in (-1, 0, 1)]
    return [value, f"{value}x", f"x{value}"]


def _integers(value: float) -> list[int]:
    return [math.floor(value), math.ceil(value)] if math.isfinite(value) else []


def _plain_values(*dtypes: pl.DataType) -> list[Any]:
    values: list[Any] = [0, 1, -1, 0.5, "", "x", True, False]
    for dtype in dtypes:
        if (bits := BITS.get(type(dtype))) is not None:
            values += [-(1 << bits), (1 << bits) - 1, -(1 << bits) - 1, 1 << bits]
    return [*values, float(np.finfo(np.float32).max), 1e300, -1e300]


def _single(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _is_finite(dtype: pl.DataType, value: Any) -> bool:
    try:
        return math.isfinite(_single(value) if dtype == pl.Float32 else float(value))
    except OverflowError:
        return False
