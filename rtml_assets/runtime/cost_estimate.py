"""What an entity would take in Redis, by the plan alone: events at an even pace, in the tiles that they would grow."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from rtml.instants import DAY, Duration, Instant
from rtml.online.adaptive import Grown, grow
from rtml.online.codec import FIELD_DTYPE, PREFIX, Header, Records
from rtml.plan import Plan
from rtml.tiles import Tile

PER_DAY = (1, 24, 1_440)
MOST_EVENTS = 50_000
OF_A_KEY, OF_A_FIELD, OF_A_SHORT_FIELD = 130, 56, 4
"""About what Redis takes for itself, in bytes: short are the fields of a hash in which all are (a listpack)."""
SHORT, FEW = 64, 128


class Estimate(msgspec.Struct, frozen=True):
    """What an entity with so many events a day takes, with so many in reach of its windows."""

    events_per_day: int
    events: int
    bytes: int


def estimate(plan: Plan) -> list[Estimate]:
    """Estimate an entity's bytes at several paces."""
    reach = plan.longest + plan.lateness
    return [_at_pace(plan, pace, max(reach, plan.ladder[-1])) for pace in PER_DAY]


def _at_pace(plan: Plan, pace: int, reach: Duration) -> Estimate:
    count = max(1, round(pace * reach / DAY))
    simulated = min(count, MOST_EVENTS)
    begin = 10_000 * DAY
    records = np.zeros(simulated, dtype=Records.of(plan).wide)
    records["time"] = begin + np.arange(simulated, dtype=np.int64) * (DAY // pace)
    records["id64"] = np.arange(simulated)
    tops = records["time"].astype(np.int64) // plan.tiles.coarsest
    grown = [grow(plan, Tile(plan.tiles.top, int(top)), records[tops == top]) for top in np.unique(tops)]
    exact_from = begin + simulated * (DAY // pace) - plan.longest_exact - plan.lateness
    tiles, hot = _values(plan, grown), _hot(plan, grown, exact_from)
    values = [len(Header().encode()), *([plan.states.size] if plan.lifetime else []), *tiles]
    short = max(values) <= SHORT and len(values) <= FEW
    fields = sum(values) + len(values) * (FIELD_DTYPE.itemsize + (OF_A_SHORT_FIELD if short else OF_A_FIELD))
    return Estimate(pace, count, round(OF_A_KEY + (fields + sum(hot)) * count / simulated))


def _values(plan: Plan, grown: Sequence[Grown]) -> list[int]:
    """Return how long the values of tiles are."""
    leaves = [len(value) for one in grown for value in one.leaves.values()]
    return leaves + [PREFIX + plan.states.size] * sum(len(one.states) for one in grown)


def _hot(plan: Plan, grown: Sequence[Grown], exact_from: Instant) -> list[int]:
    """Return what the keys of raw records take that exact edges may need."""
    indices = [(index, data) for one in grown for index, data in one.raw.items()]
    return [OF_A_KEY + len(data) for index, data in indices if plan.tiles.end(Tile(0, index)) > exact_from]
