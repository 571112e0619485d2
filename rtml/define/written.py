"""A contract written down: canonical JSON with a hash, and back to a model that a source can be made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import msgspec
import polars as pl

from rtml.columns import TIMESTAMP
from rtml.define.column import Column
from rtml.define.stream import RedisStream
from rtml.errors import DefinitionError
from rtml.instants import Duration, parse_duration, to_datetime, to_instant

if TYPE_CHECKING:
    from rtml.define.contract import Event
    from rtml.define.source import EventSource

_TIMESTAMP = "Timestamp"
_TYPES: dict[str, pl.DataType] = {
    _TIMESTAMP: TIMESTAMP,
    **{str(kind): kind() for kind in (pl.String, pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64)},
    **{str(kind): kind() for kind in (pl.Float32, pl.Float64)},
}
_FIELD_WORDS = {
    "equal_to": "eq",
    "not_equal_to": "ne",
    "greater_than": "gt",
    "greater_than_or_equal_to": "ge",
    "less_than": "lt",
    "less_than_or_equal_to": "le",
}
"""The checks of one argument, and what `rtml.Field` calls them."""
_INSTANT = "instant"


class WrittenColumn(msgspec.Struct, frozen=True):
    """One column of a contract as JSON has it; an instant among its checks' arguments is `{"instant": µs}`."""

    name: str
    type: str
    nullable: bool
    checks: tuple[tuple[str, dict[str, Any]], ...] = ()

    @staticmethod
    def of(where: str, column: Column) -> WrittenColumn:
        """Write down a column; the order of its checks means nothing.

        Raises:
            DefinitionError: an argument of a check has no JSON.
        """
        checks = [
            (name, {key: _plain(f"{where}: column {column.name!r}: {name}", value) for key, value in given.items()})
            for name, given in column.checks
        ]
        ordered = tuple(sorted(checks, key=msgspec.json.encode))
        return WrittenColumn(column.name, type_word(column.dtype), column.nullable, ordered)

    @property
    def column(self) -> Column:
        """The column itself."""
        checks = tuple((name, {key: _value(value) for key, value in given.items()}) for name, given in self.checks)
        return Column(self.name, _TYPES[self.type], self.nullable, checks)


class Contract(msgspec.Struct, frozen=True, dict=True):
    """What a source asks of its events: the columns, by name, and which are the event's time and id."""

    columns: tuple[WrittenColumn, ...]
    timestamp: str
    event_id: str | None

    @staticmethod
    def of(source: EventSource) -> Contract:
        """Write down a source's contract."""
        columns = [WrittenColumn.of(source.where, column) for column in source.columns.values()]
        return Contract(tuple(sorted(columns, key=lambda column: column.name)), source.timestamp, source.event_id)

    @staticmethod
    def decode(text: str | bytes) -> Contract:
        """Return the contract that `encode` wrote."""
        return msgspec.json.decode(text, type=Contract)

    def encode(self) -> bytes:
        """Return the contract as canonical JSON: two that ask the same are the same bytes."""
        return msgspec.json.encode(self, order="deterministic")

    @cached_property
    def hash(self) -> str:
        """12 hex digits that change when, and only when, the contract does."""
        return blake2b(self.encode(), digest_size=6).hexdigest()

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns, by name."""
        return {written.name: written.column for written in self.columns}

    def model(self) -> type[Event]:
        """Return a pandera model that asks the same."""
        # They load pandera, which who only reads what is written does without.
        import pandera.polars as pa  # noqa: PLC0415

        from rtml.define.contract import Event, Timestamp  # noqa: PLC0415

        types = {
            name: Timestamp if column.is_timestamp else type(column.dtype) for name, column in self.by_name.items()
        }
        fields = {name: pa.Field(nullable=column.nullable, **_words(column)) for name, column in self.by_name.items()}
        return type("Written", (Event,), {"__annotations__": types, "__module__": __name__, **fields})


class Kept(msgspec.Struct, frozen=True):
    """All that a flow has to know of a source, so that it can go on without the definition."""

    name: str
    contract: Contract
    stream: str
    partitions: int
    lateness: str
    skew: str
    starts: str
    ends: str | None
    key: tuple[str, ...] = ()
    """The columns whose values choose an event's partition."""

    @classmethod
    def of(cls, source: EventSource, key: tuple[str, ...] = ()) -> Self:
        """Write down a source, and what its partitions are chosen by."""
        ends = None if source.last_day is None else source.last_day.isoformat()
        stream = source.stream
        days = (source.first_day.isoformat(), ends)
        return cls(
            source.name, Contract.of(source), stream.name, stream.partitions, source.lateness, source.skew, *days, key
        )

    def source(self, contract: Contract | None = None) -> EventSource:
        """Return the source that was written down, or what it is with another contract."""
        from rtml.define.source import EventSource  # noqa: PLC0415

        contract = contract or self.contract
        return EventSource(
            name=self.name,
            schema=contract.model(),
            timestamp=contract.timestamp,
            event_id=contract.event_id,
            stream=self.redis_stream,
            lateness=self.lateness,
            skew=self.skew,
            starts=self.starts,
            ends=self.ends,
        )

    @property
    def redis_stream(self) -> RedisStream:
        """Where events arrive."""
        return RedisStream(self.stream, self.partitions)

    @property
    def columns(self) -> dict[str, Column]:
        """The contract's columns, by name."""
        return self.contract.by_name

    @property
    def timestamp(self) -> str:
        """The column of event times."""
        return self.contract.timestamp

    @property
    def event_id(self) -> str | None:
        """The column that tells events apart."""
        return self.contract.event_id

    @property
    def lateness_us(self) -> Duration:
        """How long after its event time an event counts online at once."""
        return parse_duration(self.lateness)

    @property
    def skew_us(self) -> Duration:
        """How far event time may run ahead of the broker's clock."""
        return parse_duration(self.skew)


def type_word(dtype: pl.DataType) -> str:
    """Return what a column's type is called."""
    return _TIMESTAMP if dtype == TIMESTAMP else str(dtype)


def _words(column: Column) -> dict[str, Any]:
    """Return a column's checks as arguments of `rtml.Field`."""
    words: dict[str, Any] = {}
    for name, given in column.checks:
        if name in _FIELD_WORDS or name in ("isin", "notin", "str_contains", "str_matches"):
            (words[_FIELD_WORDS.get(name, name)],) = given.values()
        elif name in ("str_startswith", "str_endswith"):
            words[name] = given["string"]
        else:
            words[name] = {key: value for key, value in given.items() if value is not None}
    return words


def _plain(where: str, value: object) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, datetime):
        return {_INSTANT: to_instant(value if value.tzinfo else value.replace(tzinfo=UTC))}
    if isinstance(value, Mapping):
        return {str(key): _plain(where, inner) for key, inner in value.items()}
    if isinstance(value, Collection):
        return sorted((_plain(where, inner) for inner in value), key=msgspec.json.encode)
    if isinstance(pattern := getattr(value, "pattern", None), str):
        return pattern
    if callable(item := getattr(value, "item", None)):  # a number of numpy's
        return _plain(where, item())
    raise DefinitionError.at(where, "an argument", "numbers, strings, booleans, instants or lists of them", value)


def _value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {_INSTANT}:
        return to_datetime(value[_INSTANT])
    return [_value(inner) for inner in value] if isinstance(value, list) else value
