"""What an aggregate is made of: state families (monoids), and the aggregates that read them.

The vocabulary is that of Tangwongsan et al., "General Incremental Sliding-Window Aggregation" (VLDB 2015): `lift` an
event to a state, `combine` states, and turn a state into a value. `lower` is `lift` and `combine` of many events at
once, as Polars expressions, for history.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtml.lazy import pl

Array = NDArray[Any]
States = Mapping[str, Array]
"""State columns by name, all of one length: one row a state."""
Kind = Literal["f64", "i64", "str"]
"""How a value column is kept: 64-bit floats, 64-bit integers (booleans too), or the 64-bit hashes of strings."""

NUMPY_KIND: dict[Kind, str] = {"f64": "<f8", "i64": "<i8", "str": "<u8"}
RAGGED = "O"
"""The type of a state column whose entries are `bytes` of any length; its identity is `b""`."""
RAGGED_SIZE = 1024
"""About how many bytes such an entry takes in memory, where its family does not say."""
EVENT_TIME, ID64 = "event_time", "id64"
Identity = float | int | bytes


class Lane(NamedTuple):
    """One value column of a batch of events: the values, and which of them are not null."""

    values: Array
    valid: Array


class Events(NamedTuple):
    """Events as columns: `time` (int64 µs), `id64` (uint64), and a lane for each value column."""

    time: Array
    id64: Array
    lanes: Mapping[str, Lane]

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self.time)


class Values(NamedTuple):
    """What a model reads: one value a row, and which rows have one.

    Of a list, `values` has a second axis of the output's width, and `lengths` says how many of a row's places count.
    Strings are their hashes.
    """

    values: Array
    valid: Array
    lengths: Array | None = None


class Output(NamedTuple):
    """The type of a feature's values: a scalar, or with a `width` a list of at most so many."""

    kind: Kind
    width: int = 0

    def room(self, length: int) -> Values:
        """Return room for so many values, none of them there yet."""
        shape = (length, self.width) if self.width else length
        lengths = np.zeros(length, dtype=np.int64) if self.width else None
        return Values(np.zeros(shape, dtype=NUMPY_KIND[self.kind]), np.zeros(length, dtype=bool), lengths)


class Span(NamedTuple):
    """The windows `[start, end)` that states stand for, in int64 µs: an edge for each row, or one for all."""

    start: Array | int
    end: Array | int


@dataclass(frozen=True)
class Family(ABC):
    """A monoid over states of one value column.

    A family owns some state columns and may read those of the families it `needs`; they are always combined together.
    """

    column: str
    kind: Kind

    code: ClassVar[str]
    heavy: ClassVar[bool] = False
    """Whether its states are so large (a sketch) that the stream does not write them with every event."""

    @property
    def needs(self) -> tuple[Family, ...]:
        """Families whose state columns this one reads."""
        return ()

    @property
    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The state columns it owns: name → numpy type, little endian, or `RAGGED`."""

    @property
    @abstractmethod
    def empty(self) -> dict[str, Identity]:
        """The identity: the state of no events."""

    @abstractmethod
    def lower(self) -> list[pl.Expr]:
        """Events → state columns, for one `group_by().agg(...)`; null values are skipped."""

    @abstractmethod
    def lift(self, events: Events) -> dict[str, Array]:
        """Each event → a state of its own; a null value gives the identity."""

    @abstractmethod
    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Many states → one a group. Groups are runs that begin at `starts`; the inputs are never changed."""

    @property
    def bulk(self) -> int:
        """About how many bytes the ragged columns of a state take in memory."""
        return RAGGED_SIZE * sum(kind == RAGGED for kind in self.columns.values())

    def _named(self, part: str) -> str:
        return f"{self.column}.{part}"


Parameter = int | float | str | tuple[float, ...]
Parameters = tuple[tuple[str, Parameter], ...]
"""An aggregate's parameters by name, as a plan carries them."""


def label(aggregate: str, parameters: Parameters) -> str:
    """Return how an aggregate reads in a feature's name: `last_5` is `last_n` with n = 5."""
    if aggregate == "custom":
        return str(dict(parameters)["called"])
    return f"{aggregate[:-1]}{dict(parameters).get('n', 'n')}" if aggregate.endswith("_n") else aggregate


def formula(aggregate: str, column: str, parameters: Parameters) -> str:
    """Return an aggregate of a column in words: `last_n(amount, n=5)`; different meanings read differently."""
    if aggregate == "custom":
        aggregate, parameters = str(dict(parameters)["called"]), parameters[1:2]  # its version
    given = [*([column] if column else []), *(f"{name}={value}" for name, value in parameters)]
    return f"{aggregate}({', '.join(given)})" if given else aggregate


@dataclass(frozen=True)
class Aggregate(ABC):
    """A value computed from states: its name, what it needs, and `finalize`. Its fields are its parameters."""

    name: ClassVar[str]
    takes_column: ClassVar[bool] = True
    takes_number: ClassVar[bool] = True
    takes_boolean: ClassVar[bool] = False
    takes_string: ClassVar[bool] = False
    takes_lifetime: ClassVar[bool] = True
    """Whether it means anything of a window without a left edge."""
    commutative: ClassVar[bool] = True
    """Whether the states of a group may be combined in any order."""

    @abstractmethod
    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The families whose states `finalize` reads."""

    def output(self, kind: Kind) -> Output:
        """The type of the value, from the type of the column."""
        del kind
        return Output("f64")

    def bound(self, kind: Kind) -> str | None:
        """By how much the value may be off, in words; `None` where it is exact."""
        del kind
        return None

    @abstractmethod
    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """States and the windows that they stand for → values; an empty window gives the documented value."""


def with_needs(families: tuple[Family, ...]) -> tuple[Family, ...]:
    """Return the families and all that they need, each once, needed ones first."""
    ordered: dict[Family, None] = {}
    for family in families:
        for needed in with_needs(family.needs):
            ordered.setdefault(needed)
        ordered.setdefault(family)
    return tuple(ordered)


def repeat_groups(starts: Array, length: int) -> Array:
    """Return each row's group number, for groups that begin at `starts`."""
    group = np.zeros(length, dtype=np.int64)
    group[starts[1:]] = 1
    return np.cumsum(group)
