"""Events and spine rows in one order: by entity, then by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array, Span
from rtml.errors import RequestError, near_miss
from rtml.instants import Duration
from rtml.plan import Plan
from rtml.point_in_time.order import Axis, Entities, in_order, narrow
from rtml.projection import KEY_TYPES, LANE_TYPES
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
    hi: Array
    """Their right edges, which all windows share."""
    at: Array
    """The instants of these rows, int64 µs."""
    finest: Duration

    @property
    def longest(self) -> Array:
        """The left edges of the longest windows."""
        return np.asarray(np.minimum.reduce(list(self.lo.values())))

    def span(self, window: Window, part: slice) -> Span:
        """Return the edges of a window at some of these rows."""
        at = self.at[part]
        return Span(_left(window, at, self.finest), at)

    def only(self, kept: Array) -> Timeline:
        """Return the same rows over some of the events: `kept` has a boolean for each place."""
        if kept.all():
            return self
        before = np.zeros(len(kept) + 1, dtype=self.hi.dtype)
        np.cumsum(kept, out=before[1:])
        lo = {window: before[places] for window, places in self.lo.items()}
        return Timeline(self.events[kept], self.rows, lo, before[self.hi], self.at, self.finest)

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
        lo = {
            window: narrow(np.searchsorted(packed, axis.pack(owners, _left(window, at, finest))))
            for window in plan.windows
        }
        return cls(order, rows, lo, narrow(np.searchsorted(packed, axis.pack(owners, at))), at, finest)


def _left(window: Window, at: Array, finest: Duration) -> Array:
    """`Window.edges` of many instants."""
    start = at - window.length
    return start if window.exact else start // finest * finest


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
