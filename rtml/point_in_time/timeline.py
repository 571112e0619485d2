"""Events and spine rows in one order: by entity, then by time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array, Span
from rtml.columns import KEY_TYPES, LANE_TYPES
from rtml.errors import RequestError, near_miss
from rtml.instants import Duration
from rtml.plan import Plan
from rtml.point_in_time.order import Axis, Entities, in_order, narrow
from rtml.tiles import Window

AT, SEEN, SEEN_LATE = "at", "seen", "seen_late"
KNOWN_AT, LATE = "known_at", "late"


@dataclass(frozen=True)
class Timeline:
    """Events and spine rows in order, and for every window the range of events that it holds at each spine row."""

    events: Array
    """Row numbers of events by (entity, time, id64), without the entities that the spine does not ask for."""
    rows: Array
    """Row numbers of the spine by (entity, `at`)."""
    lo: dict[Window, Array]
    """The left edges of each window at these rows, as places in the order of events."""
    hi: dict[Window, Array]
    """Their right edges; windows of one offset share them."""
    at: Array
    """The instants of these rows, int64 µs."""
    finest: Duration

    @property
    def longest(self) -> Array:
        """The left edges of the windows that reach back furthest."""
        return np.asarray(np.minimum.reduce(list(self.lo.values())))

    @property
    def latest(self) -> Array:
        """The right edges of the windows that end last."""
        return np.asarray(np.maximum.reduce(list(self.hi.values())))

    def span(self, window: Window, part: slice) -> Span:
        """Return the edges of a window at some of these rows."""
        return Span(*window.edges(self.at[part], self.finest))

    def only(self, kept: Array) -> Timeline:
        """Return the same rows over some of the events: `kept` has a boolean for each place."""
        if kept.all():
            return self
        before = np.zeros(len(kept) + 1, dtype=self.latest.dtype)
        np.cumsum(kept, out=before[1:])
        lo = {window: before[places] for window, places in self.lo.items()}
        hi = _by_offset(self.hi, lambda window: before[self.hi[window]])
        return Timeline(self.events[kept], self.rows, lo, hi, self.at, self.finest)

    @classmethod
    def of(cls, plan: Plan, events: pl.DataFrame, spine: pl.DataFrame) -> Timeline:
        """Put events and spine rows in order, and find the events of every window."""
        _check(plan, events, spine)
        entities = Entities.of(spine, plan.key_names)
        of_rows, at = entities.numbers(spine), spine[AT].to_numpy()
        axis = Axis.of(events[EVENT_TIME].to_numpy(), len(entities))
        rows = narrow(np.argsort(axis.pack(of_rows, at), kind="stable"))
        at, owners = at[rows], of_rows[rows]
        ordered = in_order(entities.numbers(events), len(entities), events)
        order, packed = ordered.rows, axis.pack(ordered.entities, ordered.times, inside=True)
        del ordered
        finest = plan.tiles.finest

        def places(instants: Array) -> Array:
            return narrow(np.searchsorted(packed, axis.pack(owners, instants)))

        lo = {window: places(window.edges(at, finest)[0]) for window in plan.windows}
        hi = _by_offset(plan.windows, lambda window: places(window.edges(at, finest)[1]))
        return cls(order, rows, lo, hi, at, finest)


def _by_offset(windows: Iterable[Window], edge: Callable[[Window], Array]) -> dict[Window, Array]:
    """Return the right edge of each window, made once for each offset."""
    made: dict[Duration, Array] = {}
    for window in windows:
        if window.offset not in made:
            made[window.offset] = edge(window)
    return {window: made[window.offset] for window in windows}


def _check(plan: Plan, events: pl.DataFrame, spine: pl.DataFrame) -> None:
    keys = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    lanes = {name: LANE_TYPES[kind] for name, kind in plan.lanes.items()}
    whole: dict[str, pl.DataType] = {
        EVENT_TIME: pl.Int64(),
        KNOWN_AT: pl.Int64(),
        ID64: pl.UInt64(),
        LATE: pl.Boolean(),
    }
    instants: dict[str, pl.DataType] = {AT: pl.Int64(), SEEN: pl.Int64(), SEEN_LATE: pl.Int64()}
    _check_frame("the events", plan, events, {**keys, **lanes}, whole)
    _check_frame("the spine", plan, spine, keys, instants)


def _check_frame(
    what: str, plan: Plan, frame: pl.DataFrame, columns: dict[str, pl.DataType], whole: dict[str, pl.DataType]
) -> None:
    """Refuse a frame whose columns are not these, those of `whole` without nulls."""
    for name, expected in {**columns, **whole}.items():
        where = f"{what} of view {plan.view!r}"
        if name not in frame.columns:
            raise RequestError(f"{where} must have a column {name!r}.{near_miss(name, frame.columns)}")
        if frame.schema[name] != expected:
            raise RequestError(f"{where}: column {name!r} must be {expected}; got {frame.schema[name]}")
        if name in whole and frame[name].null_count():
            raise RequestError(f"{where}: column {name!r} must not be null; got {frame[name].null_count()} nulls")
