"""What a view's windows are worth at an instant: (plan, tiles, raw edges, at) → values. Pure.

`answer` merges what was read, for many entities at once: a tile that a window holds whole gives its state, every other
one its records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtml.algebra.family import Array, Span, States, Values
from rtml.algebra.states import concatenate
from rtml.gathered import Gathered, Right
from rtml.instants import BEGINNING, Instant
from rtml.online.base import Bases, Kept
from rtml.plan import Plan
from rtml.reading import Fetched
from rtml.tiles import Window


@dataclass(frozen=True)
class Answer:
    """Values of every feature of a plan, one row an entity."""

    features: dict[str, Values]


def answer(plan: Plan, at: Instant, entities: Sequence[Fetched], based_to: Instant = BEGINNING) -> Answer:
    """Return the values of all features for entities as they were read, at an instant; `based_to` is their turn's.

    Where the plan has salts, what is given are partial states: each entity's follow one another, and are merged.

    Raises:
        OverflowedError: an integer sum needs more than 64 bits.
    """
    windows, count = plan.windows, len(entities) // plan.salts
    records = Gathered.of(plan, entities)
    gathered, bases = records.states, None
    if plan.lifetime:
        bases = Bases.of(plan, [Kept(one.base, one.late, one.late_at) for one in entities], based_to)
        gathered = concatenate([gathered, bases.states])
    present = records.up_to(at)
    chosen, cells = [], []
    for number, window in enumerate(windows):
        rows, owners = _rows(window, records, present, bases, at)
        chosen.append(rows)
        cells.append((owners if plan.salts == 1 else owners // plan.salts) + number * count)
    states = _combine(plan, gathered, np.concatenate(chosen), np.concatenate(cells), count * len(windows))
    spans = [Span(*window.edges(at, plan.tiles.finest)) for window in windows]
    parts = [
        {name: column[start : start + count] for name, column in states.items()}
        for start in range(0, count * len(windows), count or 1)
    ]
    return Answer({feature.name: feature.finalize(parts[number], spans[number]) for feature, number in plan.numbered})


def _rows(window: Window, records: Gathered, present: Right, bases: Bases | None, at: Instant) -> tuple[Array, Array]:
    """Return the rows that make up a window, and their owners; those of bases follow all others."""
    a, b = window.edges(at, records.finest)
    right = records.up_to(b, settled=True) if window.offset else present
    if bases is None or not window.lifetime:
        return records.within(a, right)
    rows, owners = records.within(bases.up_to[records.owner], right)
    more = len(records.owner) + np.arange(len(bases.owner))
    return np.concatenate([rows, more]), np.concatenate([owners, bases.owner])


def _combine(plan: Plan, states: States, rows: Array, cells: Array, count: int) -> dict[str, Array]:
    """Return one state for each of `count` cells, from rows of states and the cell that each falls in."""
    if not len(rows):
        return plan.states.empties(count)
    if np.any(cells[1:] < cells[:-1]):  # else they are in order already
        order = np.argsort(cells, kind="stable")
        rows, cells = rows[order], cells[order]
    first = np.empty(len(cells), dtype=bool)
    first[0] = True
    np.not_equal(cells[1:], cells[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    combined = plan.states.combine({name: column[rows] for name, column in states.items()}, starts)
    if len(starts) == count:
        return combined
    merged, present = plan.states.empties(count), cells[starts]
    for name, column in combined.items():
        merged[name][present] = column
    return merged
