"""The values of a view's features as Python has them, by the fastest way that there is for its plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtml.answer import answer
from rtml.instants import BEGINNING, Instant
from rtml.kernel.program import merger_of
from rtml.plan import Plan
from rtml.reading import Fetched
from rtml.values import to_list

Columns = dict[str, list[Any]]
"""By feature a value for each entity, `None` where there is none."""
_NO_EDGES: list[tuple[bytes, int, int]] = []


def answer_columns(plan: Plan, at: Instant, entities: Sequence[Fetched], based_to: Instant = BEGINNING) -> Columns:
    """Return the values of all features for entities as they were read, at an instant: what `rtml.answer` says of them.

    Raises:
        OverflowedError: an integer sum needs more than 64 bits.
    """
    merger = merger_of(plan)
    if merger is None:
        return _columns(plan, at, entities, based_to)
    finest = plan.tiles.finest
    windows = [(*window.edges(at, finest), window.offset > 0) for window in plan.windows]
    read = [
        (
            entity.values,
            b"" if entity.reading is None else entity.reading.geometry,
            _edges(plan, entity) if entity.raw else _NO_EDGES,
            entity.late,
            entity.header.max_event_time,
        )
        for entity in entities
    ]
    try:
        columns = merger.merge(read, windows, plan.salts)
    except OverflowError:
        # Only the other way knows how to say it.
        return _columns(plan, at, entities, based_to)
    return dict(zip([feature.name for feature in plan.features], columns, strict=True))


def _columns(plan: Plan, at: Instant, entities: Sequence[Fetched], based_to: Instant) -> Columns:
    return {name: to_list(values) for name, values in answer(plan, at, entities, based_to).features.items()}


def _edges(plan: Plan, entity: Fetched) -> list[tuple[bytes, int, int]]:
    """Return the raw records of the finest tiles that an edge cuts, each with its tile's bounds."""
    finest, raw = plan.tiles.finest, entity.raw
    return [
        (raw[index][:size], index * finest, (index + 1) * finest)
        for index, size in entity.hot_edges(plan)
        if index in raw
    ]
