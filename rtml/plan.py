"""A view compiled: everything that a road needs to know of it, serialisable, with the fingerprint of its meaning."""

from __future__ import annotations

from functools import cached_property

import msgspec

from rtml.algebra import catalog
from rtml.algebra.family import Aggregate, Family, Kind, Output, Parameters, Span, States, Values, formula
from rtml.algebra.states import StateSchema
from rtml.instants import DAY, Duration, format_duration
from rtml.tiles import LIFETIME, Ladder, Window

RAW_LIMIT = 64
"""K of design §6: up to so many events, an interval holds their raw records."""
FORGET_AFTER = 7 * DAY
"""How long an entity without events outlives its longest window in Redis."""
NEVER = 1_000 * 365 * DAY
"""The time to live of what is kept for ever."""


class PlannedFeature(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """One feature of a plan; `window` and `offset` are in microseconds, `kind` is how its column is kept."""

    name: str
    aggregate: str
    column: str
    kind: Kind
    window: Duration
    exact: bool
    parameters: Parameters = ()
    offset: Duration = 0

    @cached_property
    def definition(self) -> Aggregate:
        """The aggregate, with its parameters."""
        return catalog.aggregate(self.aggregate, self.parameters)

    @property
    def families(self) -> tuple[Family, ...]:
        """The families whose states the value is made of."""
        return self.definition.families(self.column, self.kind)

    def finalize(self, states: States, span: Span) -> Values:
        """Return the feature's values: what states are worth that stand for these windows."""
        return self.definition.finalize(self.column, self.kind, states, span)

    @property
    def called(self) -> str:
        """The aggregate with its parameters in words: `last_n(n=5)`."""
        return formula(self.aggregate, "", self.parameters)

    @property
    def formula(self) -> str:
        """The aggregate of the column in words: `last_n(amount, n=5)`."""
        return formula(self.aggregate, self.column, self.parameters)

    @property
    def span(self) -> Window:
        """The window as a value of the tile algebra."""
        return Window(self.window, self.exact, self.offset)

    @property
    def bound(self) -> str | None:
        """By how much the aggregate may be off, in words; None where it is exact."""
        return self.definition.bound(self.kind)

    @cached_property
    def output(self) -> Output:
        """The type of the feature's values."""
        return self.definition.output(self.kind)


class Plan(msgspec.Struct, frozen=True, dict=True):
    """What a view means, compiled. All durations are in microseconds."""

    view: str
    source: str
    partitions: int
    entity: str
    keys: tuple[tuple[str, str], ...]
    """Join keys and their types: `str`, `int` or `bool`."""
    features: tuple[PlannedFeature, ...]
    ladder: tuple[Duration, ...]
    lateness: Duration
    skew: Duration
    freshness: Duration
    ttl: Duration | None
    fingerprint: str
    raw_limit: int = RAW_LIMIT
    salts: int = 1
    """Over how many partial states each entity is spread; see `rtml.online.salts`."""

    def encode(self) -> bytes:
        """Return the plan as JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(text: bytes) -> Plan:
        """Return the plan that `encode` wrote."""
        return msgspec.json.decode(text, type=Plan)

    @cached_property
    def tiles(self) -> Ladder:
        """The ladder."""
        return Ladder(self.ladder)

    @cached_property
    def states(self) -> StateSchema:
        """The states that all windows share."""
        return StateSchema.of(tuple(family for feature in self.features for family in feature.families))

    def require_functions(self) -> None:
        """Refuse to go on where this process cannot compute the view's aggregates.

        Raises:
            UnknownNameError, DefinitionError: a custom aggregate was never loaded here, or is another one by now.
        """
        _ = self.states.types  # asks every family for its columns

    @cached_property
    def tailed(self) -> bool:
        """Whether states are so large that the stream keeps records in a tail before it folds them in."""
        return any(family.heavy for family in self.states.families)

    @property
    def tail_limit(self) -> int:
        """T: how many records a tail holds at most."""
        return max(1, self.raw_limit // 2)

    @cached_property
    def lanes(self) -> dict[str, Kind]:
        """The value columns that raw records keep: name → kind."""
        return {feature.column: feature.kind for feature in self.features if feature.column}

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The value columns whose strings are returned, and whose texts are kept for that."""
        columns = [feature.column for feature in self.features if feature.output.kind == "str"]
        return tuple(dict.fromkeys(columns))

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The different windows, shortest first."""
        return tuple(sorted({feature.span for feature in self.features}))

    @cached_property
    def numbered(self) -> tuple[tuple[PlannedFeature, int], ...]:
        """The features, each with the number of its window."""
        return tuple((feature, self.windows.index(feature.span)) for feature in self.features)

    @cached_property
    def longest(self) -> Duration:
        """How far the windows that have a left edge reach back; 0 when there is none."""
        return max((window.reach for window in self.windows if not window.lifetime), default=0)

    @cached_property
    def lifetime(self) -> bool:
        """Whether a window has no left edge."""
        return any(window.lifetime for window in self.windows)

    @property
    def reach(self) -> Duration:
        """How far all windows reach back; `LIFETIME` where one has no left edge."""
        return LIFETIME if self.lifetime else self.longest

    @cached_property
    def longest_exact(self) -> Duration:
        """The longest window whose left edge is exact; 0 when there is none."""
        return max((window.length for window in self.windows if window.exact and not window.lifetime), default=0)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The join keys."""
        return tuple(name for name, _ in self.keys)

    @property
    def expire_after(self) -> Duration:
        """How long after its last write an entity is forgotten: never, where a window has no left edge."""
        return NEVER if self.lifetime else self.raw_expire_after

    @property
    def raw_expire_after(self) -> Duration:
        """How long after its last event the raw records of a hot tile are forgotten."""
        return self.longest + self.lateness + FORGET_AFTER

    def feature(self, name: str) -> PlannedFeature:
        """Return a feature by name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, PlannedFeature]:
        return {feature.name: feature for feature in self.features}


def describe_window(window: Window, ladder: Ladder) -> str:
    """Say in words what a window's edges are, and by how much they are off."""
    if window.lifetime:
        return "lifetime, all that is on record before the instant"
    length, finest = format_duration(window.length), format_duration(ladder.finest)
    if window.exact:
        return f"{length}, exact to the microsecond"
    if window.offset:
        return f"{length} ending {format_duration(window.offset)} before, both edges floored to {finest}"
    return f"{length}, left edge floored to {finest}: counts up to {finest} more"
