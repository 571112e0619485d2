"""The tail: the newest records that an entity's state tiles do not count yet, where states are large to write.

`tail`  records: u8 level, then as a record with an absolute time

A view with heavy families (sketches, sets) would write kilobytes at each level of its ladder with every event. Instead
a record that joins a leaf is put into the tail too, and all of the tail is folded at once into the states above: when
it is longer than T, and before a tile of the entity splits or is forgotten. So no tile's meaning changes while a record
is in the tail: `level` is that of the finest state above the record's leaf. Where a window holds that tile whole, the
window takes a state that lacks the record, and so counts it here; else it counts the record in its leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rtml.algebra.family import Array, States
from rtml.algebra.states import group_runs
from rtml.instants import BEGINNING
from rtml.online.codec import Records
from rtml.plan import Plan
from rtml.tiles import Tile

TAIL = b"tail"


class TailRows(NamedTuple):
    """Records of tails as rows of states: whose, the start and end of the finest state above each, and its own state.

    `bounds` has four columns, as those of tiles: no coarser tile counts instead.
    """

    owner: Array
    bounds: Array
    states: States


def tail_rows(plan: Plan, owners: Sequence[int], tails: Sequence[bytes]) -> TailRows:
    """Take the tails of some entities apart."""
    layout = Records.of(plan)
    counts = [len(tail) // layout.tailed.itemsize for tail in tails]
    records = np.frombuffer(b"".join(tails), dtype=layout.tailed)
    sizes = np.array(plan.ladder, dtype=np.int64)[records["level"]]
    events = layout.decode(records, 0)
    bounds = np.full((len(records), 4), BEGINNING, dtype=np.int64)
    bounds[:, 0] = events.time // sizes * sizes
    bounds[:, 1] = bounds[:, 0] + sizes
    return TailRows(np.repeat(np.array(owners, dtype=np.int64), counts), bounds, plan.states.lift(events))


def joined(plan: Plan, tail: bytes | None, index: int) -> int:
    """Return how many records of a tail are in a hot finest tile: its state's count lacks them."""
    if not tail:
        return 0
    records = np.frombuffer(tail, dtype=Records.of(plan).tailed)
    in_tile = records["time"] // np.uint64(plan.tiles.finest) == np.uint64(index)
    return int(np.count_nonzero(in_tile & (records["level"] == 0)))


def states_above(plan: Plan, tail: bytes) -> Iterator[tuple[Tile, Array]]:
    """Yield each tile whose state lacks records of a tail, with those (wide, absolute times)."""
    layout = Records.of(plan)
    records = np.frombuffer(tail, dtype=layout.tailed)
    wide = records[list(layout.wide.names or ())].astype(layout.wide)
    for level, size in enumerate(plan.ladder):
        below = np.flatnonzero(records["level"] <= level)
        if not len(below):
            continue
        index = wide["time"][below].astype(np.int64) // size
        order, starts = group_runs(index)
        for run in np.split(order, starts[1:]):
            yield Tile(level, int(index[run[0]])), wide[below[run]]
