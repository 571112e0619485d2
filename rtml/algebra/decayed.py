"""Decayed sums: each event counts for 2^(−age / half_life), its age measured at the window's end.

A state is a sum weighed at the instant of its newest value, so that no weight is above 1 and nothing overflows; states
are moved to the newest instant of their group before they are added (forward decay, Cormode et al., "Forward Decay: A
Practical Time Decay Model for Streaming Systems", ICDE 2009, with the landmark moving along). What is more than some
thousand half-lives older than the newest value weighs less than the least float, and counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from rtml.algebra.counting import Tally
from rtml.algebra.family import (
    EVENT_TIME,
    Aggregate,
    Array,
    Events,
    Family,
    Identity,
    Kind,
    Span,
    States,
    Values,
    repeat_groups,
)
from rtml.errors import DefinitionError, InstantError
from rtml.instants import BEGINNING, Duration, format_duration, parse_duration
from rtml.lazy import pl

HALF_LIFE = "1h"


@dataclass(frozen=True)
class Newest(Family):
    """The time of the newest event that has a value; without a column, of the newest event."""

    code: ClassVar[str] = "newest"

    @property
    def columns(self) -> dict[str, str]:
        """An instant."""
        return {newest(self.column): "<i8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """Before all others."""
        return {newest(self.column): BEGINNING}

    def lower(self) -> list[pl.Expr]:
        """The greatest time."""
        return [_times(self.column).max().fill_null(BEGINNING).alias(newest(self.column))]

    def lift(self, events: Events) -> dict[str, Array]:
        """The event's own."""
        return {newest(self.column): np.where(_present(self.column, events), events.time, BEGINNING)}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Keep the newest."""
        return {newest(self.column): np.maximum.reduceat(states[newest(self.column)], starts)}


@dataclass(frozen=True)
class Decayed(Family):
    """A sum of numbers, each weighed by its age at the newest one."""

    half_life: Duration

    @property
    def needs(self) -> tuple[Family, ...]:
        """The instant at which the sum is weighed."""
        return (Newest(self.column, self.kind),)

    @property
    def part(self) -> str:
        """The state column."""
        return f"{self.column or 'rows'}.{self.code}_{format_duration(self.half_life)}"

    @property
    def columns(self) -> dict[str, str]:
        """One float."""
        return {self.part: "<f8"}

    @property
    def empty(self) -> dict[str, Identity]:
        """Nothing."""
        return {self.part: 0.0}

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Move each sum to the newest instant of its group, and add."""
        at = states[newest(self.column)]
        group = repeat_groups(starts, len(at))
        moved = states[self.part] * decay(np.maximum.reduceat(at, starts)[group], at, self.half_life)
        return {self.part: np.add.reduceat(moved, starts)}


@dataclass(frozen=True)
class DecayedTotal(Decayed):
    """The weighed sum of values."""

    code: ClassVar[str] = "decayed_sum"

    def lower(self) -> list[pl.Expr]:
        """Weigh, and sum."""
        return [(pl.col(self.column) * _weights(self)).sum().alias(self.part)]

    def lift(self, events: Events) -> dict[str, Array]:
        """The value, at its own instant."""
        values, valid = events.lanes[self.column]
        return {self.part: np.where(valid, values, 0).astype(np.float64)}


@dataclass(frozen=True)
class DecayedWeight(Decayed):
    """The sum of the weights alone."""

    code: ClassVar[str] = "decayed_n"

    def lower(self) -> list[pl.Expr]:
        """Weigh."""
        return [_weights(self).sum().alias(self.part)]

    def lift(self, events: Events) -> dict[str, Array]:
        """One, at its own instant."""
        return {self.part: _present(self.column, events).astype(np.float64)}


def newest(column: str) -> str:
    """Return the name of the state column with a column's newest instant."""
    return f"{column or 'rows'}.newest"


def decay(at: Array | int, then: Array, half_life: Duration) -> Array:
    """Return what is left at one instant of what was whole at another: 1 of what was never there."""
    there = then != BEGINNING
    age = np.where(there, at - np.where(there, then, at), 0)
    return np.exp2(-age / half_life)


def _times(column: str) -> pl.Expr:
    time = pl.col(EVENT_TIME)
    return time.filter(pl.col(column).is_not_null()) if column else time


def _weights(family: Decayed) -> pl.Expr:
    """Return each event's weight at the newest value; of an event without a value null."""
    time = pl.col(EVENT_TIME)
    kept = pl.when(pl.col(family.column).is_not_null()).then(time) if family.column else time
    return pl.lit(2.0).pow((kept - kept.max()).cast(pl.Float64) / family.half_life)


def _present(column: str, events: Events) -> Array:
    return events.lanes[column].valid if column else np.ones(len(events), dtype=bool)


@dataclass(frozen=True)
class DecayedSum(Aggregate):
    """The sum of the values, each halved with every half-life of its age at the window's end; null without values."""

    name = "decayed_sum"
    takes_boolean = True

    half_life: str = HALF_LIFE

    def __post_init__(self) -> None:
        """Refuse a half-life that is no duration."""
        try:
            parse_duration(self.half_life)
        except InstantError as error:
            raise DefinitionError(f"{self.name}: half_life: {error}") from None

    @cached_property
    def _duration(self) -> Duration:
        return parse_duration(self.half_life)

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The weighed sum, and whether there is a value."""
        return (Tally(column, kind), DecayedTotal(column, kind, self._duration))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Move the sum to the window's end."""
        total = DecayedTotal(column, kind, self._duration).part
        left = decay(np.asarray(span.end), states[newest(column)], self._duration)
        return Values(states[total] * left, states[f"{column}.n"] > 0)


@dataclass(frozen=True)
class DecayedMean(DecayedSum):
    """The mean of the values, weighed by their age: a value counts half as much as one a half-life newer."""

    name = "decayed_mean"

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """Both sums."""
        return (DecayedTotal(column, kind, self._duration), DecayedWeight(column, kind, self._duration))

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Divide, at the instant of the newest value: there its own weight is 1, so nothing vanishes."""
        del span
        weight = states[DecayedWeight(column, kind, self._duration).part]
        total = states[DecayedTotal(column, kind, self._duration).part]
        valid = weight > 0
        return Values(total / np.where(valid, weight, 1.0), valid)


@dataclass(frozen=True)
class DecayedCount(DecayedSum):
    """How many events there were, each halved with every half-life of its age at the window's end; 0 without any."""

    name = "decayed_count"
    takes_column = False

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The weights."""
        del column, kind
        return (DecayedWeight("", "i64", self._duration),)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Move the weights to the window's end."""
        del column, kind
        weight = states[DecayedWeight("", "i64", self._duration).part]
        left = decay(np.asarray(span.end), states[newest("")], self._duration)
        return Values(weight * left, np.ones(len(weight), dtype=bool))
