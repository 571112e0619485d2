"""Training rows: the values of a plan's features at an instant of each row's own, from the events known by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import Array, Family, Values
from rtml.algebra.states import StateSchema, concatenate, group_runs
from rtml.plan import Plan, PlannedFeature
from rtml.point_in_time.apart import Apart, ApartIndexes, split_off
from rtml.point_in_time.blocks import put, take
from rtml.point_in_time.hidden import Hidden, find_hidden
from rtml.point_in_time.index import FAST, Indexes, Make
from rtml.point_in_time.parallel import in_slices
from rtml.point_in_time.timeline import Timeline
from rtml.values import put_rows

_STATES = 1 << 23
"""How many bytes of states are held at a time."""


def point_in_time(
    plan: Plan, events: pl.DataFrame, spine: pl.DataFrame, *, fast: Mapping[type[Family], Make] = FAST
) -> dict[str, Values]:
    """Return the values of every feature of a plan for each spine row, in the spine's order.

    Args:
        plan: what is wanted.
        events: what `project` gives, without duplicates and in any order: join keys, `event_time` (int64 µs), `id64`
            (uint64), value columns; and `known_at` (int64 µs), from when on the event may count, and `late`.
        spine: join keys, `at`, `seen` and `seen_late` (int64 µs). An event counts when it lies in the feature's window
            at `at`, and `known_at` is at most `seen`, or for a late event `seen_late`.
        fast: families that are answered by an index of their own.

    Raises:
        RequestError: a column is missing, of another type, or null where it may not be.
        OverflowedError: an integer sum needs more than 64 bits.
    """
    sights = _Sights(Timeline.of(plan, events, spine), events, spine)
    values: dict[str, Values] = {}
    # Huge finite values may overflow: only in the windows that hold them, to what floats make of them.
    with np.errstate(over="ignore", invalid="ignore"):
        for column in dict.fromkeys(feature.column for feature in plan.features):
            features = [feature for feature in plan.features if feature.column == column]
            values |= _of_column(features, events, sights.of(features), fast)
    return {feature.name: values[feature.name] for feature in plan.features}


class _Sight(NamedTuple):
    """What the rows see: ranges of events in order, those of them that are hidden, and those that stand apart."""

    timeline: Timeline
    hidden: Hidden
    apart: Apart | None


class _Sights:
    """What may be combined in any order is seen with late events apart, all else in the one order of all events."""

    def __init__(self, timeline: Timeline, events: pl.DataFrame, spine: pl.DataFrame) -> None:
        self._inputs = timeline, events, spine

    def of(self, features: Sequence[PlannedFeature]) -> _Sight:
        commutative = all(feature.definition.commutative for feature in features)
        return self._apart if commutative else self._whole

    @cached_property
    def _whole(self) -> _Sight:
        return _Sight(self._inputs[0], find_hidden(*self._inputs), None)

    @cached_property
    def _apart(self) -> _Sight:
        timeline, events, spine = self._inputs
        kept, apart = split_off(timeline, events, spine)
        if not len(apart.events):
            return self._whole
        return _Sight(kept, find_hidden(kept, events, spine), Apart.of(apart, events, spine))


def _of_column(
    features: Sequence[PlannedFeature],
    events: pl.DataFrame,
    sight: _Sight,
    fast: Mapping[type[Family], Make],
) -> dict[str, Values]:
    """Answer the features of one value column, window after window, some rows at a time."""
    schema = StateSchema.of(tuple(family for feature in features for family in feature.families))
    timeline, hidden, late = sight
    indexes = Indexes(schema, events, timeline.events, fast)
    apart = None if late is None else ApartIndexes(late, schema, events, fast)
    count = len(timeline.rows)
    values = {feature.name: feature.output.room(count) for feature in features}

    def answer(part: slice) -> None:
        unknown, rows = hidden.within(part.start, part.stop), timeline.rows[part]
        for window in dict.fromkeys(feature.span for feature in features):
            states = _states(schema, indexes, timeline.lo[window][part], timeline.hi[window][part], unknown)
            if apart is not None:
                apart.add(states, window, part)
            span = timeline.span(window, part)
            for feature in features:
                if feature.span == window:
                    put_rows(values[feature.name], rows, feature.finalize(states, span))

    in_slices(count, max(_STATES // schema.size, 1), answer)
    return values


def _states(schema: StateSchema, indexes: Indexes, lo: Array, hi: Array, hidden: Hidden) -> dict[str, Array]:
    """Return the state of each range without its hidden events."""
    hi, owners, part_lo, part_hi = hidden.split(lo, hi)
    states = indexes.over(lo, hi)
    if len(owners):
        several = np.unique(owners)
        parts = concatenate([take(states, several), indexes.over(part_lo, part_hi)])
        order, starts = group_runs(np.concatenate([several, owners]))
        put(states, several, schema.combine(take(parts, order), starts))
    return states
