"""The gate: entries → accepted events, and refused ones with their reasons. Pure, and the same for both flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import xxhash

from rtml.algebra.family import ID64
from rtml.columns import TIMESTAMP
from rtml.define.checks import CHECKS
from rtml.define.contract import Column
from rtml.define.source import EventSource
from rtml.instants import Instant, to_text
from rtml.projection import INGESTED_AT
from streaming.decode import Decoder, Failure, Reason
from streaming.entries import Entries

ARRIVED = "arrived"


@dataclass(frozen=True)
class Refused:
    """One refused event, as received."""

    partition: int
    offset: str
    ingested_at: Instant
    payload: bytes
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Gated:
    """Entries after the gate. `good` has the contract's columns, `ingested_at`, `id64` and `arrived` (µs)."""

    entries: Entries
    good: pl.DataFrame
    refused: list[Refused]

    def __len__(self) -> int:
        """Return how many entries there were."""
        return len(self.entries)


class Gate:
    """Applies one source's contract to entries."""

    def __init__(self, source: EventSource) -> None:
        """Compile the contract: types to msgspec, checks to Polars."""
        self._source = source
        self._decoder = Decoder(source)
        self._rules = [rule for column in source.columns.values() for rule in _rules(column)]
        self._rules += _time_rules(source)
        self._passes = pl.all_horizontal([rule for rule, _ in self._rules])

    def __call__(self, entries: Entries) -> Gated:
        """Return the accepted events and the refused ones."""
        decoded = self._decoder.decode(entries.payloads)
        failures = decoded.failures
        frame = self._with_platform_columns(decoded.frame, decoded.rows, entries)
        passes = frame.select(self._passes).to_series()
        if not passes.all():
            rows = [row for row, ok in zip(decoded.rows, passes, strict=True) if not ok]
            failures |= self._explain(frame.filter(~passes), rows)
            frame = frame.filter(passes)
        refused = [
            Refused(
                entries.partition, entries.offsets[row], entries.ingested_at[row], entries.payloads[row], tuple(why)
            )
            for row, why in sorted(failures.items())
        ]
        return Gated(entries, frame, refused)

    def _with_platform_columns(self, frame: pl.DataFrame, rows: list[int], entries: Entries) -> pl.DataFrame:
        if self._source.event_id is None:
            names = [f"{entries.partition}:{entries.offsets[row]}" for row in rows]
        else:
            names = [str(value) for value in frame[self._source.event_id].to_list()]
        return frame.with_columns(
            pl.Series(INGESTED_AT, [entries.ingested_at[row] for row in rows], dtype=pl.Int64).cast(TIMESTAMP),
            pl.Series(ID64, [id64(name) for name in names], dtype=pl.UInt64),
            pl.Series(ARRIVED, [entries.arrived[row] for row in rows], dtype=pl.Int64),
        )

    def _explain(self, frame: pl.DataFrame, rows: list[int]) -> dict[int, list[Failure]]:
        """Return each refused row's failures: all of them."""
        failures: dict[int, list[Failure]] = {row: [] for row in rows}
        shown = frame.with_columns(pl.selectors.datetime().cast(pl.String))  # Python has no year 0 or 10,000
        for rule, describe in self._rules:
            for place in frame.select(~rule).to_series().arg_true():
                failures[rows[place]].append(describe(shown.row(place, named=True)))
        return failures


def id64(event_id: str) -> int:
    """Return the 64-bit hash by which an event is told apart from others of the same instant."""
    return xxhash.xxh64_intdigest(event_id.encode())


Describe = Callable[[dict[str, Any]], Failure]


def _rules(column: Column) -> list[tuple[pl.Expr, Describe]]:
    value = pl.col(column.name)
    rules = []
    if column.is_float:
        rules.append((_or_null(value.is_finite()), _described(column.name, Reason.NOT_FINITE, "a finite number")))
    for name, given in column.checks:
        words = f"{name.replace('_', ' ')} {', '.join(str(part) for part in given.values())}"
        rules.append((_or_null(CHECKS[name](value, dict(given))), _described(column.name, Reason.OUT_OF_RANGE, words)))
    return rules


def _time_rules(source: EventSource) -> list[tuple[pl.Expr, Describe]]:
    name = source.timestamp
    time, ingested = pl.col(name).dt.epoch("us"), pl.col(INGESTED_AT).dt.epoch("us")

    def future(row: dict[str, Any]) -> Failure:
        return Failure(
            Reason.FUTURE, f"{name!r} is {row[name]}, more than {source.skew} after its arrival at {row[INGESTED_AT]}"
        )

    return [
        (time <= ingested + source.skew_us, future),
        (time >= 0, _described(name, Reason.OUT_OF_RANGE, f"{to_text(0)} or later")),
    ]


def _described(name: str, reason: Reason, words: str) -> Describe:
    return lambda row: Failure(reason, f"field {name!r} must be {words}; got {row[name]!r:.80}")


def _or_null(rule: pl.Expr) -> pl.Expr:
    """A check says nothing of a null; whether null is allowed was settled when the message was decoded."""
    return rule.fill_null(value=True)
