"""What is true, by the broker's own entries and the brute-force oracle: every feature, and every row of the lake."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
import xxhash

from rtml.instants import Instant
from rtml.lake import Lake
from rtml.registry import Registry
from rtml_assets.tables.delta import open_table
from streaming.positions import arrived_at
from tests import oracle
from tests.chaos.definitions import SOURCE
from tests.oracle import Event

if TYPE_CHECKING:
    from redis import Redis

Column = Callable[[str], list[Any]]


class Truth:
    """All entries of the stream, judged by the contract's own words.

    Args:
        client: the broker.
        registry: what is computed of them.
    """

    def __init__(self, client: Redis, registry: Registry) -> None:
        """Begin with nothing read."""
        self._client, self._registry = client, registry
        self.source = registry.source(SOURCE)
        self.published: Instant = 0
        """Late events count that arrived up to then."""
        self.released: Instant = 0
        """Events whose amount is a string count as if it were a number, when they arrived up to then."""
        self.forget()

    def forget(self) -> None:
        """Read all of the stream again next time: it is another one."""
        self.events: list[Event] = []
        self.wrong: list[Event] = []
        """Refused for their amount."""
        self.refused: set[tuple[int, str]] = set()
        self.ids: set[str] = set()
        self._last = dict.fromkeys(self._keys, "-")

    @property
    def _keys(self) -> list[str]:
        return [self.source.stream.key(partition) for partition in range(self.source.stream.partitions)]

    def read(self) -> None:
        """Take what the stream has since the last time."""
        for partition, key in enumerate(self._keys):
            while found := self._entries(key, self._last[key], 20_000):
                for offset, fields in found:
                    if b"data" in fields:
                        self._take(partition, offset, fields[b"data"])
                self._last[key] = f"({found[-1][0].decode()}"

    def _entries(self, key: str, start: str = "-", count: int | None = None) -> Any:
        return self._client.xrange(key, start, "+", count=count)

    def _take(self, partition: int, offset: bytes, payload: bytes) -> None:
        said, ingested = json.loads(payload), arrived_at(offset)
        number = xxhash.xxh64_intdigest(said["event_id"].encode())
        values = {**said, "amount": float(said["amount"])}
        event = Event(said["customer"], said["event_time"], number, ingested, values)
        if said["event_time"] > ingested + self.source.skew_us:
            self.refused.add((partition, offset.decode()))
        elif isinstance(said["amount"], str):
            self.refused.add((partition, offset.decode()))
            self.wrong.append(event)
        else:
            self.events.append(event)
            self.ids.add(said["event_id"])

    def missing(self, taken: Mapping[tuple[str, str], bytes]) -> list[tuple[str, str]]:
        """Return what the broker had taken and does not have, by key and offset."""
        places = list(taken)  # before the stream is read: what is taken meanwhile is in it
        there = {(key, offset.decode()) for key in self._keys for offset, _ in self._entries(key)}
        return [place for place in places if place not in there]

    def counting(self, *, late_too: bool) -> list[Event]:
        """Return the events that count, each once."""
        lateness = self.source.lateness_us
        events = self.events + [event for event in self.wrong if event.ingested <= self.released]
        known = [
            event
            for event in events
            if late_too or event.ingested - event.time <= lateness or event.ingested <= self.published
        ]
        return oracle.counted(known, lateness, late_too=True)

    def compare(self, entities: list[dict[str, Any]], column: Column, at: Instant, *, late_too: bool = False) -> int:
        """Compare every feature of entities with the oracle's; return how many values that were.

        Args:
            entities: the join keys of all views, row by row.
            column: the values of a column, named `view__feature`, row by row.
            at: the instant that was asked for.
            late_too: whether late events count that were not published.
        """
        events = self.counting(late_too=late_too)
        truth = {"customer_orders": _by(events, "customer"), "store_orders": _by(_stores(events), "store")}
        compared = 0
        for name, plan in self._registry.plans.items():
            key = "customer" if name == "customer_orders" else "store"
            windows: dict[tuple[str, int], list[Event]] = {}
            for feature in plan.features:
                floor = 1 if feature.exact else plan.tiles.finest
                for row, value in zip(entities, column(f"{name}__{feature.name}"), strict=True):
                    of = row[key]
                    window = windows.get((of, feature.window))
                    if window is None:
                        mine = truth[name].get(of, [])
                        window = oracle.window(mine, of, at, feature.window, floor)
                        windows[of, feature.window] = window
                    expected = oracle.value(feature.aggregate, window, feature.column)
                    assert oracle.agree(feature.aggregate, value, expected, window, feature.column), (
                        f"{name}__{feature.name} of {of} at {at}: got {value}, expected {expected}"
                    )
                    compared += 1
        return compared

    def check_lake(self, lake: Lake) -> int:
        """Hold `raw/` and `quarantine/` against the stream; return how many events they lost."""
        raw = {row[0] for row in _rows(lake.raw(SOURCE), "event_id")}
        quarantine = {row for row in _rows(lake.quarantine(SOURCE), "partition", "offset") if row[1] is not None}
        assert raw <= self.ids, f"raw/ has what was never sent: {sorted(raw - self.ids)[:5]}"
        return len(self.ids - raw) + len(self.refused - quarantine)


def _rows(uri: str, *columns: str) -> set[tuple[Any, ...]]:
    return set() if open_table(uri) is None else set(pl.scan_delta(uri).select(columns).collect().iter_rows())


def _by(events: list[Event], key: str) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.values[key] if key == "customer" else event.key].append(event)
    return found


def _stores(events: list[Event]) -> list[Event]:
    """What `where` and `derive` of the second view make of the events."""
    return [
        Event(e.values["store"], e.time, e.id64, e.ingested, {"large": int(e.values["amount"] > 50)})
        for e in events
        if e.values["items"] > 1
    ]
