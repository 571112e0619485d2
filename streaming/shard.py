"""Routed micro-batches → what each process of the sink is given, counted on the way."""

from __future__ import annotations

from rtml.define.source import EventSource
from streaming.figures import Figures
from streaming.heartbeats import note
from streaming.place import ALONE, Place
from streaming.route import Routed
from streaming.share import Beat, Covered, Item, divided


class Sharder:
    """The step between the router and the tile sink, of one source."""

    def __init__(self, source: EventSource, figures: Figures, place: Place = ALONE) -> None:
        """Count into a flow's figures."""
        self._source = source
        self._figures = figures
        self._place = place
        self._sent = [0] * place.count

    def __call__(self, routed: Routed) -> list[tuple[str, Item]]:
        """Return each process's share of the events; before it what is covered, and behind it a heartbeat."""
        batch = routed.micro_batch
        self._figures.count(**routed.counts)
        self._figures.seen(routed)
        found: list[tuple[str, Item]] = []
        everybody = range(self._place.count)
        if batch.covered is not None:
            found += [(key_of(process), Covered(*batch.covered)) for process in everybody]
        for process, share in divided(batch, self._place, again=self._figures.is_again):
            self._sent[process] += 1
            found.append((key_of(process), share))
        if batch.heartbeat is not None:
            found += [(key_of(process), self._beat(batch.heartbeat, process)) for process in everybody]
        return found

    def _beat(self, heartbeat: tuple[int, str], process: int) -> Beat:
        command = note(self._source.name, "tiles", *heartbeat, Place(process, self._place.count))
        return Beat(command, self._sent[process], self._place.process)


def key_of(process: int) -> str:
    """Return the name of a shard that a process writes: what is sent there is for all of its shards."""
    return f"{process:04}"
