"""State and events ↔ versioned bytes in Redis (design §6); little endian, instants in int64 µs.

"h"     u8 codec, u8 flags, u64 generation, i64 fence, i64 max_event_time, i64 last_ingested
tile    u8 level, u32 index  →  'R' + records  |  'S' + u32 raw_count + packed state
"late"  'R' + records with absolute times
"tail"  see `rtml.online.tail`
record  time since tile start (u32 in finest tiles, u64 otherwise), u64 id64, values, null bits
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rtml.algebra.family import NUMPY_KIND, Array, Events, Lane
from rtml.errors import CodecError
from rtml.instants import BEGINNING, Instant
from rtml.plan import Plan
from rtml.tiles import Tile

CODEC = 1
HEADER, LATE = b"h", b"late"
RAW, STATE = ord("R"), ord("S")
RAW_MARK, STATE_MARK = b"R", b"S"
PREFIX = 5
"""Bytes before a packed state: the mark and `raw_count`."""

_HEADER = struct.Struct("<BBQqqq")
_KNOWN = struct.Struct("<2xQqqq")
_FIELD = struct.Struct("<BI")
FIELD_DTYPE = np.dtype([("level", "u1"), ("index", "<u4")])
"""A tile's field name, as arrays have it."""
_COUNT = struct.Struct("<I")


class Header(NamedTuple):
    """What the stream's writer knows of an entity."""

    generation: int = 0
    fence: Instant = BEGINNING
    max_event_time: Instant = BEGINNING
    last_ingested: Instant = BEGINNING

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return encode_header(*self)

    @staticmethod
    def decode(data: bytes) -> Header:
        """Return the header of its bytes.

        Raises:
            CodecError: written by a codec that this version does not know.
        """
        if len(data) != _HEADER.size or data[0] != CODEC:
            raise CodecError(f"an entity's header must be codec {CODEC}, {_HEADER.size} bytes; got {data[:8].hex()}…")
        return Header._make(_KNOWN.unpack(data))


def encode_header(generation: int, fence: Instant, max_event_time: Instant, last_ingested: Instant) -> bytes:
    """Return a header's bytes."""
    return _HEADER.pack(CODEC, 0, generation, fence, max_event_time, last_ingested)


NO_HEADER = Header()
"""Of an entity that the stream never wrote."""


def field(tile: Tile) -> bytes:
    """Return a tile's field name."""
    return _FIELD.pack(tile[0], tile[1])


def unfield(name: bytes) -> Tile:
    """Return the tile of a field name."""
    return Tile(*_FIELD.unpack(name))


def raw_count(value: bytes) -> int:
    """Return how many raw records a finest state stands for."""
    return int(_COUNT.unpack_from(value, 1)[0])


def state_value(count: int, packed: bytes) -> bytes:
    """Return the bytes of a tile that holds its state."""
    return STATE_MARK + _COUNT.pack(count) + packed


@dataclass(frozen=True)
class Records:
    """How a plan's events are kept raw; `narrow` is for finest tiles, `wide` for coarser ones and absolute times."""

    plan: Plan

    @staticmethod
    def of(plan: Plan) -> Records:
        """Return the layout of a plan, made once for each."""
        made: Records | None = plan.__dict__.get("_records")
        if made is None:
            made = plan.__dict__["_records"] = Records(plan)
        return made

    @cached_property
    def wide(self) -> np.dtype[np.void]:
        """A record with a time of 8 bytes."""
        return self._dtype("<u8")

    @cached_property
    def narrow(self) -> np.dtype[np.void]:
        """A record of a finest tile: 4 bytes of time where the tile is short enough."""
        return self._dtype("<u4" if self.plan.tiles.finest <= 1 << 32 else "<u8")

    @cached_property
    def tailed(self) -> np.dtype[np.void]:
        """A record of a tail: a level, and a wide record."""
        return np.dtype([("level", "u1"), *[(name, self.wide[name]) for name in self.wide.names or ()]])

    def of_level(self, level: int) -> np.dtype[np.void]:
        """Return the record of a level's tiles."""
        return self.wide if level else self.narrow

    def _dtype(self, time: str) -> np.dtype[np.void]:
        lanes = [(f"value{lane}", NUMPY_KIND[kind]) for lane, kind in enumerate(self.plan.lanes.values())]
        nulls = [("nulls", "u1", (-(-len(lanes) // 8),))] if lanes else []
        return np.dtype([("time", time), ("id64", "<u8"), *lanes, *nulls])

    def encode(self, events: Events, starts: Array | int, dtype: np.dtype[np.void]) -> Array:
        """Return events as records, with times counted from `starts` (one for each, or for all)."""
        records = np.zeros(len(events), dtype=dtype)
        records["time"] = events.time - starts
        records["id64"] = events.id64
        missing = []
        for lane, (values, valid) in enumerate(events.lanes.values()):
            records[f"value{lane}"] = np.where(valid, values, 0)
            missing.append(~valid)
        if missing:
            records["nulls"] = np.packbits(np.stack(missing, axis=1), axis=1, bitorder="little")
        return records

    def decode(self, records: Array, starts: Array | int) -> Events:
        """Return the events of records whose times are counted from `starts`."""
        names = list(self.plan.lanes)
        nulls = records["nulls"] if names else np.zeros((len(records), 0), dtype="u1")
        missing = np.unpackbits(nulls, axis=1, count=len(names), bitorder="little").astype(bool)
        lanes = {name: Lane(records[f"value{lane}"], ~missing[:, lane]) for lane, name in enumerate(names)}
        return Events(records["time"].astype(np.int64) + starts, records["id64"], lanes)
