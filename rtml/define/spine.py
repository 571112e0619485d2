"""Which rows a service's training set has: events of a source, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from rtml.define.expression import check_expression, relaxed
from rtml.define.label import LabelSource
from rtml.define.naming import check_type, place
from rtml.define.source import KEY_WORDS, EventSource
from rtml.errors import DefinitionError, near_miss


@dataclass(frozen=True, eq=False)
class Spine:
    """The rows of a training set: one for each event of a source, at its event time.

    A row never sees itself: its features are of the events before its instant.

    Args:
        source: whose events.
        where: which of them; a row-wise Polars expression over the contract's columns.
        labels: what is to be predicted; the contract has their join keys.

    Raises:
        DefinitionError: a parameter cannot mean what it says.
    """

    source: EventSource
    where: pl.Expr | None = None
    labels: Sequence[LabelSource] = ()

    # Set by __post_init__; not a parameter.
    place: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        """Validate all parameters at once."""
        where = f"Spine ({place()})"
        self.__dict__["place"] = where
        check_type(where, "source", self.source, EventSource, "an EventSource")
        if self.where is not None:
            object.__setattr__(self, "where", relaxed(f"{where}: where", self.where))
            dtype = check_expression(f"{where}: where", self.where, self.source.frame_schema)
            if dtype != pl.Boolean:
                raise DefinitionError.at(where, "where", "boolean", str(dtype))
        check_type(where, "labels", self.labels, (list, tuple), "a list of label sources")
        for label in self.labels:
            check_type(where, "labels", label, LabelSource, "label sources")
            self._check_keys(f"{where}: labels: {label.name!r}", label.key_types)
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names):
            raise DefinitionError.at(where, "labels", "label sources of different names", names)
        object.__setattr__(self, "labels", tuple(self.labels))

    def check_service(self, where: str, key_types: Mapping[str, str]) -> None:
        """Refuse a service whose join keys the source does not have."""
        self._check_keys(f"{where}: training", key_types)

    def columns(self, key_types: Mapping[str, str]) -> dict[str, str]:
        """Return the columns of the rows for a service's join keys: those, and the labels', with their types."""
        found = dict(key_types)
        for label in self.labels:
            found |= label.key_types
        return found

    def _check_keys(self, where: str, key_types: Mapping[str, str]) -> None:
        for key, kind in key_types.items():
            if key not in self.source.columns:
                near = near_miss(key, self.source.columns)
                raise DefinitionError(
                    f"{where}: the spine's source {self.source.name!r} has no join key {key!r}.{near}"
                )
            own = self.source.key_kind(key, where, where)
            if own != kind:
                what = f"join key {key!r} of source {self.source.name!r}"
                raise DefinitionError.at(where, what, KEY_WORDS[kind], KEY_WORDS[own])
