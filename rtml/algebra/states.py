"""States as a whole: what a view keeps for one tile, all families side by side."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rtml.algebra.family import Array, Events, Family, Identity, States, with_needs
from rtml.lazy import pl


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
    def types(self) -> Mapping[str, np.dtype[Any]]:
        """The numpy type of every state column; `object` for ragged ones."""
        return {name: np.dtype(kind) for family in self.families for name, kind in family.columns.items()}

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The fixed-width columns of one packed state: little endian, no padding."""
        return np.dtype([(name, kind) for name, kind in self.types.items() if kind.kind != "O"])

    @cached_property
    def ragged(self) -> tuple[str, ...]:
        """The columns whose entries are bytes of any length; packed, they follow the others, each with its length."""
        return tuple(name for name, kind in self.types.items() if kind.kind == "O")

    @property
    def size(self) -> int:
        """About how many bytes a state takes in memory."""
        return self.dtype.itemsize + sum(family.bulk for family in self.families)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The state columns, in packing order."""
        return tuple(name for family in self.families for name in family.columns)

    @cached_property
    def empty(self) -> Mapping[str, Identity]:
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
        return {name: np.full(length, self.empty[name], dtype=self.types[name]) for name in self.names}

    def pack(self, states: States) -> Array:
        """Columns → one row a state: a structured array, or with ragged columns an array of `bytes`."""
        packed = np.empty(len(states[self.names[0]]), dtype=self.dtype)
        for name in self.dtype.names or ():
            packed[name] = states[name]
        if not self.ragged:
            return packed
        rows = np.empty(len(packed), dtype=object)
        rows[:] = [
            b"".join([row, *(_sized(entry) for entry in entries)])
            for row, *entries in zip(cut(packed), *(states[name] for name in self.ragged), strict=True)
        ]
        return rows

    def pack_bytes(self, states: States) -> list[bytes]:
        """Columns → the bytes of each state."""
        packed = self.pack(states)
        return packed.tolist() if self.ragged else cut(packed)

    def unpack(self, packed: Array) -> dict[str, Array]:
        """Rows as `pack` makes them → columns."""
        if not self.ragged:
            return {name: packed[name] for name in self.names}
        return self.unpack_bytes(packed.tolist())

    def unpack_bytes(self, packed: Sequence[bytes]) -> dict[str, Array]:
        """The bytes of each state → columns."""
        if not self.ragged:
            return self.unpack(np.frombuffer(b"".join(packed), dtype=self.dtype))
        width = self.dtype.itemsize
        fixed = np.frombuffer(b"".join([row[:width] for row in packed]), dtype=self.dtype) if width else None
        columns = {name: np.empty(len(packed), dtype=object) for name in self.ragged}
        for number, row in enumerate(packed):
            at = width
            for column in columns.values():
                start = at + _LENGTH.size
                at = start + _LENGTH.unpack_from(row, at)[0]
                column[number] = row[start:at]
        return {name: columns[name] if name in columns else fixed[name] for name in self.names}  # type: ignore[index]


_LENGTH = struct.Struct("<I")


def _sized(entry: bytes) -> bytes:
    return _LENGTH.pack(len(entry)) + entry


def cut(packed: Array) -> list[bytes]:
    """Return the bytes of each row of a structured array."""
    data, width = packed.tobytes(), packed.dtype.itemsize
    return [data[start : start + width] for start in range(0, len(data), width)] if width else [b""] * len(packed)


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
