"""Custom aggregates, as a user writes them: states, and the functions that make, merge and read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import polars as pl

from rtml.algebra.custom import CUSTOM, KNOWN, Combine, Finalize, Lift, Lower, Part, parameters_of
from rtml.algebra.family import NUMPY_KIND, Array, Kind, States, Values
from rtml.define.feature import Aggregation, Window
from rtml.define.naming import check_name, check_type
from rtml.errors import DefinitionError

_KINDS: dict[object, Kind] = {float: "f64", int: "i64"}
_TYPES: dict[Kind, type[pl.DataType]] = {"f64": pl.Float64, "i64": pl.Int64}
_ROW, _VALUE = "row", "value"
_INTEGERS = range(-(2**63), 2**63)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CustomAggregate:
    """A commutative monoid of one's own; called with a column and windows, it is a view's aggregate.

    `rtml.check_laws` says in a test whether it is one.

    Args:
        name: how it is called in the features' names: `amount_geometric_mean_24h`.
        state: the state's columns, `float` or `int`.
        lower: a Polars expression of the values, none of them null → an expression for each state column, as for
            `group_by().agg(...)`. Where that is null, as a maximum of nothing, the state is that of no events.
        finalize: states as numpy columns → values, or a pair of values and which rows have one; of float values, those
            that are not finite are null.
        combine: states as numpy columns, and where the groups among them begin → one state a group, associative and in
            any order, without changing its inputs. Columns are added where it is not given.
        empty: the state of no events, which changes nothing it is combined with; zeros where it is not given.
        lift: values as a numpy array → a state for each. Without it, `lower` is used on single rows: right, and slow.
        output: the type of the values, `float` or `int`.
        version: to be raised whenever the functions change what they mean: their text cannot be compared. While the
            former version is served, its definition must stay in the module beside the new one.
        tolerance: by what part of itself a value may differ between the roads, since floats are added in other orders.

    Raises:
        DefinitionError: a parameter cannot mean what it says.
    """

    name: str
    state: Mapping[str, type]
    lower: Lower
    finalize: Finalize
    combine: Combine | None = None
    empty: Mapping[str, float | int] = field(default_factory=dict)
    lift: Lift | None = None
    output: type = float
    version: int = 1
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        """Validate all parameters at once; plans find the functions by name and version from now on."""
        where = check_name("custom aggregate", self.name)
        self.__dict__["place"] = where
        if not isinstance(self.version, int) or isinstance(self.version, bool) or self.version < 1:
            raise DefinitionError.at(where, "version", "an integer from 1 on", self.version)
        _check_kind(where, "output", self.output)
        if not _is_number(self.tolerance) or not 0 <= self.tolerance < 1:
            raise DefinitionError.at(where, "tolerance", "from 0 to below 1", self.tolerance)
        for function in ("lower", "finalize", "combine", "lift"):
            given = getattr(self, function)
            if not callable(given) and (given is not None or function in ("lower", "finalize")):
                raise DefinitionError.at(where, function, "a function", given)
        self.__dict__["parts"] = self._parts(where)
        KNOWN[self.name, self.version] = self

    place: str = field(init=False, repr=False, default="")
    parts: dict[str, Part] = field(init=False, repr=False, default_factory=dict)

    def __call__(self, column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
        """Return the aggregate of a column over windows, for a view."""
        return Aggregation(CUSTOM, column, windows, name, parameters_of(self.name, self.version, self))

    def _parts(self, where: str) -> dict[str, Part]:
        words = "columns with their types, such as {'total': float}"
        check_type(where, "state", self.state, Mapping, words)
        if not self.state:
            raise DefinitionError.at(where, "state", words, self.state)
        for name, kind in self.state.items():
            check_name(f"{where}: state", name)
            _check_kind(where, f"state[{name!r}]", kind)
        check_type(where, "empty", self.empty, Mapping, "a mapping of the state's columns to numbers")
        for name, value in self.empty.items():
            if name not in self.state:
                raise DefinitionError.at(where, "empty", f"of the state's columns {list(self.state)}", name)
            if self.state[name] is int and (not isinstance(value, int) or value not in _INTEGERS):
                raise DefinitionError.at(where, f"empty[{name!r}]", "an integer of 64 bits", value)
            if not _is_number(value):
                raise DefinitionError.at(where, f"empty[{name!r}]", "a number", value)
        return {name: Part(_KINDS[kind], kind(self.empty.get(name, 0))) for name, kind in self.state.items()}

    @property
    def gives(self) -> Kind:
        """The type of its values."""
        return _KINDS[self.output]

    def lowered(self, values: pl.Expr) -> Mapping[str, pl.Expr]:
        """Values, none of them null → states, in a `group_by().agg(...)`."""
        return self._whole("lower", self.lower(values))

    def lifted(self, values: Array) -> Mapping[str, Array]:
        """Each value → a state of its own."""
        if self.lift is not None:
            lifted = self._whole("lift", self.lift(values))
            if any(np.shape(column) != values.shape for column in lifted.values()):
                shapes = {name: np.shape(column) for name, column in lifted.items()}
                raise DefinitionError.at(self.place, "lift", f"columns of {len(values)} states, one a value", shapes)
            return lifted
        frame = pl.DataFrame({_ROW: np.arange(len(values)), _VALUE: values})
        lowered = [
            expression.cast(_TYPES[self.parts[name].kind]).fill_null(self.parts[name].empty).alias(name)
            for name, expression in self.lowered(pl.col(_VALUE)).items()
        ]
        states = frame.group_by(_ROW, maintain_order=True).agg(lowered)
        return {name: states[name].to_numpy() for name in self.parts}

    def combined(self, states: States, starts: Array) -> Mapping[str, Array]:
        """Many states → one a group."""
        if self.combine is None:
            return {name: np.add.reduceat(column, starts) for name, column in states.items()}
        return self._whole("combine", self.combine(states, starts))

    def finalized(self, states: States) -> Values:
        """States → values."""
        found = self.finalize(states)
        values, valid = found if isinstance(found, tuple) else (found, np.isfinite(found))
        return Values(np.asarray(values, dtype=NUMPY_KIND[self.gives]), np.asarray(valid, dtype=bool))

    def _whole(self, function: str, found: Mapping[str, T]) -> Mapping[str, T]:
        if set(found) != set(self.parts):
            raise DefinitionError.at(self.place, function, f"the state's columns {list(self.parts)}", list(found))
        return found


def _check_kind(where: str, parameter: str, kind: object) -> None:
    if kind is not float and kind is not int:
        raise DefinitionError.at(where, parameter, "float or int", kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
