"""What a lifetime window counts besides tiles: each entity's base, the state of all that lies behind it.

A window without a left edge would need every tile that an entity ever had. So publish folds what is old into a field
`base` of the entity's hash, and a reader adds the coarsest tiles that follow it. The protocol:

- A base is `S(up_to, folded_to)`: the state of all on-time events before `up_to`, an edge of the coarsest tile, and of
  the late ones before it that were ingested before `folded_to`. It is made of `events/` alone, never of tiles, and
  written as an absolute value by one writer, publish: compare-and-set of the two instants, so that a publisher that
  was paused can never bring back an older one.
- `up_to + lateness` is at most both what the mirror has brought to `events/` and the stream's watermark: nothing on
  time is missing, no replay can add to it (ids and fence refuse), and no instant that may be asked lies before it. A
  reader that is asked for one all the same holds an old watermark, and says so.
- `folded_to` is what the version's late events had been published to before. Moving them from `late` to `base` so
  changes no value; beside `late`, `late_at` tells when each was ingested, and a reader leaves out what its base has.
- A base is written only for entities whose state it changes. When all are, the meta's `based_to` and `based_late` move:
  every entity's base, or none at all, then stands for `S(based_to, based_late)`. An entity's own instants decide where
  they are greater. So it may die anywhere and be repeated, and a reader with an older meta reads a few tiles too many.
- Tiles go when they lie behind `based_to` and out of every other window's reach, and publish removes them: base and
  tiles of an entity are read by one `HMGET`, so whoever misses such a tile has the base that holds it. A replay may
  write one anew; nobody reads it. The entity itself never expires: its base is all that is left of its past.
- A version without history (B = −∞) has no `based_to` until the first compaction that finds a whole coarsest tile to
  fold. Until then a reader fetches the entity's whole hash, in the same one round trip.
- With history up to B the base of `S(B, folded_to)` is written before the version is ready.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rtml.algebra.family import Array
from rtml.algebra.states import concatenate
from rtml.errors import CodecError
from rtml.instants import BEGINNING, Instant
from rtml.online.codec import Records
from rtml.plan import Plan

BASE, LATE_AT = b"base", b"late_at"
"""Fields of an entity's hash: its base, and when its late events were ingested (int64 µs, in their order)."""
MARK = 16
"""So many of a base's first bytes tell one from another: `up_to` and `folded_to`."""
_HEAD = struct.Struct("<qqq")


class Base(NamedTuple):
    """One entity's base."""

    up_to: Instant = BEGINNING
    folded_to: Instant = BEGINNING
    latest: Instant = BEGINNING
    """The time of its latest event."""
    state: bytes = b""
    """Packed; none of no events."""

    def encode(self) -> bytes:
        """Return the field's bytes."""
        return _HEAD.pack(self.up_to, self.folded_to, self.latest) + self.state

    @staticmethod
    def decode(data: bytes | None) -> Base:
        """Return the base of a field's bytes; that of no events where there is none.

        Raises:
            CodecError: the field is too short to be one.
        """
        if data is None:
            return Base()
        if len(data) <= _HEAD.size:
            raise CodecError(f"an entity's base must be longer than {_HEAD.size} bytes; got {data.hex()}")
        up_to, folded_to, latest = _HEAD.unpack_from(data)
        return Base(up_to, folded_to, latest, data[_HEAD.size :])

    def holds(self, times: Array, ingested: Array) -> Array:
        """Return which late events it holds."""
        return np.asarray((times < self.up_to) & (ingested < self.folded_to))


class Kept(NamedTuple):
    """What was read of one entity, of these fields and of `late`."""

    base: bytes | None = None
    late: bytes | None = None
    late_at: bytes | None = None


@dataclass(frozen=True)
class Bases:
    """For many entities: from where on their tiles count, and states that count besides, with their owners."""

    up_to: Array
    owner: Array
    states: dict[str, Array]

    @classmethod
    def of(cls, plan: Plan, entities: Sequence[Kept], based_to: Instant) -> Bases:
        """Take apart what was read; `based_to` is the meta's."""
        bases = [Base.decode(entity.base) for entity in entities]
        based = [owner for owner, base in enumerate(bases) if base.state]
        states = plan.states.unpack_bytes([bases[owner].state for owner in based])
        # There are no events before the epoch.
        up_to = [max(base.up_to, based_to, 0) for base in bases]
        loose = [_unfolded(plan, *parts) for parts in zip(bases, up_to, entities, strict=True)]
        owners = [np.array(based, dtype=np.int64), np.repeat(np.arange(len(loose)), [len(part) for part in loose])]
        if len(owners[1]):
            events = Records.of(plan).decode(np.concatenate(loose), 0)
            states = concatenate([states, plan.states.lift(events)])
        return cls(np.array(up_to, dtype=np.int64), np.concatenate(owners), states)


def _unfolded(plan: Plan, base: Base, up_to: Instant, entity: Kept) -> Array:
    """Return the late records before an instant that a base does not hold; what follows counts as all events do."""
    wide = Records.of(plan).wide
    if entity.late is None:
        return np.zeros(0, dtype=wide)
    records = np.frombuffer(entity.late, dtype=wide, offset=1)
    times, ingested = records["time"].astype(np.int64), np.frombuffer(entity.late_at or b"", dtype="<i8")
    if len(ingested) != len(records):
        raise CodecError(f"{len(records)} late events must have as many instants of ingestion; got {len(ingested)}")
    return np.asarray(records[(times < up_to) & ~base.holds(times, ingested)])
