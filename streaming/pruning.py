"""What no reader and no writer can need any more (design §6), judged against the fence."""

from __future__ import annotations

from collections.abc import Iterable

from rtml.instants import BEGINNING, Instant
from rtml.plan import Plan
from rtml.tiles import Tile


def expired(
    plan: Plan, tiles: Iterable[Tile], fence: Instant, since: Instant = BEGINNING
) -> tuple[list[Tile], list[int]]:
    """Return the tiles that are out of reach, and the finest indices whose raw records are.

    A reader may look back from `fence − lateness`. A window then reaches its length further, floored to a finest tile;
    raw records are read only at exact edges, and below the head while their tile is not sealed. Tiles that a lifetime
    window counts go when an entity's base holds them: publish sees to that. Raw records that were already out of reach
    at a fence of `since` are left out.
    """
    ladder = plan.tiles
    earliest = fence - plan.lateness
    state_horizon = earliest - plan.longest - ladder.finest
    raw_horizon = earliest - plan.longest_exact - (ladder.finest if plan.longest_exact else 0)
    old, raw = [], []
    for tile in tiles:
        end = ladder.end(tile)
        if end <= state_horizon and not plan.lifetime:
            old.append(tile)
        if tile.level == 0 and raw_horizon - (fence - since) < end <= raw_horizon:
            raw.append(tile.index)
    return old, raw
