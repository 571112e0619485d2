"""Routed micro-batches → what each shard of the sink is given, counted on the way."""

from __future__ import annotations

from rtml.define.source import EventSource
from rtml.online import keys
from streaming.figures import Figures
from streaming.heartbeats import note
from streaming.route import Routed
from streaming.sinks import Beat, Share


class Sharder:
    """The step between the router and the tile sink, of one source."""

    def __init__(self, source: EventSource, figures: Figures) -> None:
        """Count into a flow's figures."""
        self._source = source
        self._figures = figures
        self._routed = 0

    def __call__(self, routed: Routed) -> list[tuple[str, Share | Beat]]:
        """Return a share for each shard that has events, and a heartbeat behind them."""
        batch = routed.micro_batch
        self._figures.count(**routed.counts)
        self._figures.seen(routed)
        found: list[tuple[str, Share | Beat]] = [(f"{shard:04}", Share(batch, shard)) for shard in batch.shards]
        self._routed += bool(found)
        if batch.heartbeat is not None:
            partition, offset = batch.heartbeat
            beat = Beat(note(self._source.name, "tiles", partition, offset), self._routed)
            found.append((f"{partition % keys.SHARDS:04}", beat))
        return found
