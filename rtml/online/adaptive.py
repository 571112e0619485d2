"""Adaptive tiles: up to K events an interval holds records, past K a state, and its records move down (design §6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rtml.algebra.family import Array
from rtml.algebra.states import concatenate, group_runs
from rtml.online.codec import RAW_MARK, Records
from rtml.plan import Plan
from rtml.tiles import Tile


@dataclass
class Grown:
    """What one tile's events become: leaves as their bytes, and what states and raw keys are made of."""

    leaves: dict[Tile, bytes] = field(default_factory=dict)
    """Tiles that hold their records: `R` values."""
    states: dict[Tile, Array] = field(default_factory=dict)
    """Tiles that hold a state: the records it stands for, with absolute times."""
    raw: dict[int, bytes] = field(default_factory=dict)
    """Hot finest tiles: the records of their raw keys."""


def grow(plan: Plan, tile: Tile, records: Array) -> Grown:
    """Return the tree below a tile that holds these records (wide, absolute times)."""
    grown = Grown()
    _grow(plan, Records(plan), tile, records, grown)
    return grown


def _grow(plan: Plan, layout: Records, tile: Tile, records: Array, grown: Grown) -> None:
    if len(records) <= plan.raw_limit:
        grown.leaves[tile] = RAW_MARK + rebase(layout, tile, records)
        return
    grown.states[tile] = records
    if tile.level == 0:
        grown.raw[tile.index] = rebase(layout, tile, records)
        return
    size = plan.ladder[tile.level - 1]
    index = records["time"].astype(np.int64) // size
    order, starts = group_runs(index)
    for run in np.split(order, starts[1:]):
        _grow(plan, layout, Tile(tile.level - 1, int(index[run[0]])), records[run], grown)


def rebase(layout: Records, tile: Tile, records: Array) -> bytes:
    """Return records with absolute times as the bytes that a tile keeps, with times from its start."""
    moved = records.astype(layout.of_level(tile.level), copy=True) if tile.level == 0 else records.copy()
    moved["time"] = records["time"] - np.uint64(layout.plan.tiles.start(tile))
    return moved.tobytes()


def absolute(layout: Records, tile: Tile, data: bytes) -> Array:
    """Return a tile's record bytes as records with absolute times."""
    records = np.frombuffer(data, dtype=layout.of_level(tile.level))
    moved = records.astype(layout.wide, copy=True)
    moved["time"] += np.uint64(layout.plan.tiles.start(tile))
    return moved


def fold(plan: Plan, pending: Sequence[tuple[bytes | None, Array]]) -> list[bytes]:
    """Return packed states: each an old one (or none) with records (wide, absolute times) added."""
    if not pending:
        return []
    sizes = np.array([len(records) for _, records in pending])
    return fold_runs(plan, [state for state, _ in pending], np.concatenate([records for _, records in pending]), sizes)


def fold_runs(plan: Plan, states: Sequence[bytes | None], records: Array, sizes: Array) -> list[bytes]:
    """Return packed states: each an old one (or none) with so many of the records added, which follow one another."""
    events = Records.of(plan).decode(records, 0)
    old = [(cell, state) for cell, state in enumerate(states) if state is not None]
    parts = concatenate([plan.states.unpack_bytes([state for _, state in old]), plan.states.lift(events)])
    cells = np.concatenate(
        [np.array([cell for cell, _ in old], dtype=np.int64), np.repeat(np.arange(len(states)), sizes)]
    )
    order, starts = group_runs(cells)
    merged = plan.states.combine({name: column[order] for name, column in parts.items()}, starts)
    return plan.states.pack_bytes(merged)
