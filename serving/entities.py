"""Which entities a request names: a list of join keys a row, or a column for each join key; and their keys in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rtml.errors import RequestError, TooLargeError, near_miss
from rtml.online import keys
from rtml.plan import Plan
from rtml.settings import Settings

Rows = Sequence[Mapping[str, Any]]
Entities = Rows | Mapping[str, Any]
"""Rows, or columns: by join key a list with a value for each row, or one value that all rows share."""

MOST_ENTITIES = Settings().max_entities
"""How many a request may name, unless the settings say otherwise."""

_MANY, _LONG = 30, 200
"""So many names of a wrong entity are looked through, and so many letters of a name or a value repeated."""

_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool}
_EITHER = "entities must be a list with a mapping of join keys for each row, or a mapping of join keys to columns"
_WORDS = {"str": "a string", "int": "an integer", "bool": "a boolean"}


def as_rows(entities: Entities, most: int) -> Rows:
    """Return entities as rows, however they are given.

    Args:
        entities: rows, or columns: `{"user": "u1", "item": ["a", "b"]}` is two rows of one user.
        most: how many there may be.

    Raises:
        RequestError: they are neither; or columns are of unequal length, or there are none.
        TooLargeError: there are more than `most`.
    """
    if not isinstance(entities, Mapping):
        if not isinstance(entities, Sequence) or isinstance(entities, str | bytes):
            raise RequestError(f"{_EITHER}; got {type(entities).__name__}")
        _check_size(len(entities), most)
        return entities
    if not entities:
        raise RequestError("entities given by columns must have one for each join key; got none")
    lists = {name: values for name, value in entities.items() if (values := _as_list(value)) is not None}
    count = _common({name: len(values) for name, values in lists.items()})
    _check_size(count, most)
    return [_Row(entities, lists, place) for place in range(count)]


class _Row(Mapping[str, Any]):
    """One row of columns, which are not copied: a few of them may be all that anybody looks at."""

    __slots__ = ("_lists", "_place", "_shared")

    def __init__(self, shared: Mapping[str, Any], lists: Mapping[str, list[Any]], place: int) -> None:
        self._shared, self._lists, self._place = shared, lists, place

    def __getitem__(self, name: str) -> Any:
        values = self._lists.get(name)
        return self._shared[name] if values is None else values[self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shared)

    def __len__(self) -> int:
        return len(self._shared)


def _as_list(value: Any) -> list[Any] | None:
    """Return a column's values; `None` for one value that is for all rows."""
    if isinstance(value, list | tuple):
        return list(value)
    # Arrays and series know the Python values that they stand for.
    convert = getattr(value, "tolist", None) or getattr(value, "to_list", None)
    values = None if convert is None else convert()
    return values if isinstance(values, list) else None


def _common(lengths: Mapping[str, int]) -> int:
    """Return how long all columns are."""
    if not lengths:
        return 1
    (first, count), *others = lengths.items()
    for name, length in others:
        if length != count:
            raise RequestError(
                f"entities given by columns must have as many values in each: {first!r} has {count}, {name!r} has "
                f"{length}. One value without a list is for all rows"
            )
    return count


def _check_size(count: int, most: int) -> None:
    if count > most:
        raise TooLargeError(f"a request may name {most} entities (max_entities, RTML_MAX_ENTITIES); got {count}")


def entity_tags(plan: Plan, entities: Rows, first: int = 0) -> list[str]:
    """Return the entities' key tags; errors count them from `first`.

    Raises:
        RequestError: a join key is missing, or of another type; or a row has no keys at all.
    """
    known: dict[tuple[Any, ...], str] = {}
    try:
        return [_tag(plan, row, entity, known) for row, entity in enumerate(entities, first)]
    except AttributeError:
        for row, entity in enumerate(entities, first):
            if not isinstance(entity, Mapping):
                raise RequestError(f"{_EITHER}; row {row} is of type {type(entity).__name__}") from None
        raise


def _tag(plan: Plan, row: int, entity: Mapping[str, Any], known: dict[tuple[Any, ...], str]) -> str:
    values: list[Any] = []
    for name, kind in plan.keys:
        value = entity.get(name)
        if type(value) is not _TYPES[kind]:
            raise _bad_key(plan, row, entity, name, kind)
        values.append(value)
    found = known.get(key := tuple(values))
    if found is None:
        try:
            found = known[key] = keys.entity_tag(plan.entity, values)
        except UnicodeEncodeError:
            raise RequestError(
                f"entity {row}: a key is no text that UTF-8 can hold; got {repr(values)[:_LONG]}"
            ) from None
    return found


def _bad_key(plan: Plan, row: int, entity: Mapping[str, Any], name: str, kind: str) -> RequestError:
    where = f"entity {row}: key {name!r} of entity {plan.entity!r} (view {plan.view!r})"
    if name not in entity:
        return RequestError(
            f"{where} is missing.{near_miss(name, [str(key)[:_LONG] for key in islice(entity, _MANY)])}"
        )
    got = repr(entity[name])
    return RequestError(f"{where} must be {_WORDS[kind]}; got {got if len(got) <= _LONG else got[:_LONG] + '…'}")
