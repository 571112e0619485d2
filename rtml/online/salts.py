"""Salts: an entity of a view with `salts=N` is N partial states, each under a key of its own, merged at read.

An event goes to the partial `id64 % N`: duplicates of it, and any replay, meet where it is. Each partial is to writers
what an entity is: it has its own hash tag (so another shard, and in a cluster mostly another node), header, fence,
tiles, late events and base. Readers take all N, and say of the entity what its partials say together. What is written
of one is written at once, of all of them not: a reader amid a publication may have the late events of some partials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rtml.algebra.family import ID64
from rtml.lazy import pl
from rtml.online import keys
from rtml.plan import Plan

SALT = "__salt"

Of = TypeVar("Of")


def with_salt(plan: Plan, events: pl.LazyFrame) -> pl.LazyFrame:
    """Return events (`id64` unsigned) with a column of their salts, where the plan has any."""
    if plan.salts == 1:
        return events
    return events.with_columns((pl.col(ID64).cast(pl.UInt64) % plan.salts).cast(pl.UInt8).alias(SALT))


def partial_columns(plan: Plan) -> tuple[str, ...]:
    """Return the columns of events (`with_salt`) that tell whose they are: the join keys, and the salt if there are."""
    return plan.key_names if plan.salts == 1 else (*plan.key_names, SALT)


def partial_tag(plan: Plan, owner: Sequence[Any]) -> str:
    """Return the tag under which a writer keeps an owner, given by the values of its `partial_columns`."""
    if plan.salts == 1:
        return keys.entity_tag(plan.entity, owner)
    *values, salt = owner
    return keys.salted(keys.entity_tag(plan.entity, values), salt)


def partial_tags(plan: Plan, values: Sequence[Any]) -> list[str]:
    """Return all tags under which an entity is kept, in the order of their salts."""
    tag = keys.entity_tag(plan.entity, values)
    return [tag] if plan.salts == 1 else [keys.salted(tag, salt) for salt in range(plan.salts)]


def by_entity(plan: Plan, judge: Callable[[Sequence[Of]], Of], partials: list[Of]) -> list[Of]:
    """Return one value for each entity, judged from those of its partials, which follow one another."""
    step = plan.salts
    if step == 1:
        return partials
    return [judge(partials[start : start + step]) for start in range(0, len(partials), step)]
