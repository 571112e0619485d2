"""Where the flows end: the tile sink, sharded, and the mirror sink."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import redis
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from rtml import instants
from rtml.online import keys
from streaming.broker import is_passing
from streaming.figures import Figures
from streaming.gate import Gated
from streaming.link import Link
from streaming.mirror import Mirror
from streaming.place import ALONE, Place
from streaming.progress import Progress
from streaming.share import Beat, Covered, Item, Parcel, Share
from streaming.tile_writer import TileWriter
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

OVERLAPPED = 1_000
"""From so many events on, Redis writes a micro-batch while the next one is gated."""


class TileSink(FixedPartitionedSink[Item, None]):
    """Writes tiles, by shards of a fixed number, so that the count of processes is free (I9)."""

    def __init__(
        self,
        client: Redis,
        progress: Progress,
        figures: Figures,
        place: Place = ALONE,
        versions: Iterable[Version] = (),
    ) -> None:
        """Take what shards share; `versions` are those of which other processes send events."""
        self._client = client
        self._link = Link(client)
        self._progress = progress
        self._figures = figures
        self._place = place
        self._only_writes = not any(place.reads(partition) for partition in progress.partitions)
        self._versions = {version.name: version for version in versions}
        self._applied: Counter[int] = Counter()
        """How many shares were sent to Redis, by the process that had read them."""
        self._beats: list[Beat] = []
        self._generation = 0

    def list_parts(self) -> list[str]:
        """This process's shards. All processes' are those of any other count: snapshots of them fit."""
        return [f"{shard:04}" for shard in sorted(self._place.shards)]

    def part_fn(self, item_key: str) -> int:
        """A shard's name is its number."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> TilePartition:
        """Open a shard; with the first one the process takes its generation, later than all that ran before it (I2)."""
        del step_id, for_part, resume_state
        self._generation = self._generation or int(self._client.incr(keys.GENERATION))
        return TilePartition(self)

    @cached_property
    def _writer(self) -> TileWriter:
        """The process's writer."""
        return TileWriter(self._link, self._generation)

    def write(self, share: Share) -> None:
        """Send this process's share of a micro-batch, all of its shards at once."""
        started = time.perf_counter()
        batch = share.content
        if isinstance(batch, Parcel):
            batch = batch.open(self._versions, self._place.process)
        self._figures.count(**self._writer.apply(batch, self._place.shards, self._progress.watermark))
        if not share.again:
            self._figures.recent(duplicates=self._writer.duplicates)
        self._figures.gauge(cached_entities=self._writer.cached)
        self._applied[share.reader] += 1
        self._figures.sent(share.arrived)
        if max(len(view.arrived) for view in batch.views) < OVERLAPPED:
            self.settle()
        self._figures.stage("write", time.perf_counter() - started)

    def cover(self, covered: Covered) -> None:
        """Learn how far a partition is covered: by all partitions' news the fences of entities rise.

        The news comes from within the flow, and so from this run of it alone: after a rewind the positions in Redis
        are ahead of what a new version has been given.
        """
        self._progress.cover(covered.partition, covered.instant)
        if self._only_writes:
            self._write_figures()

    def _write_figures(self) -> None:
        """As a process does that reads partitions; while Redis is away they are kept for the next time."""
        try:
            self._figures.write_when_due(self._client)
        except redis.RedisError as error:
            if isinstance(error, redis.ResponseError) and not is_passing(error):
                raise

    def beat(self, beat: Beat) -> None:
        """Keep a heartbeat until the events before it are sent: shards are not asked in the events' order."""
        self._beats.append(beat)

    def pass_on(self) -> None:
        """Note the heartbeats that have nothing before them but what was sent, when that is written."""
        ready = [beat.command for beat in self._beats if beat.behind <= self._applied[beat.reader]]
        if ready:
            self._beats = [beat for beat in self._beats if beat.behind > self._applied[beat.reader]]
            self._link.run(ready)
            self._figures.servable(instants.now())

    def settle(self) -> None:
        """Wait until all that was sent is written, and so servable."""
        self._link.drain()
        self._figures.servable(instants.now())

    def close(self) -> None:
        """Give the connection back; nothing may be written any more."""
        self._link.close()


class TilePartition(StatefulSinkPartition[Item, None]):
    """One shard."""

    def __init__(self, sink: TileSink) -> None:
        """Write by the process's sink."""
        self._sink = sink

    def write_batch(self, values: list[Item]) -> None:
        """Send micro-batches, and pass heartbeats on."""
        for value in values:
            if isinstance(value, Beat):
                self._sink.beat(value)
            elif isinstance(value, Covered):
                self._sink.cover(value)
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
