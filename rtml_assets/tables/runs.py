"""A view's events as the records that Redis holds, in runs of one entity (and one tile)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.online.codec import Records
from rtml.online.salts import partial_columns, partial_tag, with_salt
from rtml.plan import Plan
from rtml.projection import INGESTED_AT, RowWise, project, to_events
from rtml_assets.tables.strings import EntityStrings
from streaming.texts import BatchTexts


class Run(NamedTuple):
    """Records of one entity (where the plan has salts, of one of its partial states), sorted by time and id64.

    They are wide, with absolute times; `tile` is the index of their tile.
    """

    tag: str
    tile: int
    records: Array
    ingested: Array
    """When each was ingested, int64 µs."""
    strings: EntityStrings


def runs(view: RowWise, plan: Plan, events: pl.LazyFrame, size: int | None = None) -> Iterator[Run]:
    """Split a view's events (`id64` unsigned) by entity, and where a size is given by tiles of that size."""
    owner = partial_columns(plan)
    frame = with_salt(plan, project(view, plan, events, texts=True)).sort(*owner, EVENT_TIME, ID64).collect()
    if frame.is_empty():
        return
    records = Records(plan).encode(to_events(plan, frame), 0, Records(plan).wide)
    tiles = np.zeros(frame.height, dtype=np.int64) if size is None else frame[EVENT_TIME].to_numpy() // size
    entities = frame.select(pl.struct(owner).rle_id()).to_series().to_numpy()
    first = np.ones(frame.height, dtype=bool)
    first[1:] = (entities[1:] != entities[:-1]) | (tiles[1:] != tiles[:-1])
    starts = np.flatnonzero(first)
    owners = frame.select(owner)[starts].rows()
    parts = zip(*(np.split(rows, starts[1:]) for rows in (records, frame[INGESTED_AT].to_numpy())), strict=True)
    strings = strings_of(plan, frame, starts)
    for values, tile, (part, ingested), own in zip(owners, tiles[starts].tolist(), parts, strings, strict=True):
        yield Run(partial_tag(plan, values), tile, part, ingested, own)


def strings_of(plan: Plan, frame: pl.DataFrame, starts: Array) -> Iterator[EntityStrings]:
    """Return the strings of each run."""
    found = BatchTexts.of(plan, frame)
    numbers = (frame[EVENT_TIME] // plan.tiles.coarsest).to_list()
    rows = list(zip(numbers, found.rows, strict=True)) if found.rows else []
    for start, end in pairwise([*starts.tolist(), frame.height]):
        yield EntityStrings.of(rows[start:end], found.texts)
