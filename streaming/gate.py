"""The gate: entries → accepted events, and refused ones with their reasons. Pure, and the same for both flows.

What arrived under a former contract was judged by that one, and is again whenever it is read again: otherwise a flow
that goes back in the stream would let in what the lake holds as refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl
import xxhash

from rtml.algebra.family import ID64
from rtml.columns import TIMESTAMP
from rtml.define.checks import CHECKS
from rtml.define.column import Column
from rtml.instants import Duration, Instant, to_text
from rtml.projection import INGESTED_AT
from streaming.decode import Decoder, Failure, Reason
from streaming.entries import Entries

ARRIVED = "arrived"


class Contracted(Protocol):
    """What a gate has to know of a source: of one that is defined, or of one that is written down."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """The contract's columns."""

    @property
    def timestamp(self) -> str:
        """The column of event times."""

    @property
    def event_id(self) -> str | None:
        """The column that tells events apart."""

    @property
    def skew(self) -> str:
        """How far event time may run ahead of the broker's clock."""

    @property
    def skew_us(self) -> Duration:
        """The same in microseconds."""


Former = tuple[Instant, Contracted]
"""Up to when a contract was in force, by when entries arrived; and the source as it was with it."""


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

    def __init__(self, source: Contracted, former: Sequence[Former] = ()) -> None:
        """Compile the contract: types to msgspec, checks to Polars; and the `former` ones, the oldest first."""
        self._source = source
        self._decoder = Decoder(source.columns)
        self._rules = [rule for column in source.columns.values() for rule in _rules(column)]
        self._rules += _time_rules(source)
        self._passes = pl.all_horizontal([rule for rule, _ in self._rules])
        self._ends = [end for end, _ in former]
        self._former = [Gate(one) for _, one in former]

    def __call__(self, entries: Entries) -> Gated:
        """Return the accepted events and the refused ones."""
        gated = self._judge(entries)
        if not self._former or not len(entries) or min(entries.arrived) >= self._ends[-1]:
            return gated
        barred = self._refused_then(entries)
        if not barred:
            return gated
        now = {one.offset: one for one in gated.refused}
        kept = [offset not in barred for offset in entries.offsets if offset not in now]
        why = now | barred
        refused = [why[offset] for offset in entries.offsets if offset in why]
        return Gated(entries, gated.good.filter(pl.Series(kept, dtype=pl.Boolean)), refused)

    def _refused_then(self, entries: Entries) -> dict[str, Refused]:
        """Return by offset what was refused by the contract that was in force when it arrived."""
        rows: dict[int, list[int]] = {}
        for row, arrived in enumerate(entries.arrived):
            rows.setdefault(bisect_right(self._ends, arrived), []).append(row)
        rows.pop(len(self._ends), None)
        found = [
            one for number, some in rows.items() for one in self._former[number]._judge(_some(entries, some)).refused
        ]
        return {one.offset: one for one in found}

    def _judge(self, entries: Entries) -> Gated:
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


def _some(entries: Entries, rows: list[int]) -> Entries:
    return Entries(
        entries.partition,
        [entries.offsets[row] for row in rows],
        [entries.arrived[row] for row in rows],
        [entries.ingested_at[row] for row in rows],
        [entries.payloads[row] for row in rows],
    )


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


def _time_rules(source: Contracted) -> list[tuple[pl.Expr, Describe]]:
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
