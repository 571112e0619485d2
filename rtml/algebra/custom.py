"""Custom aggregates: a user's own monoid over named state columns.

A plan says which one it means by name, version and states; the functions are found by these among the definitions that
this process has loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from rtml.algebra.family import (
    NUMPY_KIND,
    Aggregate,
    Array,
    Events,
    Family,
    Identity,
    Kind,
    Output,
    Parameters,
    Span,
    States,
    Values,
)
from rtml.errors import DefinitionError, UnknownNameError
from rtml.lazy import pl

CUSTOM = "custom"


class Part(NamedTuple):
    """One state column: its type, and its value in the state of no events."""

    kind: Kind
    empty: float | int


Lower = Callable[["pl.Expr"], Mapping[str, "pl.Expr"]]
Lift = Callable[[Array], Mapping[str, Array]]
Combine = Callable[[States, Array], Mapping[str, Array]]
Finalize = Callable[[States], Array | tuple[Array, Array]]


class Functions(Protocol):
    """What a custom aggregate is made of, over state columns by their own names."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The state columns."""

    @property
    def gives(self) -> Kind:
        """The type of its values."""

    @property
    def tolerance(self) -> float:
        """By what part of itself a value may differ between the roads."""

    def lowered(self, values: pl.Expr) -> Mapping[str, pl.Expr]:
        """Values, none of them null → states, in a `group_by().agg(...)`."""

    def lifted(self, values: Array) -> Mapping[str, Array]:
        """Each value → a state of its own."""

    def combined(self, states: States, starts: Array) -> Mapping[str, Array]:
        """Many states → one a group."""

    def finalized(self, states: States) -> Values:
        """States → values."""


KNOWN: dict[tuple[str, int], Functions] = {}
"""By name and version: the custom aggregates that this process has loaded; the newest where one was loaded again."""


def described(parts: Mapping[str, Part]) -> str:
    """Return state columns as a plan has them."""
    return ", ".join(f"{name}: {part.kind} = {part.empty!r}" for name, part in parts.items())


def find(called: str, version: int, state: str) -> Functions:
    """Return the functions of a custom aggregate.

    Raises:
        UnknownNameError: this process has loaded no definitions with it.
        DefinitionError: it was loaded with other states, under the same version.
    """
    functions = KNOWN.get((called, version))
    if functions is None:
        known = [f"{name} version {number}" for name, number in KNOWN]
        raise UnknownNameError.of("custom aggregate", f"{called} version {version}", known, "what is loaded here")
    if (has := described(functions.parts)) != state:
        raise DefinitionError(
            f"custom aggregate {called!r} version {version} must have the states ({state}); it has ({has}): "
            f"give what changed another version="
        )
    return functions


@dataclass(frozen=True)
class CustomFamily(Family):
    """The states of a custom aggregate."""

    called: str
    version: int
    state: str

    code = CUSTOM

    @property
    def functions(self) -> Functions:
        """Its functions."""
        return find(self.called, self.version, self.state)

    @property
    def columns(self) -> dict[str, str]:
        """One for each part."""
        return {self._part(name): NUMPY_KIND[part.kind] for name, part in self.functions.parts.items()}

    @property
    def empty(self) -> dict[str, Identity]:
        """As declared."""
        return {self._part(name): part.empty for name, part in self.functions.parts.items()}

    def lower(self) -> list[pl.Expr]:
        """Lower values that are not null."""
        functions = self.functions
        lowered = functions.lowered(pl.col(self.column).drop_nulls())
        types = {"f64": pl.Float64, "i64": pl.Int64}
        return [
            lowered[name].cast(types[part.kind]).fill_null(part.empty).alias(self._part(name))
            for name, part in functions.parts.items()
        ]

    def lift(self, events: Events) -> dict[str, Array]:
        """Lift values that are not null."""
        functions, (values, valid) = self.functions, events.lanes[self.column]
        lifted = functions.lifted(values[valid])
        states = {}
        for name, part in functions.parts.items():
            states[self._part(name)] = column = np.full(len(valid), part.empty, dtype=NUMPY_KIND[part.kind])
            column[valid] = lifted[name]
        return states

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Combine them under their own names."""
        functions = self.functions
        combined = functions.combined(self.own(states), starts)
        return {
            self._part(name): np.asarray(combined[name], dtype=NUMPY_KIND[part.kind])
            for name, part in functions.parts.items()
        }

    def own(self, states: States) -> dict[str, Array]:
        """Return its states under their own names."""
        return {name: states[self._part(name)] for name in self.functions.parts}

    def _part(self, name: str) -> str:
        return self._named(f"{self.called}_{self.version}_{name}")


@dataclass(frozen=True)
class Custom(Aggregate):
    """A user's own aggregate."""

    name = CUSTOM

    called: str
    version: int
    state: str
    gives: Kind

    @property
    def tolerance(self) -> float:
        """By what part of itself a value may differ between the roads."""
        return self._family("", "f64").functions.tolerance

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """Its own."""
        return (self._family(column, kind),)

    def output(self, kind: Kind) -> Output:
        """As declared."""
        del kind
        return Output(self.gives)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Finalize them under their own names."""
        del span
        family = self._family(column, kind)
        return family.functions.finalized(family.own(states))

    def _family(self, column: str, kind: Kind) -> CustomFamily:
        return CustomFamily(column, kind, self.called, self.version, self.state)


def parameters_of(called: str, version: int, functions: Functions) -> Parameters:
    """Return what a plan carries of a custom aggregate."""
    return (
        ("called", called),
        ("version", version),
        ("state", described(functions.parts)),
        ("gives", functions.gives),
    )
