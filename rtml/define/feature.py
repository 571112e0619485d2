"""Windowed aggregates, as a user writes them: `Mean("amount", windows=["1h", "24h"])`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rtml import tiles
from rtml.algebra import catalog
from rtml.algebra.family import Parameters, label
from rtml.define.naming import check_duration, check_list
from rtml.errors import DefinitionError, InstantError
from rtml.instants import HOUR, LONGEST_DURATION, format_duration, parse_duration

Tail = Literal["exact", "tile"]
TAILS = ("exact", "tile")
EXACT_UP_TO = 24 * HOUR
"""The longest window whose tail is exact unless told otherwise."""
LIFETIME_WORD = "lifetime"
LONGEST_WINDOW = LONGEST_DURATION // 2
"""Longer ones would have begun before 1970 for most instants, and could not be asked for."""


@dataclass(frozen=True)
class Window:
    """How far back a value looks: `[t − duration, t)`; with an offset `[t − offset − duration, t − offset)`.

    `tail="exact"` keeps the left edge to the microsecond, `"tile"` floors it to the finest tile; the default is exact
    up to 24 hours. An offset window floors both edges. `"lifetime"` has no left edge: all that is on record.
    """

    duration: str
    tail: Tail | None = None
    offset: str | None = None

    @staticmethod
    def lifetime() -> Window:
        """Return the window without a left edge; `"lifetime"` in a list of windows means the same."""
        return Window(LIFETIME_WORD)

    @property
    def label(self) -> str:
        """How the window reads in a feature's name."""
        return self.duration if self.offset is None else f"{self.duration}_offset_{self.offset}"

    def resolved(self, where: str, parameter: str, tail: Tail | None) -> tiles.Window:
        """Return the window in microseconds; `tail` is the view's.

        Raises:
            DefinitionError: it cannot mean what it says.
        """
        if self.tail is not None and self.tail not in TAILS:
            raise DefinitionError.at(where, parameter, "windows with tail 'exact' or 'tile'", self.tail)
        if self.duration == LIFETIME_WORD:
            if self.offset is not None or self.tail is not None:
                words = "a lifetime window without offset= and tail=: it ends at the instant, and has no left edge"
                raise DefinitionError.at(where, parameter, words, self)
            return tiles.Window(tiles.LIFETIME, exact=True)
        length = check_duration(where, parameter, self.duration)
        offset = 0 if self.offset is None else check_duration(where, f"{parameter}: offset", self.offset)
        if length + offset > LONGEST_WINDOW:
            words = f"windows of {format_duration(LONGEST_WINDOW)} at most, offset included ('lifetime' has no edge)"
            raise DefinitionError.at(where, parameter, words, self.label)
        chosen = self.tail or tail
        if offset and chosen == "exact":
            words = f"tail='tile' for {self.label!r}: an offset window floors both edges to the finest tile"
            raise DefinitionError.at(where, parameter, words, chosen)
        exact = chosen == "exact" or (chosen is None and not offset and length <= EXACT_UP_TO)
        return tiles.Window(length, exact, offset)


@dataclass(frozen=True)
class Aggregation:
    """One aggregate of one column over a list of windows: a feature for each window.

    `name` replaces `column_aggregate` in the features' names; the window stays. A list's length is in its name
    (`amount_last_5_24h`); other parameters are not: of two that differ in these alone, one must be given a name.
    """

    aggregate: str
    column: str
    windows: Sequence[str | Window]
    name: str | None = None
    parameters: Parameters = ()

    @property
    def stem(self) -> str:
        """What stands before the window in a feature's name."""
        what = label(self.aggregate, self.parameters)
        if self.name is not None:
            return self.name
        return f"{self.column}_{what}" if self.column else what

    def resolved(self, where: str, tail: Tail | None = None) -> list[tuple[Window, tiles.Window]]:
        """Return the windows, each with what it means in microseconds; `tail` is the view's.

        Raises:
            DefinitionError: there are none, or one cannot mean what it says.
        """
        parameter = f"{self.stem}: windows"
        words = "a list such as ['1h', '24h']"
        if not check_list(where, parameter, self.windows, words):
            raise DefinitionError.at(where, parameter, words, self.windows)
        windows = [window if isinstance(window, Window) else Window(window) for window in self.windows]
        found = [(window, window.resolved(where, parameter, tail)) for window in windows]
        if any(meant.lifetime for _, meant in found) and not self._takes_lifetime:
            raise DefinitionError.at(
                where, parameter, f"windows with a left edge for {self.aggregate!r}", LIFETIME_WORD
            )
        return found

    @property
    def _takes_lifetime(self) -> bool:
        return catalog.aggregate(self.aggregate, self.parameters).takes_lifetime


def Count(windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """How many events the window holds; 0 when it is empty."""
    return Aggregation("count", "", windows, name)


def Sum(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sum of the values; null when there are none."""
    return Aggregation("sum", column, windows, name)


def Mean(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The arithmetic mean of the values (of a boolean: the share that is true); null when there are none."""
    return Aggregation("mean", column, windows, name)


def Share(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The share of events, of those with a value, for which a boolean is true; null when there are none."""
    return Aggregation("share", column, windows, name)


def Rate(windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """Events per second of the window, over its actual length; 0 when it is empty."""
    return Aggregation("rate", "", windows, name)


def SumRate(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sum of the values per second of the window, over its actual length; null when there are none."""
    return Aggregation("sum_rate", column, windows, name)


def Min(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The least value; null when there are none."""
    return Aggregation("min", column, windows, name)


def Max(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The greatest value; null when there are none."""
    return Aggregation("max", column, windows, name)


def Variance(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sample variance (`ddof=1`) of the values; null when there are fewer than two."""
    return Aggregation("variance", column, windows, name)


def Skew(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The skewness of the sample (adjusted, as pandas' `skew`); null below three values, or where all are the same."""
    return Aggregation("skew", column, windows, name)


def Kurtosis(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The excess kurtosis of the sample (adjusted, as pandas' `kurt`); null below four, or where all are the same."""
    return Aggregation("kurtosis", column, windows, name)


def Stddev(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sample standard deviation (`ddof=1`) of the values; null when there are fewer than two."""
    return Aggregation("stddev", column, windows, name)


def First(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The value of the earliest event that has one; null when there is none."""
    return Aggregation("first", column, windows, name)


def Last(column: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The value of the latest event that has one; null when there is none."""
    return Aggregation("last", column, windows, name)


def CountDistinct(
    column: str, windows: Sequence[str | Window], name: str | None = None, *, bound: int = 1000
) -> Aggregation:
    """How many different values there are: exact below `bound`, which itself means as many or more; 0 of none."""
    return Aggregation("count_distinct", column, windows, name, (("most", bound),))


def ApproxCountDistinct(
    column: str, windows: Sequence[str | Window], name: str | None = None, *, lg_k: int = 12
) -> Aggregation:
    """About how many different values there are, by a sketch of `2 ** lg_k` registers; 0 of none.

    Exact up to `2 ** lg_k / 16`; beyond, with a standard error of 1.04 / √(2 ** lg_k): 1.6 % by default.
    """
    return Aggregation("approx_count_distinct", column, windows, name, (("lg_k", lg_k),))


def ApproxPercentile(
    column: str, q: float, windows: Sequence[str | Window], name: str | None = None, *, k: int = 200
) -> Aggregation:
    """About the least value that a share `q` of all values does not exceed; null when there are none.

    Exact up to `k` values; beyond, its rank is off by at most 1.33 % of their number (at k = 200) in 99 of 100 answers.
    The feature is called `column_p95_window`.
    """
    called = _percentile(column, q) if name is None else name
    return Aggregation("approx_percentile", column, windows, called, (("k", k), ("q", _numbers(q))))


def ApproxPercentiles(
    column: str, qs: Sequence[float], windows: Sequence[str | Window], name: str | None = None, *, k: int = 200
) -> Aggregation:
    """Several percentiles as one list, in the order of `qs`; null when there are no values."""
    return Aggregation("approx_percentiles", column, windows, name, (("k", k), ("qs", _numbers(qs))))


def ApproxTopK(
    column: str, k: int, windows: Sequence[str | Window], name: str | None = None, *, counters: int = 0
) -> Aggregation:
    """The `k` most frequent values, most frequent first, of equals the lesser one; an empty list of none.

    Exact up to as many different values as there are `counters`, by default 16 · k and 128 at least; beyond, a count is
    short by at most one in `counters` of all values.
    """
    return Aggregation("approx_top_k", column, windows, name, (("counters", counters), ("k", k)))


def Histogram(
    column: str, edges: Sequence[float], windows: Sequence[str | Window], name: str | None = None
) -> Aggregation:
    """How many values lie below the first edge, in each `[edge, next edge)`, and from the last on: a list, exact."""
    return Aggregation("histogram", column, windows, name, (("edges", _numbers(edges)),))


def _numbers(given: Any) -> Any:
    """Return what a plan can carry, all numbers as floats; what is none is left for the aggregate to refuse."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(given, (list, tuple, range)):
        return tuple(_numbers(one) for one in given)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return float(given)
    return given if isinstance(given, Hashable) else repr(given)


def _percentile(column: str, q: object) -> str | None:
    """Return `column_p99_9` for 0.999."""
    if isinstance(q, bool) or not isinstance(q, (int, float)):
        return None
    return f"{column}_p{q * 100:.10g}".replace(".", "_")


def FirstN(column: str, n: int, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The values of the first `n` events that have one, oldest first; an empty list when there are none."""
    return Aggregation("first_n", column, windows, name, (("n", n),))


def LastN(column: str, n: int, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The values of the last `n` events that have one, newest first; an empty list when there are none."""
    return Aggregation("last_n", column, windows, name, (("n", n),))


def LastDistinctN(column: str, n: int, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The last `n` different values, newest first, each once; an empty list when there are none."""
    return Aggregation("last_distinct_n", column, windows, name, (("n", n),))


def DecayedCount(half_life: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """How many events there were, each halved with every half-life of its age; 0 when there are none."""
    return Aggregation("decayed_count", "", windows, name, _half_life(half_life))


def DecayedSum(column: str, half_life: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The sum of the values, each halved with every half-life of its age; null when there are none."""
    return Aggregation("decayed_sum", column, windows, name, _half_life(half_life))


def DecayedMean(column: str, half_life: str, windows: Sequence[str | Window], name: str | None = None) -> Aggregation:
    """The mean of the values, in which one counts half as much as one a half-life newer; null when there are none."""
    return Aggregation("decayed_mean", column, windows, name, _half_life(half_life))


def _half_life(text: str) -> Parameters:
    """Return the parameter as every other way to write the same duration has it."""
    try:
        return (("half_life", format_duration(parse_duration(text))),)
    except InstantError:
        return (("half_life", text),)  # refused where the view is known
