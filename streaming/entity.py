"""One entity as its writer remembers it: the very bytes that Redis holds, under a claim."""

from __future__ import annotations

from rtml.instants import Instant
from rtml.online.codec import RAW, Header
from rtml.plan import Plan
from streaming.route import ViewBatch

REFRESH_SECONDS = 3_600.0
"""How often an entity's time to live is renewed: it is at least seven days."""


class Hot:
    """The raw records of a hot finest tile, by time and id64, and how many places they take in Redis."""

    __slots__ = ("count", "damaged", "records")

    def __init__(self, data: bytes, width: int, payload: int, count: int) -> None:
        """Take what the raw key holds; if that is less than `count` records, the tile is damaged for good."""
        records = [data[at : at + width] for at in range(0, len(data) // width * width, width)]
        self.records = {record[: width - payload]: record for record in records}
        self.count = count
        self.damaged = len(data) < count * width


class Entity:
    """What is known of an entity: its header, tiles by field name (`None` where Redis has none), hot raw records."""

    __slots__ = ("header", "raw", "refreshed", "tiles")

    def __init__(self, header: Header) -> None:
        """Know its header only."""
        self.header = header
        self.tiles: dict[bytes, bytes | None] = {}
        self.raw: dict[int, Hot] = {}
        self.refreshed = -REFRESH_SECONDS
        """When its time to live was last renewed."""

    def open_rows(self, plan: Plan, batch: ViewBatch, rows: list[int]) -> list[int]:
        """Leave out what is behind the fence: it was applied before."""
        sealed_to: Instant = self.header.fence - plan.lateness
        ends = batch.finest_ends
        return [row for row in rows if ends[row] > sealed_to]

    def leaf(self, batch: ViewBatch, row: int) -> int:
        """Return the level of the tile whose records an event joins; −1 when a tile on its path is not known yet."""
        tiles = self.tiles
        for level, names in batch.fields_from_top:
            name = names[row]
            if name not in tiles:
                return -1
            value = tiles[name]
            if value is None or level == 0 or value[0] == RAW:
                return level
        raise AssertionError("a ladder has a finest level")

    def unknown(self, batch: ViewBatch, row: int) -> list[bytes]:
        """Return the tiles that must be known to find an event's leaf, and are not."""
        names = []
        for _, found in batch.fields_from_top:
            name = found[row]
            if name not in self.tiles:
                names.append(name)
            elif (value := self.tiles[name]) is None or value[0] == RAW:
                break
        return names
