"""Where events come from: a stream, its contract, and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import polars as pl

from rtml.columns import SPINE_TIME
from rtml.define.column import Column
from rtml.define.contract import read_contract
from rtml.define.expectation import Expect, Expectation, resolve_quality
from rtml.define.naming import check_duration, check_name, check_owners, check_type
from rtml.define.sla import SLA, check_sla
from rtml.define.stream import RedisStream
from rtml.errors import DefinitionError, UnknownNameError, near_miss
from rtml.instants import Duration

Compatibility = Literal["backward", "forward", "full", "none"]
COMPATIBILITIES: tuple[Compatibility, ...] = ("backward", "forward", "full", "none")
KEY_WORDS = {"str": "a string", "int": "an integer", "bool": "a boolean"}
"""The types of join keys in words."""


@dataclass(frozen=True, eq=False)
class EventSource:
    """An event stream and its history.

    Args:
        name: its name, also that of its tables in the lake.
        schema: the contract, a subclass of `rtml.Event`.
        timestamp: the contract's column of event times.
        event_id: the column that tells events apart; without one, an event is its place in the stream.
        stream: where events arrive.
        lateness: how long after its event time an event still counts online at once.
        skew: how far event time may run ahead of the broker's clock.
        compatibility: which changes the contract may go through once events flow: `"backward"` (what was accepted stays
            accepted), `"forward"` (who reads by the former contract goes on), `"full"` (both) or `"none"`.
        starts, ends: first and last day of its history, in event time, UTC; no end means today. Events of other days
            are streamed and mirrored, but not compacted, and compaction warns of them.
        sla: what is promised of it: freshness, lag, heartbeat, late, duplicates, refused, nulls by column.
        quality: what is expected of every day of its events, before that day is built.

    Raises:
        DefinitionError: a parameter cannot mean what it says.
    """

    name: str
    schema: type[Any]
    timestamp: str
    stream: RedisStream
    event_id: str | None = None
    lateness: str = "15m"
    skew: str = "1m"
    compatibility: Compatibility = "backward"
    starts: str | date = "2000-01-01"
    ends: str | date | None = None
    quality: Sequence[Expect] = ()
    description: str = ""
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    sla: SLA | None = None

    def __post_init__(self) -> None:
        """Validate all parameters at once."""
        where = check_name("source", self.name)
        columns = read_contract(where, self.schema)
        check_type(where, "stream", self.stream, RedisStream, "a RedisStream")
        self._check_columns(where, columns)
        check_owners(where, self.owners)
        if self.compatibility not in COMPATIBILITIES:
            expected = f"one of {', '.join(COMPATIBILITIES)}"
            raise DefinitionError.at(where, "compatibility", expected, self.compatibility)
        check_sla(where, "source", self.sla, columns)
        derived = {
            "where": where,
            "columns": columns,
            "lateness_us": check_duration(where, "lateness", self.lateness, zero=True),
            "expectations": resolve_quality(where, self.quality, {name: one.dtype for name, one in columns.items()}),
            "skew_us": check_duration(where, "skew", self.skew, zero=True),
            "first_day": _day(where, "starts", self.starts),
            "last_day": None if self.ends is None else _day(where, "ends", self.ends),
        }
        self.__dict__.update(derived)
        if self.last_day is not None and self.last_day < self.first_day:
            raise DefinitionError(f"{where}: ends ({self.last_day}) is before starts ({self.first_day})")

    # Set by __post_init__; not parameters.
    where: str = field(init=False, repr=False, compare=False, default="")
    columns: dict[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)
    expectations: tuple[Expectation, ...] = field(init=False, repr=False, compare=False, default=())
    lateness_us: Duration = field(init=False, repr=False, compare=False, default=0)
    skew_us: Duration = field(init=False, repr=False, compare=False, default=0)
    first_day: date = field(init=False, repr=False, compare=False, default=date.min)
    last_day: date | None = field(init=False, repr=False, compare=False, default=None)

    def _check_columns(self, where: str, columns: dict[str, Column]) -> None:
        for parameter, name in (("timestamp", self.timestamp), ("event_id", self.event_id)):
            if name is not None and name not in columns:
                raise DefinitionError(
                    f"{where}: {parameter}: the contract has no column {name!r}.{near_miss(name, columns)}"
                )
        time = columns[self.timestamp]
        if not time.is_timestamp or time.nullable:
            raise DefinitionError.at(where, f"timestamp {self.timestamp!r}", "a non-null rtml.Timestamp", time.dtype)
        if self.event_id is not None:
            column = columns[self.event_id]
            if column.nullable or not (column.is_integer or column.dtype == pl.String):
                raise DefinitionError.at(
                    where, f"event_id {self.event_id!r}", "a non-null string or integer", column.dtype
                )

    def column(self, name: str, where: str) -> Column:
        """Return a column of the contract, or an error that names the nearest one."""
        try:
            return self.columns[name]
        except KeyError:
            raise UnknownNameError.of("column", name, self.columns, f"source {self.name!r}, asked by {where}") from None

    def key_kind(self, name: str, where: str, asker: str) -> str:
        """Return the type of a join key: `str`, `int` or `bool`.

        Raises:
            UnknownNameError: the contract has no such column; `asker` is who asked.
            DefinitionError: the column may be null, is of another type, or has a name that rows of instants need.
        """
        if name == SPINE_TIME:
            raise DefinitionError(f"{where}: a join key may not be called {name!r}: that is a row's instant")
        column = self.column(name, asker)
        if column.nullable or column.is_float or column.is_timestamp:
            got = f"{'nullable ' if column.nullable else ''}{column.dtype}"
            raise DefinitionError.at(where, f"join key {name!r}", "a non-null string, integer or boolean", got)
        return "str" if column.dtype == pl.String else "bool" if column.dtype == pl.Boolean else "int"

    @property
    def frame_schema(self) -> dict[str, pl.DataType]:
        """The Polars schema of the contract's columns."""
        return {name: column.dtype for name, column in self.columns.items()}


def _day(where: str, parameter: str, value: str | date) -> date:
    try:
        return value if isinstance(value, date) else date.fromisoformat(value)
    except (TypeError, ValueError):
        raise DefinitionError.at(where, parameter, "a day like '2013-01-31'", value) from None
