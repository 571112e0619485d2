"""States as a whole: what a view keeps for one tile, all families side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from rtml.algebra.family import Array, Events, Family, States, with_needs


@dataclass(frozen=True)
class StateSchema:
    """The families of a view, each once, with what they need; one state is one row over all their columns."""

    families: tuple[Family, ...]

    @classmethod
    def of(cls, families: tuple[Family, ...]) -> StateSchema:
        """Return the schema of these families and all that they need, in a stable order."""
        unique = with_needs(families)
        return cls(unique)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """One packed state: little endian, no padding."""
        return np.dtype([(name, kind) for family in self.families for name, kind in family.columns.items()])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The state columns, in packing order."""
        return tuple(name for family in self.families for name in family.columns)

    @cached_property
    def empty(self) -> Mapping[str, float | int]:
        """The identity of every column."""
        return {name: value for family in self.families for name, value in family.empty.items()}

    def lower(self) -> list[pl.Expr]:
        """Events → state columns, for one `group_by().agg(...)`."""
        return [expression for family in self.families for expression in family.lower()]

    def lift(self, events: Events) -> dict[str, Array]:
        """Each event → a state of its own."""
        return {name: part for family in self.families for name, part in family.lift(events).items()}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Many states → one a group; groups are runs that begin at `starts`, none of them empty."""
        return {name: part for family in self.families for name, part in family.combine(states, starts).items()}

    def empties(self, length: int) -> dict[str, Array]:
        """Return `length` identities."""
        return {name: np.full(length, self.empty[name], dtype=self.dtype[name]) for name in self.names}

    def pack(self, states: States) -> Array:
        """Columns → packed rows."""
        packed = np.empty(len(states[self.names[0]]), dtype=self.dtype)
        for name in self.names:
            packed[name] = states[name]
        return packed

    def unpack(self, packed: Array) -> dict[str, Array]:
        """Packed rows → columns."""
        return {name: packed[name] for name in self.names}


def concatenate(parts: Sequence[States]) -> dict[str, Array]:
    """Return states one below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def group_runs(keys: Array) -> tuple[Array, Array]:
    """Return a stable order that brings equal keys together, and where each run begins in it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.empty(len(ordered), dtype=bool)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return order, np.flatnonzero(first)
