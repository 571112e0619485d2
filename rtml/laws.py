"""The laws of an aggregate, for a user's own tests: `rtml.check_laws(geometric_mean, values=[0.5, 2.0, 100.0])`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rtml.algebra import catalog
from rtml.algebra.custom import CUSTOM, parameters_of
from rtml.algebra.family import EVENT_TIME, ID64, NUMPY_KIND, Aggregate, Array, Events, Kind, Lane, Span, States
from rtml.algebra.states import StateSchema, concatenate
from rtml.define.custom import CustomAggregate
from rtml.errors import DefinitionError
from rtml.values import to_list

VALUES = (0.0, 1.0, -1.0, 0.5, 2.0, -7.25, 100.0)
LARGEST = 12
"""How many events an example has at most."""
_COLUMN = "value"

Example = list[float | int | None]
"""The values of some events, in the order of their time; None is null."""


def check_laws(
    aggregate: CustomAggregate | Aggregate,
    values: Sequence[float | int] = VALUES,
    *,
    kind: Kind = "f64",
    examples: int = 300,
    seed: int = 0,
) -> None:
    """Hold an aggregate against the laws that every road relies on, over random lists of values and nulls.

    The state of no events changes nothing; states combine in any grouping and any order to the same one, without
    changing what is combined; `lower` of many events is `lift` of each, combined; states are numbers, and values finite
    ones.

    Args:
        aggregate: what is checked.
        values: what events may have: give what the column will hold, such as positive numbers for a logarithm.
        kind: how the column is kept, `"f64"` or `"i64"`.
        examples: how many lists are tried, short ones first.
        seed: of the draws; the same one draws the same lists.

    Raises:
        DefinitionError: a law is broken; says which, and the smallest example that was found.
    """
    tried = _Tried.of(aggregate, kind)
    rng = np.random.default_rng(seed)
    for number in range(examples):
        size = 1 + number * LARGEST // examples
        drawn = rng.choice(len(values) + 1, size)
        example: Example = [None if place == len(values) else values[place] for place in drawn.tolist()]
        broken = tried.broken(example)
        if broken is not None:
            smallest, words = _smallest(tried, example, broken)
            raise DefinitionError(f"{tried.where}: {words}, for events with the values {smallest}")


def _smallest(tried: _Tried, example: Example, words: str) -> tuple[Example, str]:
    """Leave out events as long as some law is broken."""
    place = 0
    while place < len(example):
        fewer = example[:place] + example[place + 1 :]
        broken = tried.broken(fewer) if fewer else None
        if broken is None:
            place += 1
        else:
            example, words = fewer, broken
    return example, words


@dataclass(frozen=True)
class _Tried:
    """An aggregate under examination."""

    where: str
    aggregate: Aggregate
    schema: StateSchema
    kind: Kind

    @classmethod
    def of(cls, aggregate: CustomAggregate | Aggregate, kind: Kind) -> _Tried:
        if isinstance(aggregate, CustomAggregate):
            where = aggregate.place
            aggregate = catalog.aggregate(CUSTOM, parameters_of(aggregate.name, aggregate.version, aggregate))
        else:
            where = f"aggregate {aggregate.name!r}"
        return cls(where, aggregate, StateSchema.of(aggregate.families(_COLUMN, kind)), kind)

    def broken(self, example: Example) -> str | None:
        """Return the first law that is broken, in words."""
        events = self._events(example)
        laws: list[Callable[[Events], Iterator[str]]] = [self._lift, self._combine, self._lower, self._finalize]
        return next((words for law in laws for words in law(events)), None)

    def _events(self, example: Example) -> Events:
        numbers = np.array([0 if value is None else value for value in example], dtype=NUMPY_KIND[self.kind])
        valid = np.array([value is not None for value in example], dtype=bool)
        times = np.arange(len(example), dtype=np.int64)
        return Events(times, times.astype(np.uint64), {_COLUMN: Lane(numbers, valid)})

    def _lift(self, events: Events) -> Iterator[str]:
        yield from self._shape("lift", self.schema.lift(events), len(events))

    def _shape(self, function: str, states: States, count: int) -> Iterator[str]:
        for name in self.schema.names:
            column = np.asarray(states[name])
            if column.shape != (count,):
                yield f"{function} must give one state each, {count} in all; got {name!r} of shape {column.shape}"
            elif column.dtype.kind == "f" and np.any(np.isnan(column)):
                yield f"{function} must give numbers; got {name!r} = {column.tolist()}"

    def _combine(self, events: Events) -> Iterator[str]:
        states, count = self.schema.lift(events), len(events)
        before = {name: column.copy() for name, column in states.items()}
        whole = self.schema.combine(states, np.array([0]))
        if self._differ(states, before):
            yield "combine must not change its inputs, and did"
        yield from self._shape("combine", whole, 1)
        for words, empty in (("before", [self.schema.empties(1), whole]), ("behind", [whole, self.schema.empties(1)])):
            yield from self._same(f"the empty state changes what stands {words} it", whole, concatenate(empty))
        turned = {name: column[::-1] for name, column in states.items()}
        yield from self._same("combine depends on the order of states", whole, turned)
        for cut in range(1, count):
            parts = self._combined(states, np.array([0, cut]))
            yield from self._shape("combine", parts, 2)
            yield from self._same(f"combine is not associative: grouped after {cut}", whole, parts)

    def _combined(self, states: States, starts: Array) -> dict[str, Array]:
        return self.schema.combine({name: column.copy() for name, column in states.items()}, starts)

    def _lower(self, events: Events) -> Iterator[str]:
        values, valid = events.lanes[_COLUMN]
        dtype = pl.Float64 if self.kind == "f64" else pl.Int64
        column = [value if there else None for value, there in zip(values.tolist(), valid.tolist(), strict=True)]
        frame = pl.DataFrame(
            {EVENT_TIME: events.time, ID64: events.id64, _COLUMN: pl.Series(column, dtype=dtype), "group": 0}
        )
        lowered = frame.group_by("group").agg(self.schema.lower())
        states = {name: lowered[name].to_numpy().astype(self.schema.types[name]) for name in self.schema.names}
        whole = self._combined(self.schema.lift(events), np.array([0]))
        if self._differ(whole, states):
            yield f"lower is not lift and combine: {_shown(states)} is not {_shown(whole)}"

    def _finalize(self, events: Events) -> Iterator[str]:
        states = concatenate([self._combined(self.schema.lift(events), np.array([0])), self.schema.empties(1)])
        values = self.aggregate.finalize(_COLUMN, self.kind, states, Span(0, len(events)))
        if len(values.values) != 2 or values.valid.shape != (2,):
            yield f"finalize must give a value for each state, and no other; got {len(values.values)} for 2"
        elif not all(value is None or np.all(np.isfinite(value)) for value in to_list(values)):
            yield f"finalize must give finite values, or say which rows have none; got {to_list(values)}"

    def _same(self, words: str, whole: States, parts: States) -> Iterator[str]:
        found = self._combined(parts, np.array([0]))
        if self._differ(whole, found):
            yield f"{words}: {_shown(found)} is not {_shown(whole)}"

    def _differ(self, one: States, other: States) -> bool:
        return any(not _close(one[name], other[name]) for name in self.schema.names)


def _close(one: Array, other: Array) -> bool:
    """Whether states are the same, floats but for what adding in another order may do."""
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True))


def _shown(states: States) -> str:
    return ", ".join(f"{name.removeprefix(f'{_COLUMN}.')}={column.tolist()[0]!r}" for name, column in states.items())
