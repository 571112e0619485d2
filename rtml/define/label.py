"""What a model learns to predict: what became known some time after the instant of a training row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from rtml.define.naming import check_duration, check_name, check_owners, check_type
from rtml.define.source import EventSource
from rtml.errors import DefinitionError, near_miss
from rtml.instants import Duration

MATURE = "mature"
"""The column `<label source>__mature`: whether a row's horizon has passed."""


@dataclass(frozen=True, eq=False)
class LabelSource:
    """Labels of training rows: what was known `horizon` after a row's instant.

    For a row at `t` it is the last event (by event time, then id64) with the row's join keys that happened in
    `[t, t + horizon)` and had arrived by `t + horizon`. Its columns are called `name__column`; `name__mature` says
    whether `t + horizon` has passed at all: until then labels are null.

    Args:
        name: its name, with which its columns begin.
        source: the event source whose events are labels.
        join_keys: the columns by which an event belongs to a training row; the row has them under the same names.
        labels: the columns of the source that are labels.
        horizon: how long after a row's instant its label is known.

    Raises:
        DefinitionError: a parameter cannot mean what it says.
        UnknownNameError: a join key that the source does not have.
    """

    name: str
    source: EventSource
    join_keys: Sequence[str]
    labels: Sequence[str]
    horizon: str
    description: str = ""
    owners: Sequence[str] = ()

    # Set by __post_init__; not parameters.
    place: str = field(init=False, repr=False, default="")
    horizon_us: Duration = field(init=False, repr=False, default=0)
    key_types: dict[str, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Validate all parameters at once."""
        where = check_name("label source", self.name)
        check_type(where, "source", self.source, EventSource, "an EventSource")
        check_owners(where, self.owners)
        keys = _names(where, "join_keys", self.join_keys)
        labels = _names(where, "labels", self.labels)
        for label in labels:
            if label not in self.source.columns:
                near = near_miss(label, self.source.columns)
                raise DefinitionError(f"{where}: labels: unknown column {label!r} of {self.source.name!r}.{near}")
            if label == MATURE:
                raise DefinitionError(f"{where}: labels: {label!r} is the platform's own word; choose another name")
        derived = {
            "place": where,
            "horizon_us": check_duration(where, "horizon", self.horizon),
            "key_types": {key: self.source.key_kind(key, where, where) for key in keys},
            "join_keys": keys,
            "labels": labels,
        }
        self.__dict__.update(derived)

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns that a training set gets: the labels, then whether they are mature."""
        types = {self.column(label): self.source.columns[label].dtype for label in self.labels}
        return {**types, self.mature: pl.Boolean()}

    @property
    def mature(self) -> str:
        """The name of the column that says whether the horizon has passed."""
        return f"{self.name}__{MATURE}"

    def column(self, label: str) -> str:
        """Return the name that a label has in a training set."""
        return f"{self.name}__{label}"


def _names(where: str, parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise DefinitionError.at(where, parameter, "a list of different column names", names)
    return tuple(names)
