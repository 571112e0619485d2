"""What a service gives instead of values that are too old."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rtml.algebra import catalog
from rtml.algebra.family import Kind, Output
from rtml.define.naming import check_type
from rtml.define.views import StreamFeatureView
from rtml.errors import DefinitionError, UnknownNameError, near_miss
from rtml.staleness import ON_STALE

_WORDS: dict[Kind, str] = {"f64": "a finite number", "i64": "an integer of 64 bits", "str": "a string"}
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""What no UTF-8 holds."""
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
    outputs = {f"{view.name}__{name}": _output(view, name) for view, name in columns}
    for name, value in defaults.items():
        if name not in outputs:
            raise UnknownNameError.of("feature", str(name), outputs, f"{where}: defaults")
        if not _fits(outputs[name], value):
            raise DefinitionError.at(where, f"defaults[{name!r}]", _words(outputs[name]), value)


def served_defaults(defaults: Mapping[str, object], columns: Sequence[tuple[StreamFeatureView, str]]) -> dict[str, Any]:
    """Return checked defaults as values of their features' types."""
    outputs = {f"{view.name}__{name}": _output(view, name) for view, name in columns}
    return {name: _served(outputs[name], value) for name, value in defaults.items()}


def _served(output: Output, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_served(Output(output.kind), each) for each in value]
    return value if value is None or output.kind != "f64" else float(value)


def _output(view: StreamFeatureView, name: str) -> Output:
    feature = view.resolved[name]
    return catalog.aggregate(feature.aggregate, feature.parameters).output(cast("Kind", feature.kind))


def _words(output: Output) -> str:
    words = f"a list of at most {output.width} of these: {_WORDS[output.kind]}" if output.width else _WORDS[output.kind]
    return f"{words}, or None"


def _fits(output: Output, value: Any) -> bool:
    if value is None:
        return True
    if output.width:
        listed = isinstance(value, list | tuple) and len(value) <= output.width
        return listed and all(_is_of(output.kind, each) for each in value)
    return _is_of(output.kind, value)


def _is_of(kind: Kind, value: object) -> bool:
    if kind == "str":
        return isinstance(value, str) and not _SURROGATE.search(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "i64":
        return isinstance(value, int) and value in _INTEGERS
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
