"""Old contract and new contract → every change, allowed or refused with the reason. Pure.

The modes are those of Avro's registries, said by which events a contract accepts (of an event, the fields that its own
contract names):

- `backward`: the new contract accepts all that the old one did, so events of the past may be replayed under it, and
  producers of the old kind go on.
- `forward`: the old contract accepts all that the new one does, so readers of the old kind go on.
- `full`: both, so they accept the same but for fields that only one of them names.
- `none`: any events; still refused is what the platform itself could not follow.

Each contract is held against the last one: what a contract accepts under `backward` only grows, so that all former ones
are covered with it. In every mode refused, for the platform itself could not follow: another event time or event id, a
column without which what is served could not be written, and a type that the lake's column cannot hold beside its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rtml.define.column import Column
from rtml.define.implied import fits, implies, is_wider, passing, witnesses
from rtml.define.source import Compatibility
from rtml.define.written import Contract, type_word

_PAST, _READERS = "events of the past", "readers by the former contract"
_WHY: dict[Compatibility, str] = {
    "backward": "all events of the past pass it",
    "forward": f"{_READERS} go on",
    "full": f"all events of the past pass it, and {_READERS} go on",
    "none": "compatibility is 'none'",
}


@dataclass(frozen=True)
class Change:
    """One way in which a contract is another than before.

    Args:
        column: the column, or the parameter of the source.
        what: what has changed, old and new.
        allowed: whether the mode allows it.
        reason: why, or why not.
        witness: fields that turn an event of the one contract into one that the other refuses, where one was found.
        final: refused in every mode, and not to be forced.
    """

    column: str
    what: str
    allowed: bool
    reason: str
    witness: Mapping[str, Any] | None = None
    final: bool = False

    def __str__(self) -> str:
        """Return the change in words."""
        return f"{self.column}: {self.what}: {'allowed' if self.allowed else 'refused'}: {self.reason}"


@dataclass(frozen=True)
class _Break:
    """Why events of one contract do not pass the other, and fields that show it."""

    reason: str
    witness: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Facet:
    """One change of a column, with what it breaks in either direction."""

    column: str
    what: str
    backward: _Break | None
    forward: _Break | None


def compare(
    old: Contract,
    new: Contract,
    mode: Compatibility,
    *,
    stored: Mapping[str, pl.DataType] | None = None,
    used: Mapping[str, str] | None = None,
) -> list[Change]:
    """Return all changes from one contract to another.

    Args:
        old: the contract that is in force.
        new: the one that is to follow.
        mode: what the source promises.
        stored: the types of the lake's columns, by default those of the old contract.
        used: who needs a column, by its name, such as `view 'spent', which is served`.
    """
    lake = {name: column.dtype for name, column in old.by_name.items()} | dict(stored or {})
    changes = list(_identity(old, new))
    for facet in _facets(old, new):
        final = _unfollowable(facet.column, old, new, lake, used or {})
        changes.append(final if final is not None else _judged(facet, mode))
    return changes


def stored_types(contracts: Iterable[Contract]) -> dict[str, pl.DataType]:
    """Return the types that the lake's columns have come to by these contracts, the oldest first: they only widen."""
    types: dict[str, pl.DataType] = {}
    for contract in contracts:
        for name, column in contract.by_name.items():
            types[name] = common_type(types.get(name, column.dtype), column.dtype) or types[name]
    return types


def common_type(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return the narrowest type that holds all values of two, exactly; nothing where there is none."""
    candidates = (one, other, pl.Float64())
    return next((dtype for dtype in candidates if is_wider(dtype, one) and is_wider(dtype, other)), None)


def _identity(old: Contract, new: Contract) -> Iterable[Change]:
    reasons = {
        "timestamp": "rows of the lake and tiles of the store are laid out by the old one",
        "event_id": "events that came before would count twice",
    }
    for name, reason in reasons.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            words = f"{reason}. Give the source another name"
            yield Change(name, f"{before!r} → {after!r}", allowed=False, reason=words, final=name == "timestamp")


def _facets(old: Contract, new: Contract) -> Iterable[_Facet]:
    before, after = old.by_name, new.by_name
    for name in dict.fromkeys([*before, *after]):
        if name not in before:
            yield _added(after[name])
        elif name not in after:
            yield _removed(before[name])
        else:
            yield from _changed(before[name], after[name])


def _added(column: Column) -> _Facet:
    kind = "optional" if column.nullable else "required"
    lacks = None if column.nullable else _Break(f"{_PAST} lack it: let it be nullable", {})
    return _Facet(column.name, f"new {kind} column ({type_word(column.dtype)})", lacks, None)


def _removed(column: Column) -> _Facet:
    kind = "optional" if column.nullable else "required"
    lacks = None if column.nullable else _Break(f"{_READERS} need it", {})
    return _Facet(column.name, f"{kind} column ({type_word(column.dtype)}) dropped", None, lacks)


def _changed(old: Column, new: Column) -> Iterable[_Facet]:
    if old.dtype != new.dtype:
        what = f"{type_word(old.dtype)} → {type_word(new.dtype)}"
        yield _Facet(old.name, what, _narrowed(old, new, _PAST), _narrowed(new, old, _READERS))
    if old.nullable != new.nullable:
        null = {old.name: None}
        closed = _Break(f"{_PAST} may be null there", null) if old.nullable else None
        opened = _Break(f"{_READERS} take no null", null) if new.nullable else None
        yield _Facet(old.name, "may be null" if new.nullable else "may no longer be null", closed, opened)
    if sorted(map(str, old.checks)) != sorted(map(str, new.checks)) or old.dtype != new.dtype:
        backward, forward = _tightened(old, new, _PAST), _tightened(new, old, _READERS)
        if _named(old) != _named(new) or backward or forward:
            yield _Facet(old.name, f"checks {_named(old)} → {_named(new)}", backward, forward)


def _narrowed(given: Column, taking: Column, who: str) -> _Break | None:
    if is_wider(taking.dtype, given.dtype):
        return None
    found = [value for value in witnesses(given, taking) if not fits(taking.dtype, value)]
    held, narrow = type_word(given.dtype), type_word(taking.dtype)
    if who == _PAST:
        reason = f"{who} hold {held}s, and {narrow} cannot hold them all"
    else:
        reason = f"{who} take {narrow}s, which cannot hold all {held}s"
    return _Break(reason, {given.name: found[0]} if found else None)


def _tightened(given: Column, taking: Column, who: str) -> _Break | None:
    """Return the check that a value of one column may fail in the other, if any: values that fit its type at all."""
    shared = [value for value in witnesses(given, taking) if fits(taking.dtype, value)]
    for name, arguments in taking.checks:
        alone = Column(taking.name, taking.dtype, taking.nullable, ((name, arguments),))
        words = _check(name, arguments)
        taken = passing(alone, shared)
        failing = next((value for value in shared if value not in taken), None)
        if failing is not None:
            return _Break(f"{who} {_may(who)} {failing!r}, which is not {words}", {given.name: failing})
        if not implies(given, taking, name, arguments):
            return _Break(f"{who} {_may(who)} what is not {words}: that it follows from the checks cannot be shown")
    return None


def _may(who: str) -> str:
    return "may hold" if who == _PAST else "may be sent"


def _check(name: str, arguments: Mapping[str, Any]) -> str:
    shown = ", ".join(str(value) for value in arguments.values() if value is not None)
    return f"{name.replace('_', ' ')} {shown}"


def _named(column: Column) -> str:
    return "; ".join(sorted(_check(name, arguments) for name, arguments in column.checks)) or "none"


def _judged(facet: _Facet, mode: Compatibility) -> Change:
    breaks = [facet.backward] if mode in ("backward", "full") else []
    breaks += [facet.forward] if mode in ("forward", "full") else []
    broken = next((one for one in breaks if one is not None), None)
    if broken is not None:
        return Change(facet.column, facet.what, allowed=False, reason=broken.reason, witness=broken.witness)
    return Change(facet.column, facet.what, allowed=True, reason=_WHY[mode])


def _unfollowable(
    name: str, old: Contract, new: Contract, lake: Mapping[str, pl.DataType], used: Mapping[str, str]
) -> Change | None:
    """Return why the platform itself cannot follow a change, in whatever mode."""
    column = new.by_name.get(name)
    if column is None:
        if name not in used:
            return None
        what = f"column ({type_word(old.by_name[name].dtype)}) dropped"
        return Change(name, what, allowed=False, reason=f"{used[name]} needs it")
    if name not in lake or common_type(lake[name], column.dtype) is not None:
        return None
    held = type_word(lake[name])
    what = f"{held} → {type_word(column.dtype)}"
    words = f"the lake has {held}s there, and no type holds both exactly. Give the column another name"
    return Change(name, what, allowed=False, reason=words, final=True)
