"""Which process of a flow this is, and what is its own: a flow may run in several, which read and write apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rtml.online import keys


@dataclass(frozen=True)
class Place:
    """One of `count` processes; any count gives the same answers, since an entity's shard never changes (I9)."""

    process: int
    count: int

    @property
    def leads(self) -> bool:
        """Whether it decides for all."""
        return self.process == 0

    def reads(self, partition: int) -> bool:
        """Whether a partition of the source is this process's."""
        return partition % self.count == self.process

    @cached_property
    def shards(self) -> frozenset[int]:
        """The shards that this process writes."""
        return self.shards_of(self.process)

    def shards_of(self, process: int) -> frozenset[int]:
        """Return the shards that a process writes."""
        return frozenset(range(process, keys.SHARDS, self.count))


ALONE = Place(0, 1)
