"""When an entity's last event was, from what was read of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rtml.algebra.family import Array
from rtml.instants import BEGINNING, Instant
from rtml.online.adaptive import absolute
from rtml.online.base import Base
from rtml.online.codec import RAW, Records
from rtml.plan import Plan
from rtml.reading import Fetched
from rtml.staleness import is_expired
from rtml.tiles import Tile


def expired(fetched: Fetched, plan: Plan, at: Instant) -> bool:
    """Whether an entity's last event before an instant is older than its view's `ttl`, or may be."""
    if plan.ttl is None:
        return False
    # As it mostly is, and for nothing.
    if at - plan.ttl <= fetched.header.max_event_time < at:
        return False
    return is_expired(at, last_event(fetched, plan, at), plan.ttl)


def last_event(fetched: Fetched, plan: Plan, at: Instant) -> Instant:
    """Return when the latest event before an instant was, or a lower bound of it.

    The header knows the stream's latest. Where that is none, or not before the instant, tiles tell: those that hold
    records exactly, the others that it was not before their start; and an entity's base.
    """
    newest = fetched.header.max_event_time
    found = [_latest(np.frombuffer(fetched.late, Records.of(plan).wide, offset=1), at)] if fetched.late else []
    if fetched.base is not None:
        found.append(Base.decode(fetched.base).latest)
    if BEGINNING < newest < at:
        return max(newest, *found) if found else newest
    tiles = () if fetched.reading is None else fetched.reading.tiles
    for tile, value in zip(tiles, fetched.values, strict=True):
        if value is not None:
            found += _bounds(fetched, plan, tile, value, at)
    return max(found, default=BEGINNING)


def _bounds(fetched: Fetched, plan: Plan, tile: Tile, value: bytes, at: Instant) -> Iterator[Instant]:
    layout = Records.of(plan)
    if value[0] == RAW:
        yield _latest(absolute(layout, tile, value[1:]), at)
    elif plan.tiles.end(tile) <= at:
        yield plan.tiles.start(tile)
    elif tile.level == 0 and tile.index in fetched.raw:
        # The instant cuts it: what it stands for may all be later.
        width, data = layout.narrow.itemsize, fetched.raw[tile.index]
        count = min(fetched.records_of(plan, tile.index, value), len(data) // width)
        yield _latest(absolute(layout, tile, data[: count * width]), at)


def _latest(records: Array, at: Instant) -> Instant:
    times = records["time"].astype(np.int64)
    return int(times[times < at].max(initial=BEGINNING))
