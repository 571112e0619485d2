"""The stream's own figures, as a viewer reads them from Redis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import msgspec

from rtml.define.source import EventSource
from rtml.instants import Instant
from rtml.online import keys
from streaming.positions import read_positions, watermark

if TYPE_CHECKING:
    from redis import Redis

FLOWS = ("tiles", "mirror")


class StreamFigures:
    """The figures of some sources' flows."""

    def __init__(self, client: Redis, sources: Iterable[EventSource]) -> None:
        """Take a connection and the sources."""
        self._client = client
        self._sources = list(sources)

    def read(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return the figures by source and flow; a flow that has not run yet has none."""
        found = {}
        for source in self._sources:
            for flow in FLOWS:
                stored = cast("dict[bytes, bytes]", self._client.hgetall(keys.figures(source.name, flow)))
                # Counts of the last minute, and what was measured by stage, are JSON.
                read = {name.decode(): msgspec.json.decode(value) for name, value in stored.items()}
                found[source.name, flow] = {
                    name: value for name, value in read.items() if isinstance(value, int | float)
                }
        return found

    def running(self) -> int:
        """Return how many flows have closed an epoch."""
        return sum(1 for figures in self.read().values() if "updated_at" in figures)

    def passed(self, instant: Instant) -> int:
        """Return how many flows have taken everything that was ingested before an instant."""
        count = 0
        for source in self._sources:
            for key in (keys.position(source.name), keys.mirrored(source.name)):
                positions = read_positions(self._client, key, source.stream.partitions)
                count += watermark(positions) >= instant
        return count

    def freshness(self) -> dict[str, float]:
        """Return p50 and p99 of the last minute in milliseconds: those of the source where they are worst."""
        tiles = [figures for (_, flow), figures in self.read().items() if flow == "tiles"]
        return {name: max(figures.get(f"freshness_{name}_ms", 0.0) for figures in tiles) for name in ("p50", "p99")}

    @property
    def flows(self) -> int:
        """How many flows there are."""
        return len(self._sources) * len(FLOWS)
