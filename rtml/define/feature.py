"""Windowed aggregates, as a user writes them: `Mean("amount", windows=["1h", "24h"])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rtml.algebra import catalog
from rtml.algebra.family import Parameters
from rtml.define.naming import check_duration
from rtml.errors import DefinitionError
from rtml.instants import Duration

Tail = Literal["exact", "tile"]
TAILS = ("exact", "tile")


@dataclass(frozen=True)
class Window:
    """How far back a value looks: `[t − duration, t)`.

    `tail="exact"` keeps the left edge to the microsecond, `"tile"` floors it to the finest tile; the default is exact
    up to 24 hours.
    """

    duration: str
    tail: Tail | None = None

    @property
    def label(self) -> str:
        """How the window reads in a feature's name."""
        return self.duration


@dataclass(frozen=True)
class Aggregation:
    """One aggregate of one column over a list of windows: a feature for each window.

    `name` replaces `column_aggregate` in the features' names; the window stays.
    """

    aggregate: str
    column: str
    windows: Sequence[str | Window]
    name: str | None = None
    parameters: Parameters = ()

    @property
    def stem(self) -> str:
        """What stands before the window in a feature's name."""
        return self.name or (f"{self.column}_{self.aggregate}" if self.column else self.aggregate)

    def resolved(self, where: str) -> list[tuple[Window, Duration]]:
        """Return the windows with their lengths in microseconds.

        Raises:
            DefinitionError: there are none, or one cannot mean what it says.
        """
        catalog.aggregate(self.aggregate, self.parameters)
        parameter = f"{self.stem}: windows"
        if isinstance(self.windows, (str, Window)) or not self.windows:
            raise DefinitionError.at(where, parameter, "a list such as ['1h', '24h']", self.windows)
        windows = [window if isinstance(window, Window) else Window(window) for window in self.windows]
        for window in windows:
            if window.tail is not None and window.tail not in TAILS:
                raise DefinitionError.at(where, parameter, "windows with tail 'exact' or 'tile'", window.tail)
        return [(window, check_duration(where, parameter, window.duration)) for window in windows]


def Count(windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """How many events the window holds; 0 when it is empty."""
    return Aggregation("count", "", windows, name)


def Sum(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sum of the values; null when there are none."""
    return Aggregation("sum", column, windows, name)


def Mean(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The arithmetic mean of the values (of a boolean: the share that is true); null when there are none."""
    return Aggregation("mean", column, windows, name)


def Min(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The least value; null when there are none."""
    return Aggregation("min", column, windows, name)


def Max(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The greatest value; null when there are none."""
    return Aggregation("max", column, windows, name)


def Variance(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sample variance (`ddof=1`) of the values; null when there are fewer than two."""
    return Aggregation("variance", column, windows, name)


def Stddev(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sample standard deviation (`ddof=1`) of the values; null when there are fewer than two."""
    return Aggregation("stddev", column, windows, name)


def First(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The value of the earliest event that has one; null when there is none."""
    return Aggregation("first", column, windows, name)


def Last(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The value of the latest event that has one; null when there is none."""
    return Aggregation("last", column, windows, name)
