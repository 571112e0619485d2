"""Events and spine rows in one order: by entity, then by time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.errors import RequestError, near_miss
from rtml.instants import Duration
from rtml.plan import Plan
from rtml.projection import KEY_TYPES
from rtml.tiles import Window

AT, SEEN, SEEN_LATE = "at", "seen", "seen_late"
KNOWN_AT, LATE = "known_at", "late"
_ENTITY = "__entity"


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

    @property
    def longest(self) -> Array:
        """The left edges of the longest windows."""
        return np.asarray(np.minimum.reduce(list(self.lo.values())))

    @classmethod
    def of(cls, plan: Plan, events: pl.DataFrame, spine: pl.DataFrame) -> Timeline:
        """Put events and spine rows in order, and find the events of every window."""
        _check(plan, events, spine)
        entities, of_rows, of_events = _entities(plan.key_names, spine, events)
        at = spine[AT].to_numpy()
        axis = _Axis.of(events[EVENT_TIME].to_numpy(), entities)
        rows = _narrow(np.argsort(axis.pack(of_rows, at), kind="stable"))
        at, owners = at[rows], of_rows[rows]
        order, packed = _in_order(axis, of_events, entities, events)
        del of_events
        finest = plan.tiles.finest
        lo = {
            window: _narrow(np.searchsorted(packed, axis.pack(owners, _left(window, at, finest))))
            for window in plan.windows
        }
        return cls(order, rows, lo, _narrow(np.searchsorted(packed, axis.pack(owners, at))))


@dataclass(frozen=True)
class _Axis:
    """Instants as small numbers, so that one integer holds an entity and an instant.

    A place is the distance from the first event or, where that is too wide, how many different times lie before.
    """

    start: int
    span: int
    """One more than the place of an instant after all events."""
    times: Array | None

    @classmethod
    def of(cls, times: Array, entities: int) -> _Axis:
        start, end = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        span = end - start + 2
        if span * (entities + 1) < 2**63:
            return cls(start, span, None)
        different = np.unique(times)
        return cls(start, len(different) + 1, different)

    def pack(self, entities: Array, instants: Array) -> Array:
        """Return entity and instant as one integer. Of an event's, those are less whose event is before the instant."""
        if self.times is None:
            places = np.clip(instants, self.start, self.start + self.span - 1)
            places -= self.start
        else:
            places = np.searchsorted(self.times, instants)
        places += entities * np.int64(self.span)
        return places


def _left(window: Window, at: Array, finest: Duration) -> Array:
    """`Window.edges` of many instants."""
    start = at - window.length
    return start if window.exact else start // finest * finest


def _entities(names: Iterable[str], spine: pl.DataFrame, events: pl.DataFrame) -> tuple[int, Array, Array]:
    """Number the spine's entities: how many, of each spine row, of each event. What has no number gets the next one.

    They are sorted, so that blocks of events, and with them a sum's last digit, are the same whenever the inputs are.
    """
    keys = list(names)
    known = spine.select(keys).unique().drop_nulls().sort(keys).with_row_index(_ENTITY)

    def numbered(frame: pl.DataFrame) -> Array:
        joined = frame.select(keys).join(known, on=keys, how="left", maintain_order="left")
        return joined[_ENTITY].fill_null(known.height).to_numpy()

    return known.height, numbered(spine), numbered(events)


def _in_order(axis: _Axis, entities: Array, count: int, events: pl.DataFrame) -> tuple[Array, Array]:
    """Return the events of the `count` known entities in order, and their packed entities and times."""
    times = events[EVENT_TIME].to_numpy()
    kept = np.flatnonzero(entities < count)
    if len(kept) < len(times):
        kept = _narrow(kept)
        times, entities = times[kept], entities[kept]
        packed = axis.pack(entities, times)
        del times, entities
        order = np.argsort(packed)
        kept = kept[order]
    else:
        packed = axis.pack(entities, times)
        order = np.argsort(packed)
        kept = _narrow(order)
    packed = packed[order]
    del order
    _settle_ties(kept, packed, events)
    return kept, packed


def _settle_ties(order: Array, packed: Array, events: pl.DataFrame) -> None:
    """Put events of one entity and one time in the order of their ids."""
    same = packed[1:] == packed[:-1]
    if same.any():
        tied = np.zeros(len(packed), dtype=bool)
        tied[1:] = same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        ids = events[ID64].to_numpy()[order[places]]
        order[places] = order[places][np.lexsort((ids, packed[places]))]


def _narrow(numbers: Array) -> Array:
    """Return positions in four bytes where they fit, with room for a block more."""
    return numbers.astype(np.int32) if len(numbers) == 0 or int(numbers.max()) < 2**30 else numbers


def _check(plan: Plan, events: pl.DataFrame, spine: pl.DataFrame) -> None:
    keys = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    lanes = {name: pl.Float64() if kind == "f64" else pl.Int64() for name, kind in plan.lanes.items()}
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
