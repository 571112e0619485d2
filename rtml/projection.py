"""Events → what a view keeps of them: the one place where `where` and `derive` are applied, on every road."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, NUMPY_KIND, Events, Lane
from rtml.define.source import EventSource
from rtml.plan import Plan

INGESTED_AT = "ingested_at"


class RowWise(Protocol):
    """What is asked of a view: which events of a source count, and what is derived from them."""

    @property
    def source(self) -> EventSource:
        """Whose events."""

    @property
    def where(self) -> pl.Expr | None:
        """Which of them count."""

    @property
    def derive(self) -> Mapping[str, pl.Expr]:
        """Further columns."""


KEY_TYPES = {"str": pl.String(), "int": pl.Int64(), "bool": pl.Boolean()}


def project(view: RowWise, plan: Plan, events: pl.LazyFrame, keep: Sequence[str] = ()) -> pl.LazyFrame:
    """Return a view's events: join keys, `event_time` and `ingested_at` (int64 µs), `id64`, and its value columns.

    Columns to `keep` come along as they are. Value columns are float64 or int64; a derived value that is not finite
    counts as null.
    """
    frame = events.with_columns(**view.derive) if view.derive else events
    if view.where is not None:
        frame = frame.filter(view.where)
    return frame.select(
        *(pl.col(name).cast(KEY_TYPES[kind]) for name, kind in plan.keys),
        pl.col(view.source.timestamp).dt.epoch("us").alias(EVENT_TIME),
        pl.col(INGESTED_AT).dt.epoch("us"),
        pl.col(ID64),
        *(_lane(name, kind) for name, kind in plan.lanes.items()),
        *keep,
    )


def _lane(name: str, kind: str) -> pl.Expr:
    if kind == "i64":
        return pl.col(name).cast(pl.Int64)
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).alias(name)


def to_events(plan: Plan, frame: pl.DataFrame) -> Events:
    """Return a projected frame as columns of numpy arrays."""
    lanes = {
        name: Lane(
            frame[name].fill_null(0).to_numpy().astype(NUMPY_KIND[kind], copy=False),
            frame[name].is_not_null().to_numpy().astype(np.bool_, copy=False),
        )
        for name, kind in plan.lanes.items()
    }
    return Events(frame[EVENT_TIME].to_numpy(), frame[ID64].to_numpy(), lanes)
