"""States that are lists of values while these are few, and a sketch of Apache DataSketches from then on.

A list   b"L", version (u8), values ascending
A sketch b"S", version (u8), CRC-32 (u32) of what follows, as DataSketches serialises it

So windows of few events are exact, and an event costs no sketch of its own. The sum is there because DataSketches
trusts what it is given: bytes that were spoilt must not reach it.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np

from rtml.algebra.family import Array, repeat_groups
from rtml.algebra.ragged import Gathering, counted, cut, first_of_runs, flat, in_groups, sizes
from rtml.errors import CodecError

VERSION = 1
LIST_HEAD, SKETCH_HEAD = bytes((ord("L"), VERSION)), bytes((ord("S"), VERSION))
_HEAD = len(LIST_HEAD)
_SUM = struct.Struct("<I")
_WIDTH = 8


@dataclass(frozen=True)
class Opened:
    """States taken apart: the values of lists, each with its row, and the sketches by row."""

    rows: Array
    values: Array
    sketches: dict[int, bytes]


@dataclass(frozen=True)
class Sketched(Gathering):
    """Lists of values, and above `few` of them sketches."""

    lane: ClassVar[str]
    """The type of the values in lists."""
    unique: ClassVar[bool]
    """Whether a value counts once, however often it comes."""

    @property
    @abstractmethod
    def few(self) -> int:
        """Up to so many values are kept as they are."""

    @abstractmethod
    def listed(self, values: Array) -> Array:
        """What lists hold of values."""

    @abstractmethod
    def sketch(self, values: Array, sketches: list[bytes]) -> bytes:
        """One sketch of listed values and of sketches.

        Raises:
            CodecError: a sketch is not one of this family's.
        """

    def gather(self, values: Array, starts: Array) -> Array:
        """List, or sketch."""
        return self._fold(repeat_groups(starts, len(values)), self.listed(values), {}, len(starts))

    def join(self, states: Array, starts: Array) -> Array:
        """Join lists while they are short, and sketches."""
        opened = self.opened(states)
        groups = repeat_groups(starts, len(states))
        sketches: dict[int, list[bytes]] = {}
        for row, sketch in opened.sketches.items():
            sketches.setdefault(int(groups[row]), []).append(sketch)
        return self._fold(groups[opened.rows], opened.values, sketches, len(starts))

    def opened(self, states: Array) -> Opened:
        """Take states apart.

        Raises:
            CodecError: one is not of this family.
        """
        entries = states.tolist()
        lengths = sizes(entries)
        heads = [entry[:_HEAD] for entry in entries]
        is_list = np.array([head == LIST_HEAD for head in heads], dtype=bool)
        long = (lengths - _HEAD) % _WIDTH != 0
        wrong = np.flatnonzero(is_list & (long | (lengths > _HEAD + _WIDTH * self.few)))
        if len(wrong):
            self._refuse(f"a list of at most {self.few:,} values of {_WIDTH} bytes", entries[wrong[0]])
        rows = np.flatnonzero(is_list)
        values = flat([entries[row][_HEAD:] for row in rows.tolist()], self.lane)
        sketches = {row: self._checked(entries[row]) for row in np.flatnonzero(~is_list & (lengths > 0)).tolist()}
        return Opened(np.repeat(rows, (lengths[rows] - _HEAD) // _WIDTH), values, sketches)

    def _checked(self, entry: bytes) -> bytes:
        body = entry[_HEAD + _SUM.size :]
        if entry[:_HEAD] != SKETCH_HEAD or len(entry) < _HEAD + _SUM.size:
            self._refuse(f"a list or a sketch of version {VERSION}", entry)
        if _SUM.unpack_from(entry, _HEAD)[0] != crc32(body):
            self._refuse("a sketch as it was written (its sum differs)", entry)
        return body

    def refused(self, sketch: bytes, why: Exception | str) -> CodecError:
        """Return the error for a sketch that is whole and yet not one of this family's."""
        return CodecError(f"{self.state}: a state must be {self}; got {len(sketch):,} bytes: {why}")

    def _refuse(self, expected: str, entry: bytes) -> None:
        raise CodecError(f"{self.state}: a state must be {expected}; got {len(entry):,} bytes, {entry[:8].hex()}…")

    def _fold(self, owners: Array, values: Array, sketches: dict[int, list[bytes]], groups: int) -> Array:
        values = in_groups(owners, values)
        if self.unique:
            first = first_of_runs(owners, values)
            owners, values = owners[first], values[first]
        counts = counted(owners, groups)
        states = cut(values, counts, LIST_HEAD)
        ends = np.cumsum(counts)
        for group in sorted({*sketches, *np.flatnonzero(counts > self.few).tolist()}):
            own = values[ends[group] - counts[group] : ends[group]]
            others = sketches.get(group, [])
            body = others[0] if len(others) == 1 and not len(own) else self.sketch(own, others)
            states[group] = SKETCH_HEAD + _SUM.pack(crc32(body)) + body
        return states
