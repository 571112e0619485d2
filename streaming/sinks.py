"""Where the flows end: the tile sink, sharded, and the mirror sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from rtml import instants
from rtml.online import keys
from streaming.figures import Figures
from streaming.gate import Gated
from streaming.link import Link
from streaming.mirror import Mirror
from streaming.progress import Progress
from streaming.route import ShardBatch
from streaming.tile_writer import ShardWriter

if TYPE_CHECKING:
    from redis import Redis


class TileSink(FixedPartitionedSink[list[ShardBatch], None]):
    """Writes tiles, by shards of a fixed number, so that the count of workers is free (I9)."""

    def __init__(self, client: Redis, progress: Progress, figures: Figures) -> None:
        """Take what shards share."""
        self._client = client
        self._link = Link(client)
        self._progress = progress
        self._figures = figures

    def list_parts(self) -> list[str]:
        """All shards, in the order of their numbers."""
        return [f"{shard:04}" for shard in range(keys.SHARDS)]

    def part_fn(self, item_key: str) -> int:
        """A shard's name is its number."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> TilePartition:
        """Take a new generation for a shard (I2)."""
        del step_id, for_part, resume_state
        generation = int(self._client.incr(keys.GENERATION))
        return TilePartition(ShardWriter(self._link, generation), self._link, self._progress, self._figures)


class TilePartition(StatefulSinkPartition[list[ShardBatch], None]):
    """One shard."""

    def __init__(self, writer: ShardWriter, link: Link, progress: Progress, figures: Figures) -> None:
        """Write by a writer, and tell how it went."""
        self._writer = writer
        self._link = link
        self._progress = progress
        self._figures = figures

    def write_batch(self, values: list[list[ShardBatch]]) -> None:
        """Send micro-batches; Redis works on one shard's while the next one's are prepared."""
        for parts in values:
            self._figures.count(**self._writer.apply(parts, self._progress.watermark))
            self._figures.sent(self._arrived(parts[0]))
            if parts[-1].last:
                self._settle()

    def snapshot(self) -> None:
        """Wait until all is written: then the epoch's offset may count."""
        self._settle()

    def _settle(self) -> None:
        self._link.drain()
        self._figures.servable(instants.now())

    @staticmethod
    def _arrived(part: ShardBatch) -> list[instants.Instant]:
        return [part.batch.arrived[row] for found in part.rows.values() for row in found]


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
