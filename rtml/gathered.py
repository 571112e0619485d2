"""What was read of many entities, taken apart: rows of states, and which of them make up a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rtml.algebra.family import Array, States
from rtml.algebra.states import concatenate
from rtml.instants import Duration, Instant
from rtml.online.codec import PREFIX, RAW, Records
from rtml.online.tail import tail_rows
from rtml.plan import Plan
from rtml.reading import OUTSIDE, Fetched, Reading


class Right(NamedTuple):
    """What a window's right edge makes of every row: whether it may count, and whether what covers it does."""

    counts: Array
    covered: Array


@dataclass(frozen=True)
class Gathered:
    """All that was read, as rows of states: tiles first, then single events (`start` is their time).

    `parent_start` and `parent_end` bound the state that counts instead where a window holds it whole: the next coarser
    tile, or for the raw records of a hot finest tile that tile.
    """

    states: States
    owner: Array
    start: Array
    end: Array
    parent_start: Array
    parent_end: Array
    latest: Array
    """Each row's entity's `max_event_time`."""
    tiles: int
    finest: Duration

    @classmethod
    def of(cls, plan: Plan, entities: Sequence[Fetched]) -> Gathered:
        """Take apart what was read."""
        packed: list[bytes] = []
        owners: list[int] = []
        places: list[int] = []
        loose = _Loose(plan)
        for owner, entity in enumerate(entities):
            if entity.reading is not None:
                begin, first = loose.begin(entity.reading)
                for place in _take_apart(plan, owner, entity, packed, loose, first):
                    owners.append(owner)
                    places.append(begin + place)
            if entity.late is not None:
                loose.add(owner, entity.late, 0, narrow=False)
        states, times = plan.states.unpack_bytes(packed), _NONE
        bounds, owned, parents = loose.bounds()[places], np.array(owners, dtype=np.int64), _NO_PARENTS
        if tails := {owner: entity.tail for owner, entity in enumerate(entities) if entity.tail}:
            rows = tail_rows(plan, list(tails), list(tails.values()))
            states = concatenate([states, rows.states])
            bounds, owned = np.concatenate([bounds, rows.bounds]), np.concatenate([owned, rows.owner])
        if loose.any:
            owner_of, times, parents, lifted = loose.lifted()
            states = concatenate([states, lifted]) if len(owned) else lifted
            owned = np.concatenate([owned, owner_of])
        latest = np.array([entity.header.max_event_time for entity in entities], dtype=np.int64)
        return cls(
            states=states,
            owner=owned,
            start=np.concatenate([bounds[:, 0], times]),
            end=np.concatenate([bounds[:, 1], times]),
            parent_start=np.concatenate([bounds[:, 2], parents[:, 0]]),
            parent_end=np.concatenate([bounds[:, 3], parents[:, 1]]),
            latest=latest[owned],
            tiles=len(bounds),
            finest=plan.tiles.finest,
        )

    def up_to(self, b: Instant, *, settled: bool = False) -> Right:
        """Return what the right edge makes of the rows.

        A tile counts when the window holds it whole, an event when it is inside. A tile that `b` cuts is held whole
        when the entity has nothing as late as `b`; never when `b` is `settled`, that is in the past: then all below the
        tile was read, and published tiles may lie behind `b`.
        """
        whole, parent_whole = self.end <= b, self.parent_end <= b
        if not settled:
            nothing_after = self.latest < b
            whole |= nothing_after
            parent_whole |= nothing_after
        whole[self.tiles :] = True
        return Right((self.start < b) & whole, parent_whole & (self.parent_start < b))

    def within(self, a: Instant | Array, right: Right) -> tuple[Array, Array]:
        """Return the rows that make up `[a, b)`, and their owners; `a` may be another one for each row.

        Neither a tile nor an event counts where what covers it counts instead.
        """
        inside = (self.start >= a) & right.counts
        rows = np.flatnonzero(inside & ~((self.parent_start >= a) & right.covered))
        return rows, self.owner[rows]


def _take_apart(
    plan: Plan, owner: int, entity: Fetched, packed: list[bytes], loose: _Loose, first: int
) -> Iterator[int]:
    """Add an entity's states to `packed` and its records to `loose`; yield the places of the states."""
    reading = entity.reading
    if reading is None:
        return
    finest, raw, count = reading.of_finest, entity.raw, len(reading.tiles)
    for place, value in enumerate(entity.values):
        if value is None:
            continue
        if value[0] == RAW:
            loose.add(owner, value, first + place, narrow=finest[place])
            continue
        packed.append(value[PREFIX:])
        if finest[place] and (index := reading.tiles[place].index) in raw:
            loose.add_edge(owner, raw[index], entity.records_of(plan, index, value), first + count + place)
        yield place


_NONE = np.zeros(0, dtype=np.int64)
_NO_PARENTS = np.zeros((0, 2), dtype=np.int64)
_UNCOVERED = np.array([[0, OUTSIDE, OUTSIDE]], dtype=np.int64)
"""What covers records with absolute times, which belong to no tile."""


class _Parts:
    """Records of one width: their bytes, and of each part its owner, its length and what covers it."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype, self.width = dtype, dtype.itemsize
        self.data: list[bytes] = []
        self.owners: list[int] = []
        self.counts: list[int] = []
        self.places: list[int] = []


class _Loose:
    """Single events of many entities and tiles, to be lifted in one go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._records = Records.of(plan)
        self._narrow, self._wide = _Parts(self._records.narrow), _Parts(self._records.wide)
        self._readings: dict[int, tuple[Reading, int, int]] = {}
        self._begins, self._firsts = 0, 1

    def begin(self, reading: Reading) -> tuple[int, int]:
        """Return where a reading's tiles begin among the bounds of all readings, and among what covers events."""
        known = self._readings.get(id(reading))
        if known is None:
            known = self._readings[id(reading)] = (reading, self._begins, self._firsts)
            self._begins += len(reading.tiles)
            self._firsts += 2 * len(reading.tiles)
        return known[1:]

    def bounds(self) -> Array:
        """Return the bounds of all readings' tiles."""
        found = [reading.bounds for reading, *_ in self._readings.values()]
        return found[0] if len(found) == 1 else np.concatenate([np.zeros((0, 4), dtype=np.int64), *found])

    def add(self, owner: int, value: bytes, place: int, *, narrow: bool) -> None:
        """Add the records of an `R` value, and the place of what covers them; 0 for what nothing does."""
        parts = self._narrow if narrow else self._wide
        parts.data.append(value[1:])
        parts.owners.append(owner)
        parts.counts.append((len(value) - 1) // parts.width)
        parts.places.append(place)

    def add_edge(self, owner: int, data: bytes, count: int, place: int) -> None:
        """Add the first raw records of a hot finest tile."""
        parts, data = self._narrow, data[: count * self._narrow.width]
        parts.data.append(data)
        parts.owners.append(owner)
        parts.counts.append(len(data) // parts.width)
        parts.places.append(place)

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._narrow.data or self._wide.data)

    def lifted(self) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Return owners, times, the bounds of the tiles that count instead where they can, and states."""
        covering = np.concatenate([_UNCOVERED, *(reading.covering for reading, *_ in self._readings.values())])
        found = [self._lifted(parts, covering) for parts in (self._narrow, self._wide) if parts.data]
        if len(found) == 1:
            return found[0]
        owner, times, parents, states = zip(*found, strict=True)
        return np.concatenate(owner), np.concatenate(times), np.concatenate(parents), concatenate(states)

    def _lifted(self, parts: _Parts, covering: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        covers = covering[np.repeat(parts.places, parts.counts)]
        records = np.frombuffer(b"".join(parts.data), dtype=parts.dtype)
        events = self._records.decode(records, covers[:, 0])
        return np.repeat(parts.owners, parts.counts), events.time, covers[:, 1:], self._plan.states.lift(events)
