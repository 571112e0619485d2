"""Where the flows end: the tile sink, sharded, and the mirror sink."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from rtml import instants
from rtml.online import keys
from rtml.online.commands import Command
from streaming.figures import Figures
from streaming.gate import Gated
from streaming.link import Link
from streaming.mirror import Mirror
from streaming.progress import Progress
from streaming.route import MicroBatch
from streaming.tile_writer import TileWriter

if TYPE_CHECKING:
    from redis import Redis

OVERLAPPED = 1_000
"""From so many events on, Redis writes a micro-batch while the next one is gated."""


class Share(NamedTuple):
    """A micro-batch, for one shard."""

    micro_batch: MicroBatch
    shard: int


class Beat(NamedTuple):
    """A heartbeat: the command that notes it, and how many micro-batches had events up to it."""

    command: Command
    behind: int


class TileSink(FixedPartitionedSink[Share | Beat, None]):
    """Writes tiles, by shards of a fixed number, so that the count of workers is free (I9)."""

    def __init__(self, client: Redis, progress: Progress, figures: Figures) -> None:
        """Take what shards share."""
        self._client = client
        self._link = Link(client)
        self._progress = progress
        self._figures = figures
        self._shards: set[int] = set()
        self._applied = 0
        self._beats: list[Beat] = []

    def list_parts(self) -> list[str]:
        """All shards, in the order of their numbers."""
        return [f"{shard:04}" for shard in range(keys.SHARDS)]

    def part_fn(self, item_key: str) -> int:
        """A shard's name is its number."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> TilePartition:
        """Open a shard that this process owns from now on."""
        del step_id, resume_state
        self._shards.add(int(for_part))
        return TilePartition(self)

    @cached_property
    def _writer(self) -> TileWriter:
        """The process's writer, of a generation taken when its first event comes (I2)."""
        return TileWriter(self._link, int(self._client.incr(keys.GENERATION)))

    def write(self, share: Share) -> None:
        """Send a micro-batch, all of this process's shards of it at once, unless that was done for another shard."""
        micro_batch = share.micro_batch
        if share.shard in micro_batch.taken:
            return
        started = time.perf_counter()
        self._figures.count(**self._writer.apply(micro_batch, self._shards, self._progress.watermark))
        self._figures.recent(duplicates=self._writer.duplicates)
        self._figures.gauge(cached_entities=self._writer.cached)
        self._applied += 1
        batch = max(micro_batch.views, key=lambda batch: len(batch.arrived))
        self._figures.sent(batch.arrived)
        if len(batch.arrived) < OVERLAPPED:
            self.settle()
        self._figures.stage("write", time.perf_counter() - started)

    def beat(self, beat: Beat) -> None:
        """Keep a heartbeat until the events before it are sent: shards are not asked in the events' order."""
        self._beats.append(beat)

    def pass_on(self) -> None:
        """Note the heartbeats that have nothing before them but what was sent, when that is written."""
        ready = [beat.command for beat in self._beats if beat.behind <= self._applied]
        if ready:
            self._beats = [beat for beat in self._beats if beat.behind > self._applied]
            self._link.run(ready)
            self._figures.servable(instants.now())

    def settle(self) -> None:
        """Wait until all that was sent is written, and so servable."""
        self._link.drain()
        self._figures.servable(instants.now())

    def close(self) -> None:
        """Give the connection back; nothing may be written any more."""
        self._link.close()


class TilePartition(StatefulSinkPartition[Share | Beat, None]):
    """One shard."""

    def __init__(self, sink: TileSink) -> None:
        """Write by the process's sink."""
        self._sink = sink

    def write_batch(self, values: list[Share | Beat]) -> None:
        """Send micro-batches, and pass heartbeats on."""
        for value in values:
            if isinstance(value, Beat):
                self._sink.beat(value)
            else:
                self._sink.write(value)
        self._sink.pass_on()

    def snapshot(self) -> None:
        """Wait until all is written: then the epoch's offset may count."""
        self._sink.settle()
        self._sink.pass_on()


class MirrorSink(FixedPartitionedSink[Gated, None]):
    """Appends events to the lake: one partition, since Delta commits are per table."""

    def __init__(self, mirror: Mirror) -> None:
        """Write by a mirror."""
        self._mirror = mirror

    def list_parts(self) -> list[str]:
        """The only one."""
        return ["mirror"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> MirrorPartition:
        """Open it."""
        del step_id, for_part, resume_state
        return MirrorPartition(self._mirror)


class MirrorPartition(StatefulSinkPartition[Gated, None]):
    """Buffers an epoch, and commits it before its offset is snapshotted."""

    def __init__(self, mirror: Mirror) -> None:
        """Write by a mirror."""
        self._mirror = mirror

    def write_batch(self, values: list[Gated]) -> None:
        """Keep for the epoch's end."""
        for gated in values:
            self._mirror.take(gated)

    def snapshot(self) -> None:
        """Commit: Bytewax calls this at each epoch's end, before the offset counts."""
        self._mirror.flush()
