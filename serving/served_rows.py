"""Rows of `served/`: what was served, as Polars and Delta keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from deltalake import write_deltalake

from rtml.columns import SPINE_TIME, TIMESTAMP
from rtml.instants import BEGINNING, Instant
from rtml.lake import (
    EVENT_DATE,
    LAST_INGESTED,
    PUBLISHED_TO,
    REPLACED,
    SERVED_AT,
    SERVICE_VERSION,
    STATUS,
    VERSION,
    WATERMARK,
    of_view,
    served_schema,
    with_type,
)
from serving.features import FeatureVectors, Question
from streaming.delta import open_table


def served_frame(
    question: Question, entities: Sequence[Mapping[str, Any]], vectors: FeatureVectors, served_at: Instant
) -> pl.DataFrame:
    """Return an answer as rows of `served/`."""
    count = len(entities)
    plans = [version.plan for version in question.versions]
    schema = served_schema(plans, question.service.columns)
    columns: dict[str, Sequence[Any]] = {
        name: [entity[name] for entity in entities] for plan in plans for name in plan.key_names
    }
    columns |= {
        SPINE_TIME: [vectors.at] * count,
        SERVED_AT: [served_at] * count,
        WATERMARK: [vectors.watermark] * count,
        SERVICE_VERSION: [question.service.version] * count,
    }
    columns |= {name: [row[number] for row in vectors.rows] for number, name in enumerate(vectors.features)}
    for version in question.versions:
        view = version.view
        columns[of_view(view, VERSION)] = [version.version] * count
        columns[of_view(view, STATUS)] = vectors.status[view]
        columns[of_view(view, REPLACED)] = vectors.replaced(view)
        columns[of_view(view, LAST_INGESTED)] = [_known(instant) for instant in vectors.last_ingested[view]]
        columns[of_view(view, PUBLISHED_TO)] = [_known(vectors.published_to[view])] * count
    series = [_series(name, columns[name], kind) for name, kind in schema.items() if name != EVENT_DATE]
    return pl.DataFrame(series).with_columns(pl.col(SPINE_TIME).dt.date().alias(EVENT_DATE)).select(*schema)


def append(uri: str, frames: Sequence[pl.DataFrame]) -> int:
    """Append rows of one service to its table; return how many."""
    frame = pl.concat(frames)
    table = open_table(uri)
    if table is not None:
        frame = _named_by_type(frame, pl.scan_delta(table).collect_schema())
    # Into the very table that was looked at: where another server adds columns meanwhile, it is a conflict.
    write_deltalake(
        uri if table is None else table, frame, mode="append", partition_by=[EVENT_DATE], schema_mode="merge"
    )
    return frame.height


def _named_by_type(frame: pl.DataFrame, present: pl.Schema) -> pl.DataFrame:
    """Return rows for a table: what has another type there goes under a name with its type, or it would be cast."""
    other = {name: kind for name, kind in frame.schema.items() if present.get(name, kind) != kind}
    return frame.rename({name: with_type(name, kind) for name, kind in other.items()})


def _series(name: str, values: Sequence[Any], kind: pl.DataType) -> pl.Series:
    if kind == TIMESTAMP:
        return pl.Series(name, values, dtype=pl.Int64).cast(TIMESTAMP)
    return pl.Series(name, values, dtype=kind)


def _known(instant: Instant) -> Instant | None:
    return None if instant == BEGINNING else instant
