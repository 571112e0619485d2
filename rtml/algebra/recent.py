"""Recency: the first and the last value, by event time; ties go by the event id's hash (I7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtml.algebra.family import (
    EVENT_TIME,
    ID64,
    NUMPY_KIND,
    Aggregate,
    Array,
    Events,
    Family,
    Identity,
    Kind,
    Output,
    Span,
    States,
    Values,
    repeat_groups,
)
from rtml.lazy import pl

_NEVER: dict[str, tuple[int, int]] = {"first": (2**63 - 1, 2**64 - 1), "last": (-(2**63), 0)}


@dataclass(frozen=True)
class Recent(Family):
    """The value at one end of the order (event time, id64), with its place in that order."""

    @property
    def columns(self) -> dict[str, str]:
        """When, which, and the value."""
        return {
            self._named(f"{self.code}_time"): "<i8",
            self._named(f"{self.code}_id64"): "<u8",
            self._named(self.code): NUMPY_KIND[self.kind],
        }

    @property
    def empty(self) -> dict[str, Identity]:
        """A place beyond all others."""
        return dict(zip(self.columns, (*_NEVER[self.code], 0), strict=True))

    def lower(self) -> list[pl.Expr]:
        """Sort what has a value, and take its end."""
        present = pl.col(self.column).is_not_null()
        descending = self.code == "last"
        parts = (pl.col(EVENT_TIME), pl.col(ID64), pl.col(self.column))
        order = [pl.col(EVENT_TIME).filter(present), pl.col(ID64).filter(present)]
        return [
            part.filter(present)
            .sort_by(order, descending=descending)
            .first()
            .fill_null(pl.lit(identity, dtype=pl.UInt64 if part.meta.output_name() == ID64 else None))
            .alias(name)
            for part, (name, identity) in zip(parts, self.empty.items(), strict=True)
        ]

    def lift(self, events: Events) -> dict[str, Array]:
        """The event's own place and value."""
        values, valid = events.lanes[self.column]
        time, id64, _ = self.columns
        return {
            time: np.where(valid, events.time, _NEVER[self.code][0]),
            id64: np.where(valid, events.id64, np.uint64(_NEVER[self.code][1])),
            self._named(self.code): np.where(valid, values, 0),
        }

    def combine(self, states: States, starts: Array) -> dict[str, Array]:
        """Keep the outermost place."""
        time, id64, value = self.columns
        group = repeat_groups(starts, len(states[time]))
        order = np.lexsort((states[id64], states[time], group))
        ends = starts if self.code == "first" else np.append(starts[1:], len(group)) - 1
        chosen = order[ends]
        return {name: states[name][chosen] for name in (time, id64, value)}


@dataclass(frozen=True)
class Earliest(Recent):
    """The first value."""

    code: ClassVar[str] = "first"


@dataclass(frozen=True)
class Latest(Recent):
    """The last value."""

    code: ClassVar[str] = "last"


class First(Aggregate):
    """The value of the earliest event that has one; null when there is none."""

    name = "first"
    takes_string = True
    end: ClassVar[type[Recent]] = Earliest

    def families(self, column: str, kind: Kind) -> tuple[Family, ...]:
        """The value at this end."""
        return (self.end(column, kind),)

    def output(self, kind: Kind) -> Output:
        """As the column."""
        return Output(kind)

    def finalize(self, column: str, kind: Kind, states: States, span: Span) -> Values:
        """Return the value where there is one."""
        del kind, span
        code = self.end.code
        return Values(states[f"{column}.{code}"], states[f"{column}.{code}_time"] != _NEVER[code][0])


class Last(First):
    """The value of the latest event that has one; null when there is none."""

    name = "last"
    end = Latest
