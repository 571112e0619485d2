"""How far back a version's windows reach by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtml.instants import BEGINNING, Instant, floor
from rtml.online import keys
from streaming.positions import read_positions, watermark
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis


def reach_of(client: Redis, version: Version, until: Instant) -> Instant:
    """Return the first instant that a window with a left edge can still reach.

    A request may look back from where the stream has come, less the lateness; that may be far behind the mirror. Where
    nothing counts as servable yet, nobody knows how far: all is in reach until a partition that was never read is.
    """
    plan = version.plan
    streamed = watermark(read_positions(client, keys.position(plan.source), plan.partitions))
    servable = max(streamed, version.boundary)
    if servable == BEGINNING:
        return 0
    return max(0, min(until, servable) - plan.lateness - plan.longest - plan.tiles.coarsest)


def history_start(version: Version) -> Instant:
    """Return the first instant that any window at or after the boundary can reach, on the grid of the coarsest tile.

    What lies before it, a lifetime window has in its base.
    """
    plan = version.plan
    return max(0, floor(version.boundary - plan.longest, plan.tiles.coarsest) - plan.tiles.coarsest)
