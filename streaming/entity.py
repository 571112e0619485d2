"""One entity as its writer remembers it: the very bytes that Redis holds, under a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import inf

from rtml.instants import BEGINNING, Instant
from rtml.online.codec import RAW, Header, unfield
from rtml.plan import Plan
from streaming.hot import Hot
from streaming.route import ViewBatch

REFRESH_SECONDS = 3_600.0
"""How often an entity's time to live is renewed: it is at least seven days."""

HOT_TILES = 4
"""How many of an entity's hot finest tiles are remembered with all of their records."""

ENTITY_BYTES, TILE_BYTES = 800, 110
"""What Python takes for an entity, and for each of its tiles beside the value."""

Run = list[int]
"""Rows of a `ViewBatch` of one entity and one finest tile, in order of arrival: one path down the ladder."""


class Entity:
    """What is known of an entity: what its header says, its tail, and its tiles."""

    __slots__ = (
        *("fence", "last_ingested", "max_event_time", "pruned", "raw", "refreshed", "size", "tail", "tiles", "wanted"),
        "weighed",
    )

    def __init__(self, header: Header, tail: bytes | None = None) -> None:
        """Know its header, and its tail if it has one."""
        _, fence, max_event_time, last_ingested = header
        self.fence: Instant = fence
        self.max_event_time: Instant = max_event_time
        self.last_ingested: Instant = last_ingested
        self.tail = tail or b""
        self.tiles: dict[bytes, bytes | None] = {}
        """By field name; `None` where Redis has none."""
        self.raw: dict[int, Hot] | None = None
        """The raw records of hot finest tiles, by index; mostly there are none."""
        self.pruned: Instant = BEGINNING
        """The fence by which it was pruned last, as far as is known here."""
        self.refreshed = -REFRESH_SECONDS
        """When its time to live was last renewed."""
        self.size = 0
        """About how many bytes it took when it was last weighed."""
        self.weighed = -inf
        """When that was."""
        self.wanted = True
        """Whether it had events since it was last to be forgotten."""

    def leaf(self, batch: ViewBatch, row: int) -> int:
        """Return the level of the tile whose records an event joins; all tiles down to it are known."""
        tiles = self.tiles
        for level, names in batch.fields_from_top:
            value = tiles[names[row]]
            if value is None or level == 0 or value[0] == RAW:
                return level
        raise AssertionError("a ladder has a finest level")

    def unknown(self, batch: ViewBatch, row: int) -> list[bytes]:
        """Return the tiles that must be known to find an event's leaf, and are not."""
        names = []
        tiles = self.tiles
        for _, found in batch.fields_from_top:
            name = found[row]
            if name not in tiles:
                names.append(name)
            elif (value := tiles[name]) is None or value[0] == RAW:
                break
        return names

    def open_runs(self, plan: Plan, batch: ViewBatch, runs: Sequence[Run]) -> Sequence[Run]:
        """Leave out what is behind the fence: it was applied before."""
        if self.fence < 0:
            return runs
        sealed_to = self.sealed_to(plan)
        return [run for run in runs if batch.finest[run[0]] >= sealed_to]

    def sealed_to(self, plan: Plan) -> int:
        """Return the first finest tile that is not behind the fence."""
        return (self.fence - plan.lateness) // plan.ladder[0]

    def is_known(self, batch: ViewBatch, runs: Iterable[Run]) -> bool:
        """Whether nothing has to be fetched before runs can be worked in."""
        tiles, raw = self.tiles, self.raw
        for run in runs:
            for _, names in batch.fields_from_top:
                name = names[run[0]]
                if name not in tiles:
                    return False
                value = tiles[name]
                if value is None or value[0] == RAW:
                    break
            else:
                if raw is None or batch.finest[run[0]] not in raw:
                    return False
        return True

    def forget_sealed(self, plan: Plan, watermark: Instant, but: Collection[bytes] = ()) -> None:
        """Forget tiles that no event can join any more, and the raw records of hot ones."""
        ends, lateness = plan.tiles.end, plan.lateness
        for name in [name for name in self.tiles if name not in but]:
            tile = unfield(name)
            if ends(tile) + lateness <= watermark:
                del self.tiles[name]
                if tile.level == 0 and self.raw is not None:
                    self.raw.pop(tile.index, None)

    def weigh(self, now: float) -> None:
        """Find out about how many bytes it takes here."""
        values = sum([len(value) for value in self.tiles.values() if value]) + len(self.tail)
        raw = sum([hot.size for hot in self.raw.values()]) if self.raw else 0
        self.size, self.weighed = ENTITY_BYTES + TILE_BYTES * len(self.tiles) + values + raw, now

    def hot(self, index: int) -> Hot | None:
        """Return the raw records of a finest tile, if they are known."""
        return None if self.raw is None else self.raw.get(index)

    def cool(self, plan: Plan) -> None:
        """Remember the hot tiles that were needed last, and no others; none that events can no longer join."""
        raw = self.raw
        if raw is None:
            return
        sealed_to = self.sealed_to(plan)
        for index in [index for index in raw if index < sealed_to]:
            del raw[index]
        while len(raw) > HOT_TILES:
            del raw[next(iter(raw))]

    def heat(self, index: int, hot: Hot) -> None:
        """Know the raw records of a hot finest tile, which is needed now."""
        if self.raw is None:
            self.raw = {}
        self.raw.pop(index, None)
        self.raw[index] = hot


def runs_of(batch: ViewBatch, rows: list[int]) -> list[Run]:
    """Return an entity's rows by finest tile."""
    if len(rows) == 1 or batch.is_of_one_tile:
        return [rows]
    finest = batch.finest
    runs: dict[int, Run] = {}
    for row in rows:
        runs.setdefault(finest[row], []).append(row)
    return list(runs.values())


def all_unknown(entity: Entity, batch: ViewBatch, runs: Iterable[Run]) -> list[bytes]:
    """Return the tiles that must be known to work runs in, and are not, each once."""
    return list(dict.fromkeys([name for run in runs for name in entity.unknown(batch, run[0])]))
