"""Sources and sinks of a cluster's flow, whose errors end the group: Bytewax would lose them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from streaming.group import Process, ending

X = TypeVar("X")
S = TypeVar("S")


class EndingSource(FixedPartitionedSource[X, S]):
    """A source whose errors end the group."""

    def __init__(self, process: Process, source: FixedPartitionedSource[X, S]) -> None:
        """Be a source that ends a process."""
        self._process, self._source = process, source

    def list_parts(self) -> list[str]:
        """The source's."""
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> EndingSourcePartition[X, S]:
        """Open the source's."""
        with ending(self._process):
            return EndingSourcePartition(self._process, self._source.build_part(step_id, for_part, resume_state))


class EndingSourcePartition(StatefulSourcePartition[X, S]):
    """A partition of it."""

    def __init__(self, process: Process, partition: StatefulSourcePartition[X, S]) -> None:
        """Be a partition that ends a process."""
        self._process, self._partition = process, partition

    def next_batch(self) -> Iterable[X]:
        """Read."""
        with ending(self._process):
            return self._partition.next_batch()

    def next_awake(self) -> datetime | None:
        """Say when to read next."""
        return self._partition.next_awake()

    def snapshot(self) -> S:
        """Say where to resume."""
        with ending(self._process):
            return self._partition.snapshot()


class EndingSink(FixedPartitionedSink[X, S]):
    """A sink whose errors end the group."""

    def __init__(self, process: Process, sink: FixedPartitionedSink[X, S]) -> None:
        """Be a sink that ends a process."""
        self._process, self._sink = process, sink

    def list_parts(self) -> list[str]:
        """The sink's."""
        return self._sink.list_parts()

    def part_fn(self, item_key: str) -> int:
        """The sink's."""
        return self._sink.part_fn(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> EndingSinkPartition[X, S]:
        """Open the sink's."""
        with ending(self._process):
            return EndingSinkPartition(self._process, self._sink.build_part(step_id, for_part, resume_state))


class EndingSinkPartition(StatefulSinkPartition[X, S]):
    """A partition of it."""

    def __init__(self, process: Process, partition: StatefulSinkPartition[X, S]) -> None:
        """Be a partition that ends a process."""
        self._process, self._partition = process, partition

    def write_batch(self, values: list[X]) -> None:
        """Write."""
        with ending(self._process):
            self._partition.write_batch(values)

    def snapshot(self) -> S:
        """Make what was written durable."""
        with ending(self._process):
            return self._partition.snapshot()
