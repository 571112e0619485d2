"""One entity as its writer remembers it: the very bytes that Redis holds, under a claim."""

from __future__ import annotations

from collections.abc import Iterable

from rtml.online.codec import RAW, Header
from streaming.route import ViewBatch

REFRESH_SECONDS = 3_600.0
"""How often an entity's time to live is renewed: it is at least seven days."""

Run = list[int]
"""Rows of a `ViewBatch` of one entity and one finest tile, in order of arrival: one path down the ladder."""


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
    """What is known of an entity: its header and tail, tiles by field name (`None` where Redis has none), hot records.

    `raw` has the records of hot finest tiles by index.
    """

    __slots__ = ("header", "raw", "refreshed", "size", "tail", "tiles")

    def __init__(self, header: Header, tail: bytes | None = None) -> None:
        """Know its header, and its tail if it has one."""
        self.header = header
        self.tail = tail or b""
        self.tiles: dict[bytes, bytes | None] = {}
        self.raw: dict[int, Hot] = {}
        self.refreshed = -REFRESH_SECONDS
        """When its time to live was last renewed."""
        self.size = 0
        """How many bytes its tiles had when they were last counted."""

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


def runs_of(batch: ViewBatch, rows: list[int]) -> list[Run]:
    """Return an entity's rows by finest tile."""
    if len(rows) == 1:
        return [rows]
    finest = batch.finest
    runs: dict[int, Run] = {}
    for row in rows:
        runs.setdefault(finest[row], []).append(row)
    return list(runs.values())


def all_unknown(entity: Entity, batch: ViewBatch, runs: Iterable[Run]) -> list[bytes]:
    """Return the tiles that must be known to work runs in, and are not, each once."""
    return list(dict.fromkeys([name for run in runs for name in entity.unknown(batch, run[0])]))
