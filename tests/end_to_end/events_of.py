"""Random events for random definitions: ties, edges, duplicates, disorder, nulls, and delays around every limit."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import xxhash

from rtml.columns import TIMESTAMP
from rtml.instants import DAY, HOUR, MINUTE, SECOND, Instant, to_instant
from rtml.texts import LONGEST_TEXT
from tests.end_to_end.definitions_of import Definitions, Source
from tests.end_to_end.expressions_of import Column
from tests.oracle import Event

if TYPE_CHECKING:
    from redis import Redis

Round = dict[str, list[Event]]
"""What arrives at each source, in the order of its stamps."""

KEYS: dict[str, list[Any]] = {
    "str": ["plain", "", "a|b", "{x}", "per%cent", "späce y", "x" * 200, "🛫", "a:b@c"],
    "int": [0, 1, -1, 7, 2**53 + 1, -(2**63), 2**63 - 1],
    "bool": [True, False],
}
DTYPES: dict[str, pl.DataType] = {"str": pl.String(), "int": pl.Int64(), "float": pl.Float64(), "bool": pl.Boolean()}
STRINGS = ["", "a", "a", "b", "b", "🛫 é", "x" * LONGEST_TEXT, "é" * LONGEST_TEXT]
"""Some of a kind, one of the greatest length, and one too long by as much again."""
STARTS = ["2024-02-28T23:00:00Z", "2024-01-31T12:34:56Z", "2023-12-31T00:00:00Z"]


class Draw:
    """Draws the events of one set of definitions; stamps go on from round to round."""

    def __init__(self, rng: random.Random, definitions: Definitions) -> None:
        self._rng = rng
        self._sources = definitions.sources
        self._views = definitions.views
        self.now: Instant = to_instant(rng.choice(STARTS))
        self._unit = rng.choice([0.1, 200_000, 2 * SECOND, MINUTE, 5 * MINUTE, 3 * HOUR])
        self._pools = {key.name: rng.sample(KEYS[key.kind], 2) for key in definitions.keys}
        self._silent = {name for name in self._sources if len(self._sources) > 1 and rng.random() < 0.1}
        self._sent: Round = {name: [] for name in self._sources}

    def round(self, *, last: bool) -> Round:
        """Draw what arrives next; every source has something, a silent one in the last round only."""
        found: Round = {name: [] for name in self._sources if last or name not in self._silent}
        names = list(found)
        for _ in range(self._rng.choice([0, 10, 60, 200]) if names else 0):
            self._arrive(found, self._rng.choice(names))
        self.now += 1
        for name in names:
            self._arrive(found, name)
        return found

    def entities(self) -> list[dict[str, Any]]:
        """Return some rows of join keys: mostly of what was drawn, and one that nobody has seen."""
        names = list(self._pools)
        rows = [{name: self._rng.choice(self._pools[name]) for name in names} for _ in range(6)]
        rows.append({name: "never seen" if isinstance(pool[0], str) else pool[0] for name, pool in self._pools.items()})
        return [dict(zip(names, values, strict=True)) for values in dict.fromkeys(tuple(row.values()) for row in rows)]

    def _arrive(self, found: Round, name: str) -> None:
        self.now += int(self._rng.expovariate(1 / self._unit))
        event = self._again(name) or self._new(self._sources[name])
        found[name].append(event)
        self._sent[name].append(event)

    def _again(self, name: str) -> Event | None:
        """Draw a repetition, where events have ids; sometimes with another payload, which must not count."""
        sent, source = self._sent[name], self._sources[name]
        if source.id_kind is None or not sent or self._rng.random() > 0.1:
            return None
        event = replace(self._rng.choice(sent[-40:]), ingested=self.now)
        first = min(one.ingested for one in sent if (one.time, one.id64) == (event.time, event.id64))
        other = replace(event, values={**event.values, **self._values(source)})
        # The stream remembers nothing of what no view wants, and so not that an id has come with another payload.
        differs = any(
            bool(view.seen([event])) != bool(view.seen([other])) for view in self._views if view.source == name
        )
        return event if self._rng.random() < 0.5 or first == self.now or differs else other

    def _new(self, source: Source) -> Event:
        rng = self._rng
        number = len(self._sent[source.name])
        time = self.now - self._delay(source)
        if rng.random() < 0.3:
            time = time // (5 * MINUTE) * (5 * MINUTE)  # the very edges of tiles and windows, and ties
        ref: Any = number if source.id_kind == "int" else f"{source.name}-{number}"
        keys = {name: rng.choice(pool) for name, pool in self._pools.items()}
        values = {"ref": ref, **keys, **self._values(source)}
        return Event("", time, xxhash.xxh64_intdigest(str(ref).encode()), self.now, values)

    def _delay(self, source: Source) -> int:
        rng, late = self._rng, source.lateness
        choices = [0, 3, late, late + 1, -source.skew, rng.randrange(late + 1), late + rng.randrange(1, 2 * DAY)]
        return rng.choices(choices, weights=[4, 4, 1, 1, 1, 4, 2])[0]

    def _values(self, source: Source) -> dict[str, Any]:
        return {column.name: self._value(column) for column in source.columns if column.name not in self._pools}

    def _value(self, column: Column) -> Any:
        rng = self._rng
        if column.nullable and rng.random() < 0.15:
            return None
        if column.kind == "int":
            return rng.randrange(-(2**52), 2**52) if column.wide else rng.randrange(-5, 6)
        if column.kind == "float":
            return rng.choice([round(rng.gauss(1e6, 3), 4), rng.gauss(0, 1), 0.0, -0.0, float(rng.randrange(-5, 6))])
        return rng.random() < 0.5 if column.kind == "bool" else rng.choice(STRINGS)


def frame(source: Source, events: Sequence[Event]) -> pl.DataFrame:
    """Return events as a source's producer would send them, with their `stamp`."""
    columns = [Column("ref", source.id_kind or "str"), *source.columns]
    series = [pl.Series(c.name, [e.values[c.name] for e in events], dtype=DTYPES[c.kind]) for c in columns]
    at = pl.Series("at", [e.time for e in events], dtype=pl.Int64).cast(TIMESTAMP)
    stamp = pl.Series("stamp", [e.ingested for e in events], dtype=pl.Int64).cast(TIMESTAMP)
    return pl.DataFrame([*series, at, stamp])


def identified(client: Redis, source: Source, events: Sequence[Event]) -> list[Event]:
    """Return events with the ids that the platform knows them by: without an event id, their places in the stream."""
    if source.id_kind is not None:
        return list(events)
    places: dict[str, int] = {}
    for partition in range(source.partitions):
        entries: Any = client.xrange(f"stream_{source.name}" + (f":{partition}" if partition else ""))
        for offset, fields in entries:
            if b"data" in fields:
                name = f"{partition}:{offset.decode()}"
                places[json.loads(fields[b"data"])["ref"]] = xxhash.xxh64_intdigest(name.encode())
    return [replace(event, id64=places[event.values["ref"]]) for event in events]
