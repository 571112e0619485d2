"""A group of features of one entity: windowed aggregates over an event source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import cast, overload

import polars as pl

from rtml.algebra import catalog
from rtml.algebra.family import Kind, Output, Parameters
from rtml.define.entity import Entity
from rtml.define.expectation import Expect, Expectation, resolve_quality
from rtml.define.expression import check_expression, relaxed
from rtml.define.feature import TAILS, Aggregation, Tail
from rtml.define.kinds import kind_of, taken_by
from rtml.define.naming import check_duration, check_list, check_name, check_owners, check_type
from rtml.define.sla import SLA, check_sla
from rtml.define.source import EventSource
from rtml.errors import DefinitionError, UnknownNameError, near_miss
from rtml.instants import DAY, Duration, format_duration
from rtml.tiles import Ladder, Window
from rtml.values import value_type

MOST_SALTS = 64
"""A read of an entity costs as many round-trip commands as it has salts."""


@dataclass(frozen=True)
class Feature:
    """One feature: an aggregate of a column over one window. `numeric_kind` is how the column is kept."""

    name: str
    aggregate: str
    column: str
    kind: str
    window: Window
    parameters: Parameters = ()

    @property
    def output(self) -> Output:
        """The type of its values."""
        return catalog.aggregate(self.aggregate, self.parameters).output(cast("Kind", self.kind))


@dataclass(frozen=True)
class Selection:
    """Some features of a view, by name."""

    view: StreamFeatureView
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StreamFeatureView:
    """Windowed aggregates over an event source, for an entity.

    Args:
        name: its name; columns are called `name__feature`.
        source, entity: what is counted, and about whom.
        features: aggregates, each with its list of windows.
        where: which events count; a row-wise Polars expression over the contract's columns and `derive`.
        derive: further columns, row-wise Polars expressions over the contract's columns.
        tail: `"exact"` or `"tile"` for all windows that do not say; by default exact up to 24 hours.
        ladder: tile sizes, finest first; by default chosen from the windows (design §4).
        freshness: how old the stream's position may be before values are `stale`.
        ttl: how old an entity's last event may be before its values are `expired`.
        snapshots: how far apart the instants are at which the table `features/<name>` has values; it divides a day.
        sla: what is promised of it: freshness, nulls by feature.
        salts: over how many partial states each entity is spread, for entities with thousands of events a second.
        quality: what is expected of every day of those values; their columns are the entity's keys and the features.

    Raises:
        DefinitionError: a parameter cannot mean what it says.
    """

    name: str
    source: EventSource
    entity: Entity
    features: Sequence[Aggregation]
    where: pl.Expr | None = None
    derive: Mapping[str, pl.Expr] = field(default_factory=dict)
    tail: Tail | None = None
    ladder: Sequence[str] | None = None
    freshness: str = "5s"
    ttl: str | None = None
    snapshots: str = "24h"
    quality: Sequence[Expect] = ()
    description: str = ""
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    sla: SLA | None = None
    salts: int = 1

    def __post_init__(self) -> None:
        """Validate all parameters at once, and resolve the features."""
        where = check_name("view", self.name)
        self.__dict__["place"] = where
        check_type(where, "source", self.source, EventSource, "an EventSource")
        check_type(where, "entity", self.entity, Entity, "an Entity")
        check_owners(where, self.owners)
        if self.tail is not None and self.tail not in TAILS:
            raise DefinitionError.at(where, "tail", "'exact' or 'tile'", self.tail)
        self.__dict__["freshness_us"] = check_duration(where, "freshness", self.freshness)
        self.__dict__["ttl_us"] = None if self.ttl is None else check_duration(where, "ttl", self.ttl)
        self.__dict__["snapshots_us"] = check_duration(where, "snapshots", self.snapshots)
        if DAY % self.snapshots_us:
            raise DefinitionError.at(where, "snapshots", "a duration that divides a day", self.snapshots)
        if type(self.salts) is not int or not 1 <= self.salts <= MOST_SALTS:
            raise DefinitionError.at(where, "salts", f"a whole number from 1 to {MOST_SALTS}", self.salts)
        self.__dict__["key_types"] = self._check_keys(where)
        self.__dict__["kinds"] = self._check_expressions(where)
        self.__dict__["resolved"] = self._resolve(where)
        check_sla(where, "view", self.sla, self.resolved)
        self._check_tails(where)
        self.__dict__["expectations"] = resolve_quality(where, self.quality, self._value_types())

    place: str = field(init=False, repr=False, default="")
    freshness_us: Duration = field(init=False, repr=False, default=0)
    ttl_us: Duration | None = field(init=False, repr=False, default=None)
    snapshots_us: Duration = field(init=False, repr=False, default=0)
    key_types: dict[str, str] = field(init=False, repr=False, default_factory=dict)
    kinds: dict[str, pl.DataType] = field(init=False, repr=False, default_factory=dict)
    resolved: dict[str, Feature] = field(init=False, repr=False, default_factory=dict)
    expectations: tuple[Expectation, ...] = field(init=False, repr=False, default=())

    def _check_keys(self, where: str) -> dict[str, str]:
        asker = f"{where}, entity {self.entity.name!r}"
        return {key: self.source.key_kind(key, where, asker) for key in self.entity.join_keys}

    def _check_expressions(self, where: str) -> dict[str, pl.DataType]:
        """Check them, and keep them with casts that cannot stop the stream; return the columns that there are."""
        schema = self.source.frame_schema
        check_type(where, "derive", self.derive, Mapping, "a mapping of names to Polars expressions")
        for name in self.derive:
            check_name(f"{where}: derive", name)
            if name in schema:
                raise DefinitionError(f"{where}: derive[{name!r}] has the name of a column of the contract")
        given = {name: (f"{where}: derive[{name!r}]", expression) for name, expression in self.derive.items()}
        derive = {name: relaxed(place, expression) for name, (place, expression) in given.items()}
        object.__setattr__(self, "derive", derive)
        schema |= {name: check_expression(place, derive[name], schema) for name, (place, _) in given.items()}
        if self.where is not None:
            object.__setattr__(self, "where", relaxed(f"{where}: where", self.where))
            dtype = check_expression(f"{where}: where", self.where, schema)
            if dtype != pl.Boolean:
                raise DefinitionError.at(where, "where", "boolean", str(dtype))
        return schema

    def _value_types(self) -> dict[str, pl.DataType]:
        """Return the columns of the view's values: its keys, and its features."""
        keys = {name: self.source.columns[name].dtype for name in self.entity.join_keys}
        return {**keys, **{name: value_type(feature.output) for name, feature in self.resolved.items()}}

    def _resolve(self, where: str) -> dict[str, Feature]:
        if not check_list(where, "features", self.features, "a list of aggregates"):
            raise DefinitionError.at(where, "features", "at least one aggregate", self.features)
        found: dict[str, Feature] = {}
        for aggregation in self.features:
            check_type(where, "features", aggregation, Aggregation, "aggregates such as Count(windows=['1h'])")
            kind = self._kind(where, aggregation)
            check_name(f"{where}: feature", aggregation.stem)
            for window, resolved in aggregation.resolved(where, self.tail):
                name = f"{aggregation.stem}_{window.label}"
                if name in found:
                    raise DefinitionError(f"{where}: two features are called {name!r}; give one of them a name=")
                found[name] = Feature(
                    name, aggregation.aggregate, aggregation.column, kind, resolved, aggregation.parameters
                )
        return found

    def _kind(self, where: str, aggregation: Aggregation) -> str:
        check_type(where, f"features: {aggregation.aggregate}: name", aggregation.name, (str, NoneType), "a string")
        check_type(where, f"features: {aggregation.aggregate}: column", aggregation.column, str, "a column's name")
        try:
            aggregate = catalog.aggregate(aggregation.aggregate, aggregation.parameters)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {aggregation.stem}: {error}") from None
        if not aggregate.takes_column:
            return "i64"
        column = aggregation.column
        if column in self.entity.join_keys:
            raise DefinitionError(
                f"{where}: {aggregation.stem}: {column!r} is a join key, the same for all of an entity's events"
            )
        if column not in self.kinds:
            raise DefinitionError(
                f"{where}: {aggregation.stem}: unknown column {column!r}.{near_miss(str(column), self.kinds)}"
            )
        dtype = self.kinds[column]
        if dtype in (pl.UInt64, pl.Int128, pl.UInt128) or dtype.is_decimal():
            raise DefinitionError.at(
                where, aggregation.stem, "of 64-bit floats or signed integers (cast it)", str(dtype)
            )
        kind = kind_of(aggregate, dtype)
        if kind is None:
            raise DefinitionError.at(where, aggregation.stem, taken_by(aggregate), str(dtype))
        return kind

    def _check_tails(self, where: str) -> None:
        finest = self.tiles.finest
        for feature in self.resolved.values():
            window = feature.window
            for what, duration in (("a window with tail='tile'", window.length), ("an offset", window.offset)):
                if not window.exact and duration % finest:
                    raise DefinitionError.at(
                        where,
                        f"{feature.name}: {what}",
                        f"a multiple of the finest tile ({format_duration(finest)})",
                        format_duration(duration),
                    )

    @cached_property
    def tiles(self) -> Ladder:
        """The ladder of tile sizes."""
        if self.ladder is None:
            return Ladder.default(feature.window.length for feature in self.resolved.values())
        words = "a list of durations, finest first"
        sizes = [
            check_duration(self.place, "ladder", size) for size in check_list(self.place, "ladder", self.ladder, words)
        ]
        try:
            return Ladder(tuple(sizes))
        except DefinitionError as error:
            raise DefinitionError(f"{self.place}: ladder: {error}") from None

    @overload
    def __getitem__(self, names: str) -> Selection: ...
    @overload
    def __getitem__(self, names: list[str]) -> Selection: ...
    def __getitem__(self, names: str | list[str]) -> Selection:
        """Select features by name: `view["count_1h"]` or `view[["count_1h", "count_24h"]]`."""
        words = "the name of a feature, or a list of some"
        chosen = (names,) if isinstance(names, str) else tuple(check_list(self.place, "[...]", names, words))
        for name in chosen:
            check_type(self.place, "[...]", name, str, words)
            if name not in self.resolved:
                raise UnknownNameError.of("feature", name, self.resolved, f"view {self.name!r}")
        return Selection(self, chosen)
