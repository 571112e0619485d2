"""An entity's tiles and raw records as its writer leaves them."""

from __future__ import annotations

import numpy as np

from rtml.algebra.family import Array
from rtml.online.adaptive import fold, grow
from rtml.online.codec import Records, state_value
from rtml.plan import Plan
from rtml.tiles import Tile


def tree(plan: Plan, records: Array) -> tuple[dict[Tile, bytes], dict[int, bytes]]:
    """Return the tiles and the raw keys of records (wide, absolute times)."""
    tiles: dict[Tile, bytes] = {}
    raw: dict[int, bytes] = {}
    top = records["time"].astype(np.int64) // plan.tiles.coarsest
    for index in np.unique(top):
        grown = grow(plan, Tile(plan.tiles.top, int(index)), records[top == index])
        raw |= grown.raw
        tiles |= grown.leaves
        packed = fold(plan, [(None, found) for found in grown.states.values()])
        for (tile, _), state in zip(grown.states.items(), packed, strict=True):
            count = len(raw[tile.index]) // Records.of(plan).narrow.itemsize if tile.level == 0 else 0
            tiles[tile] = state_value(count, state)
    return tiles, raw
