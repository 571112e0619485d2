"""Labels of rows: the last event of a label source within a horizon, as far as it had arrived by then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.columns import KEY_TYPES
from rtml.define.label import LabelSource
from rtml.errors import RequestError
from rtml.instants import to_datetime
from rtml.lake import Lake
from rtml.projection import INGESTED_AT
from rtml.registry import Registry
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.events import load_events
from rtml_assets.tables.spans import ROWS_AT_ONCE, Reach, Span, entity_codes, entity_parts, spans
from rtml_assets.tables.spine import CheckedSpine

_NONE = -1


def chosen_labels(registry: Registry, labels: Sequence[str | LabelSource] | None) -> tuple[LabelSource, ...]:
    """Return label sources that are given, or named.

    Raises:
        RequestError: no list, or one with something else in it, or twice the same.
        UnknownNameError: there is no label source of that name.
    """
    if labels is None:
        return ()
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise RequestError(f"labels must be a list of label sources or their names; got {labels!r}")
    found = tuple(label if isinstance(label, LabelSource) else registry.label(label) for label in labels)
    names = [label.name for label in found]
    if len(set(names)) != len(names):
        raise RequestError(f"labels must be different label sources; got {names}")
    return found


def labels_of(
    lake: Lake, label: LabelSource, spine: CheckedSpine, arrivals: Arrivals, limit: int = ROWS_AT_ONCE
) -> pl.DataFrame:
    """Return a label source's columns for each row of a spine that has its join keys, in its order.

    Labels are null where there are none, or where the horizon has not passed, as far as `arrivals` can tell; about
    `limit` events are in memory.
    """
    keys = spine.keys.select(label.join_keys)
    mature = spine.at <= arrivals.known_to(lake, label.source) - label.horizon_us
    values = pl.DataFrame(schema={name: label.source.columns[name].dtype for name in label.labels})
    rows, found = [np.zeros(0, dtype=np.int64)], [values]
    counts = rows_by_day(open_table(lake.events(label.source.name)))
    wanted = np.flatnonzero(mature)
    for span in spans(spine.at[wanted], Reach(0, label.horizon_us - 1), counts, limit):
        inside = wanted[(spine.at[wanted] >= span.first) & (spine.at[wanted] <= span.last)]
        for part in entity_parts(keys[inside], span.parts):
            some = inside[part]
            events = _candidates(lake, label, keys[some], span)
            chosen = _last_known(keys[some], spine.at[some], events, label)
            rows.append(some[chosen != _NONE])
            found.append(events.select(label.labels)[chosen[chosen != _NONE]])
    return _placed(label, mature, np.concatenate(rows), pl.concat(found))


def _candidates(lake: Lake, label: LabelSource, keys: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Return the events of some entities that rows of a span may look at, sorted by time and id64."""
    first, last = to_datetime(span.first), to_datetime(span.last + label.horizon_us)
    time = pl.col(label.source.timestamp)
    events = load_events(lake, label.source, span.days).filter(time >= first, time < last)
    own = {_own(key): pl.col(key).cast(KEY_TYPES[kind]) for key, kind in label.key_types.items()}
    own[_own(EVENT_TIME)] = time.dt.epoch("us")
    own[_own(INGESTED_AT)] = pl.col(INGESTED_AT).dt.epoch("us")
    wanted = keys.unique().rename(_own).lazy()
    joined = events.with_columns(**own).join(wanted, on=wanted.collect_schema().names(), how="semi")
    return joined.select(*label.labels, *own, ID64).sort(_own(EVENT_TIME), ID64).collect(engine="streaming")


def _own(name: str) -> str:
    """Name a column that stands beside those of a contract."""
    return f"__{name}"


def _last_known(keys: pl.DataFrame, at: Array, events: pl.DataFrame, label: LabelSource) -> Array:
    """Return for each row the last event in `[at, at + horizon)` that had arrived by its end; -1 for none.

    Events are in order of time; an entity's events are found in a column of (entity, place in that order), sorted, that
    two binary searches cut. From the last event of a row one steps back over those that had not arrived: a few steps,
    since such events are late ones.
    """
    own = events.select(pl.col(_own(key)).alias(key) for key in label.join_keys)
    of_event, of_row = entity_codes(own, keys)
    time, end = events[_own(EVENT_TIME)].to_numpy(), at + label.horizon_us
    width = len(time) + 1
    order = np.argsort(of_event, kind="stable")
    packed = of_event[order] * width + order
    begin = _places(packed, of_row * width + _places(time, at))
    last = _places(packed, of_row * width + _places(time, end)) - 1
    arrived = events[_own(INGESTED_AT)].to_numpy()[order]
    rows = np.arange(len(at))
    while len(rows):
        rows = rows[last[rows] >= begin[rows]]
        rows = rows[arrived[last[rows]] > end[rows]]
        last[rows] -= 1
    inside = last >= begin
    chosen = np.full(len(at), _NONE, dtype=np.int64)
    chosen[inside] = order[last[inside]]
    return chosen


def _places(ordered: Array, wanted: Array) -> Array:
    """Return how many of some ordered numbers are less than each one wanted; searched in order, which is faster."""
    order = np.argsort(wanted)
    places = np.empty(len(wanted), dtype=np.int64)
    places[order] = np.searchsorted(ordered, wanted[order])
    return places


def _placed(label: LabelSource, mature: Array, rows: Array, values: pl.DataFrame) -> pl.DataFrame:
    """Put found values at their rows, and null elsewhere."""
    where = np.full(len(mature), _NONE, dtype=np.int64)
    where[rows] = np.arange(len(rows))
    index = pl.select(pl.when(pl.lit(pl.Series(where)) >= 0).then(pl.lit(pl.Series(where)))).to_series()
    columns = [values[name].gather(index).alias(label.column(name)) for name in label.labels]
    return pl.DataFrame([*columns, pl.Series(label.mature, mature, dtype=pl.Boolean)])
