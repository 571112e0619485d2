"""What travels from the process that read to one that writes: its share of a micro-batch, and two kinds of news."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from rtml.instants import Instant
from rtml.online.commands import Command
from streaming.place import Place
from streaming.route import MicroBatch, Rows, ViewBatch, rows_by_tag
from streaming.texts import BatchTexts
from streaming.versions import Version


class Parcel(NamedTuple):
    """The rows of one process's shards, and no others: it is pickled. Plans stay behind; versions go by their names."""

    views: list[tuple[str, dict[str, Any]]]

    @classmethod
    def of(cls, micro_batch: MicroBatch, rows_of: list[Rows]) -> Parcel:
        """Pack the given rows of each view; those of an entity stay in their order."""
        return cls(
            [
                (batch.version.name, _columns(batch, [row for found in rows.values() for row in found]))
                for batch, rows in zip(micro_batch.views, rows_of, strict=True)
                if rows
            ]
        )

    def open(self, versions: Mapping[str, Version], shard: int) -> MicroBatch:
        """Return them as a micro-batch of their own; all are as good as of one shard, since one process writes them."""
        views = [ViewBatch(version=versions[name], **columns) for name, columns in self.views]
        return MicroBatch(views, {shard: [rows_by_tag(batch.tags) for batch in views]})


def _columns(batch: ViewBatch, rows: list[int]) -> dict[str, Any]:
    """Return some rows of every column."""
    found: dict[str, Any] = {}
    for field in fields(batch):
        column = getattr(batch, field.name)
        if isinstance(column, list):
            found[field.name] = [column[row] for row in rows]
        elif isinstance(column, np.ndarray):
            found[field.name] = column[rows]
        elif isinstance(column, BatchTexts):
            found[field.name] = column.at(rows)
        elif field.name != "version":
            raise TypeError(f"column {field.name!r} of a micro-batch cannot be divided: it is a {type(column)}")
    return found


class Share(NamedTuple):
    """A process's share of a micro-batch."""

    content: MicroBatch | Parcel
    arrived: list[Instant]
    """When the broker took each event, for the figures; none where the past is read again."""
    again: bool = False
    """Whether the past is read again."""
    reader: int = 0
    """The process that read it."""


class Beat(NamedTuple):
    """A heartbeat: the command that notes it, and how many shares its reader had sent to this process before it."""

    command: Command
    behind: int
    reader: int = 0


class Covered(NamedTuple):
    """The news that all of a partition up to an instant is servable, whichever processes had to write it."""

    partition: int
    instant: Instant


Item = Share | Beat | Covered


def divided(micro_batch: MicroBatch, place: Place, *, again: bool) -> Iterator[tuple[int, Share]]:
    """Return each process's share of what a process has read, where it has one."""
    if not micro_batch.shards:
        return
    # One view stands for all of them: an event may be in several.
    most = max(range(len(micro_batch.views)), key=lambda number: len(micro_batch.views[number].arrived))
    arrived = micro_batch.views[most].arrived
    if place.count == 1:
        yield place.process, Share(micro_batch, [] if again else arrived, again)
        return
    for process in range(place.count):
        rows_of = micro_batch.take(place.shards_of(process))
        if any(rows_of):
            times = [] if again else [arrived[row] for found in rows_of[most].values() for row in found]
            yield process, Share(Parcel.of(micro_batch, rows_of), times, again, place.process)
