"""What this run of a flow has durably covered, as a process's sink knows it."""

from __future__ import annotations

from collections.abc import Collection

from rtml.instants import BEGINNING, Instant


class Progress:
    """Each partition's instant up to which this run's own writes are durable.

    The fence is judged by this and not by the position in Redis: after a rewind the position is ahead of what a new
    version has been given. All processes of a run are told the same; one that hears later has a lower watermark, which
    is always safe.
    """

    def __init__(self, partitions: int) -> None:
        """Start before everything."""
        self._covered: dict[int, Instant] = dict.fromkeys(range(partitions), BEGINNING)

    def cover(self, partition: int, instant: Instant) -> None:
        """Say that all of a partition up to an instant is durable."""
        self._covered[partition] = max(self._covered[partition], instant)

    @property
    def partitions(self) -> Collection[int]:
        """Their numbers."""
        return self._covered.keys()

    @property
    def watermark(self) -> Instant:
        """The least instant of all partitions."""
        return min(self._covered.values())
