"""The lake: what is in its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, RAGGED
from rtml.columns import KEY_TYPES, SPINE_TIME, TIMESTAMP
from rtml.lake_paths import Lake as Lake  # noqa: PLC0414  # the paths alone need no Polars
from rtml.plan import Plan
from rtml.projection import INGESTED_AT
from rtml.values import value_type

if TYPE_CHECKING:
    from rtml.define.service import FeatureService
    from rtml.define.source import EventSource

EVENT_DATE, INGEST_DATE = "event_date", "ingest_date"
LEVEL, TILE_START = "level", "tile_start"

QUARANTINE: dict[str, pl.DataType] = {
    "partition": pl.Int32(),
    "offset": pl.String(),
    INGESTED_AT: TIMESTAMP,
    "payload": pl.Binary(),
    "reason": pl.String(),
    "detail": pl.String(),
    EVENT_TIME: TIMESTAMP,
    ID64: pl.Int64(),
    EVENT_DATE: pl.Date(),
    "revision": pl.Int32(),
    "held_at": TIMESTAMP,
    INGEST_DATE: pl.Date(),
}
"""Events that did not pass, as received: the first reason's code, and all reasons in words.

Those that the gate refused have a place in the stream. Those that a check of a day holds have a time, an id64, a day
and a revision (how often they were mended before) instead, and `check:<name>` as their reason.
"""

DECISIONS: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "subject": pl.String(),
    "reason": pl.String(),
    EVENT_TIME: TIMESTAMP,
    ID64: pl.Int64(),
    INGESTED_AT: TIMESTAMP,
    "revision": pl.Int32(),
    "partition": pl.Int32(),
    "offset": pl.String(),
    "payload": pl.Binary(),
    "decided_at": TIMESTAMP,
    "actor": pl.String(),
    "words": pl.String(),
    EVENT_DATE: pl.Date(),
}
"""What was decided of quarantined events; a subject is decided once.

`corrected` and `dropped`: of an event of `raw/`, by its time, id64 and `ingested_at`; `payload` counts instead of it,
or nothing does. `released`: of an event that the gate refused, by its place; `payload` counts. `accepted`: a day may be
built although a check fails. Nothing is ever taken out of `raw/`.
"""

LATE: dict[str, pl.DataType] = {
    "view": pl.String(),
    "version": pl.String(),
    EVENT_TIME: TIMESTAMP,
    ID64: pl.Int64(),
    "published_at": TIMESTAMP,
    EVENT_DATE: pl.Date(),
}
"""When a late event became servable, in the source's own time."""

SERVED_AT, WATERMARK, SERVICE_VERSION = "served_at", "watermark", "service_version"
VERSION, STATUS, LAST_INGESTED, PUBLISHED_TO = "version", "status", "last_ingested", "published_to"
REPLACED = "replaced"
"""What `served/` says of each view, in columns `view__…`."""

_TYPE_WORDS: dict[pl.DataType, str] = {pl.Float64(): "f64", pl.Int64(): "i64", pl.String(): "str", pl.Boolean(): "bool"}
_NUMPY_TO_POLARS: dict[str, pl.DataType] = {
    "<i8": pl.Int64(),
    "<f8": pl.Float64(),
    "<u8": pl.Int64(),
    RAGGED: pl.Binary(),
}


def raw_schema(source: EventSource) -> dict[str, pl.DataType]:
    """Return the columns of `raw/` and `events/`: the contract's, and the platform's own.

    Delta has no unsigned integers: `id64` is stored as the signed integer of the same bits.
    """
    return {**source.frame_schema, INGESTED_AT: TIMESTAMP, ID64: pl.Int64(), EVENT_DATE: pl.Date()}


def tiles_schema(plan: Plan) -> dict[str, pl.DataType]:
    """Return the columns of `tiles/`: keys, level, the tile's start, states, and the partition's day."""
    keys = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    states = {name: kind for family in plan.states.families for name, kind in family.columns.items()}
    return {
        **keys,
        LEVEL: pl.Int8(),
        TILE_START: TIMESTAMP,
        **{name: _NUMPY_TO_POLARS[kind] for name, kind in states.items()},
        EVENT_DATE: pl.Date(),
    }


def served_schema(plans: Sequence[Plan], columns: Sequence[tuple[str, str]]) -> dict[str, pl.DataType]:
    """Return the columns of `served/`, for a service that reads these `(view, feature)` of the views of these plans.

    The join keys of all views; `timestamp`, the instant asked; `served_at` by the wall clock; `watermark`, null while
    nothing was servable; the values; for each view its version, the row's status, whether other values were given than
    were computed, as those were too old (null where it was not logged yet), the entity's `last_ingested` as read (null
    when it had none) and up to when late events were published (null when they never were); the service's version and
    the partition's day, that of `timestamp`.
    """
    by_view = {plan.view: plan for plan in plans}
    values = {f"{view}__{feature}": value_type(by_view[view].feature(feature).output) for view, feature in columns}
    seen: dict[str, pl.DataType] = {
        VERSION: pl.String(),
        STATUS: pl.String(),
        REPLACED: pl.Boolean(),
        LAST_INGESTED: TIMESTAMP,
        PUBLISHED_TO: TIMESTAMP,
    }
    return {
        **{name: KEY_TYPES[kind] for plan in plans for name, kind in plan.keys},
        SPINE_TIME: TIMESTAMP,
        SERVED_AT: TIMESTAMP,
        WATERMARK: TIMESTAMP,
        **values,
        **{of_view(plan.view, name): kind for plan in plans for name, kind in seen.items()},
        SERVICE_VERSION: pl.Int64(),
        EVENT_DATE: pl.Date(),
    }


def of_view(view: str, name: str) -> str:
    """Return the column of a view's feature, or of what `served/` says of the view."""
    return f"{view}__{name}"


def with_type(name: str, dtype: pl.DataType) -> str:
    """Return the name under which `served/` keeps a column whose plain name is taken by values of another type."""
    return f"{name}__{_TYPE_WORDS.get(dtype, str(dtype).lower())}"


def values_schema(plan: Plan) -> dict[str, pl.DataType]:
    """Return a view's features as columns of values."""
    return {feature.name: value_type(feature.output) for feature in plan.features}


def features_schema(plan: Plan) -> dict[str, pl.DataType]:
    """Return the columns of `features/`: keys, the instant, values, and the partition's day."""
    keys = {name: KEY_TYPES[kind] for name, kind in plan.keys}
    return {**keys, SPINE_TIME: TIMESTAMP, **values_schema(plan), EVENT_DATE: pl.Date()}


def training_schema(service: FeatureService, plans: Mapping[str, Plan]) -> dict[str, pl.DataType]:
    """Return the columns of `training/`: keys, the instant, features, labels, and the partition's day."""
    spine = service.spine()
    kinds = spine.columns(service.key_types)
    columns: dict[str, pl.DataType] = {name: KEY_TYPES[kind] for name, kind in kinds.items()}
    columns[SPINE_TIME] = TIMESTAMP
    for view, name in service.columns:
        columns[f"{view.name}__{name}"] = value_type(plans[view.name].feature(name).output)
    for label in spine.labels:
        columns |= label.columns
    return {**columns, EVENT_DATE: pl.Date()}


def signed(column: str = ID64) -> pl.Expr:
    """uint64 → the int64 of the same bits, for Delta."""
    return pl.col(column).reinterpret(signed=True)


def unsigned(column: str = ID64) -> pl.Expr:
    """int64 → the uint64 of the same bits, from Delta."""
    return pl.col(column).reinterpret(signed=False)
