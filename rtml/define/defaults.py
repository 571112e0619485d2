"""What a service gives instead of values that are too old."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rtml.algebra import catalog
from rtml.define.naming import check_type
from rtml.define.views import StreamFeatureView
from rtml.errors import DefinitionError, UnknownNameError, near_miss
from rtml.staleness import ON_STALE

_WORDS = {"f64": "a finite number, or None", "i64": "an integer of 64 bits, or None"}
_INTEGERS = range(-(2**63), 2**63)


def check_staleness(
    where: str, on_stale: object, defaults: object, columns: Sequence[tuple[StreamFeatureView, str]]
) -> None:
    """Refuse what is no way to treat old values, and defaults that could not be served.

    Raises:
        DefinitionError: `on_stale` is none of its choices, there are defaults that nobody would get, or one is not of
            its feature's type.
        UnknownNameError: a default is for a feature that the service does not have.
    """
    if on_stale not in ON_STALE:
        near = near_miss(str(on_stale), ON_STALE)
        raise DefinitionError(f"{where}: on_stale must be one of {', '.join(ON_STALE)}; got {on_stale!r}.{near}")
    check_type(where, "defaults", defaults, Mapping, "a mapping of view__feature to values")
    assert isinstance(defaults, Mapping)
    if defaults and on_stale != "default":
        raise DefinitionError(
            f"{where}: defaults are given under on_stale='default' only; it is {on_stale!r}, "
            f"and there is one for {next(iter(defaults))!r}"
        )
    kinds = {f"{view.name}__{name}": _kind(view, name) for view, name in columns}
    for name, value in defaults.items():
        if name not in kinds:
            raise UnknownNameError.of("feature", str(name), kinds, f"{where}: defaults")
        if not _fits(kinds[name], value):
            raise DefinitionError.at(where, f"defaults[{name!r}]", _WORDS[kinds[name]], value)


def _kind(view: StreamFeatureView, name: str) -> str:
    feature = view.resolved[name]
    return catalog.aggregate(feature.aggregate).output("f64" if feature.kind == "f64" else "i64")


def _fits(kind: str, value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "i64":
        return isinstance(value, int) and value in _INTEGERS
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
