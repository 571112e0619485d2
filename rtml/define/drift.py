"""How far what is served may move away from what a model was trained on, feature by feature."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from rtml.define.naming import check_type, place
from rtml.errors import DefinitionError, UnknownNameError

Severity = Literal["critical", "warning"]
Against = Literal["training", "week"]

REFERENCES: tuple[Against, ...] = get_args(Against)
MEASURES = ("psi", "ks", "js", "nulls", "unseen")
FEWEST = 30
"""With fewer rows than this no measure says anything."""


class Bounds(NamedTuple):
    """What one feature is held to."""

    psi: float = 0.2
    ks: float = 0.1
    js: float = 0.1
    nulls: float = 0.05
    unseen: float = 0.01
    minimum: int = 500
    severity: Severity = "warning"

    def of(self, measure: str) -> float:
        """Return the bound of a measure, by its name."""
        return float(getattr(self, measure))


@dataclass(frozen=True, eq=False)
class Drift:
    """Bounds beyond which a feature has drifted; what is not given is the service's, or else the platform's own.

    Args:
        psi: of the population stability index; 0.2 unless given. `math.inf` leaves the measure out.
        ks: of the Kolmogorov-Smirnov distance D, from 0 to 1; 0.1 unless given. 1 leaves it out, as with those below.
        js: of the Jensen-Shannon distance, from 0 to 1; 0.1 unless given.
        nulls: of how far the share of nulls may move, either way; 0.05 unless given.
        unseen: of the share of values that the reference does not have, beyond what it makes likely itself; 0.01 unless
            given. For integers, and for numbers of at most 20 different values.
        minimum: how many rows both sides must have for a verdict; 500 unless given.
        severity: what a drifted feature is, `"warning"` unless given; `"critical"` makes the check an error.
        features: other bounds for some features, by `view__feature`.
        against: what is compared with: `"training"`, the service's training set, and `"week"`, the seven days before.
        sample: how many rows of each side are looked at, evenly chosen over its days.

    Raises:
        DefinitionError: a bound is none, or bounds of a feature say what only the service's can.
    """

    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    nulls: float | None = None
    unseen: float | None = None
    minimum: int | None = None
    severity: Severity | None = None
    features: Mapping[str, Drift] = field(default_factory=dict)
    against: Sequence[Against] = REFERENCES
    sample: int = 50_000

    # Set by __post_init__; not a parameter.
    place: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        """Validate all parameters at once."""
        where = f"Drift ({place()})"
        self.__dict__["place"] = where
        for measure in MEASURES:
            _check_bound(where, measure, getattr(self, measure))
        if self.minimum is not None and not _is_count(self.minimum, FEWEST):
            raise DefinitionError.at(where, "minimum", f"{FEWEST} rows or more", self.minimum)
        if self.severity is not None and self.severity not in get_args(Severity):
            raise DefinitionError.at(where, "severity", "'critical' or 'warning'", self.severity)
        self._check_references(where)
        if not _is_count(self.sample, FEWEST):
            raise DefinitionError.at(where, "sample", f"{FEWEST} rows or more", self.sample)
        self._check_features(where)

    def _check_references(self, where: str) -> None:
        check_type(where, "against", self.against, (list, tuple), "a list of 'training' and 'week'")
        if not self.against or len(set(self.against)) != len(self.against):
            raise DefinitionError.at(where, "against", "'training', 'week' or both", self.against)
        for name in self.against:
            if name not in REFERENCES:
                raise UnknownNameError.of("reference", name, REFERENCES, f"{where}: against")
        object.__setattr__(self, "against", tuple(self.against))

    def _check_features(self, where: str) -> None:
        check_type(where, "features", self.features, Mapping, "Drift(...) by the names of features")
        for name, bounds in self.features.items():
            check_type(where, f"features[{name!r}]", bounds, Drift, "Drift(...)")
            if bounds.features or tuple(bounds.against) != REFERENCES or bounds.sample != Drift.sample:
                raise DefinitionError(
                    f"{where}: features[{name!r}]: features, against and sample are of the whole service"
                )

    def check(self, where: str, features: Collection[str], lists: Collection[str] = ()) -> None:
        """Refuse what does not fit a service with these features, and with others that are lists.

        Raises:
            UnknownNameError: there are bounds for a feature that it does not have; names the nearest.
            DefinitionError: of a sample no verdict can be told, or there are bounds for a list.
        """
        for name in self.features:
            if name in lists:
                raise DefinitionError(f"{where}: drift: features: {name!r} is a list: drift is told of single values")
            if name not in features:
                raise UnknownNameError.of("feature", name, features, f"{where}: drift: features")
        least = max((self.bounds(feature).minimum for feature in features), default=0)
        if self.sample < least:
            raise DefinitionError.at(where, "drift: sample", f"at least `minimum`, {least:,} rows", self.sample)

    def bounds(self, feature: str) -> Bounds:
        """Return what a feature is held to: its own bounds, then the service's, then the platform's."""
        given: dict[str, float | int | str] = {}
        for one in (self, self.features.get(feature)):
            if one is not None:
                given |= {name: value for name in Bounds._fields if (value := getattr(one, name)) is not None}
        return Bounds()._replace(**given)  # type: ignore[arg-type]


def _check_bound(where: str, measure: str, bound: object) -> None:
    if bound is None:
        return
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if measure == "psi" and not (number and bound > 0):  # type: ignore[operator]
        raise DefinitionError.at(where, measure, "more than 0", bound)
    if measure != "psi" and not (number and 0 < bound <= 1):  # type: ignore[operator]
        raise DefinitionError.at(where, measure, "more than 0, and at most 1", bound)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
