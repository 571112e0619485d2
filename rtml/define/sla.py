"""What is promised of a source, a view or a service: bounds that the watch measures all day."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rtml.define.naming import check_duration, place
from rtml.errors import DefinitionError, UnknownNameError, near_miss
from rtml.instants import Duration

Kind = Literal["source", "view", "service"]

DURATIONS = ("freshness", "lag", "heartbeat", "p99")
SHARES = ("late", "duplicates", "refused")
PROMISES: dict[Kind, tuple[str, ...]] = {
    "source": ("freshness", "lag", "heartbeat", "late", "duplicates", "refused", "nulls"),
    "view": ("freshness", "nulls"),
    "service": ("freshness", "p99", "availability"),
}
"""What can be promised of each kind of definition."""
REMEDIES: dict[Kind, tuple[str, ...]] = {"source": ("restart",), "view": ("backfill",), "service": ()}
"""What can be done by itself when a promise is broken: start the source's flows anew; compact the days touched."""


def _check_share(where: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DefinitionError.at(where, name, "a share between 0 and 1", value)


def _check_objective(where: str, name: str, value: object) -> None:
    if value is None and name == "availability":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise DefinitionError.at(where, name, "a share above 0 and below 1, like 0.999", value)


def _check_remedies(where: str, remedies: Sequence[str]) -> None:
    known = [remedy for of_kind in REMEDIES.values() for remedy in of_kind]
    for remedy in remedies:
        if remedy not in known:
            raise DefinitionError(f"{where}: remedy: there is no {remedy!r}.{near_miss(str(remedy), known)}")


@dataclass(frozen=True)
class SLA:
    """Bounds of a source, a view or a service; what is left out has the default of `DEFAULTS`, or no bound.

    Args:
        freshness: source: from an event entering the stream to its being servable, p99 of the last minute. View and
            service: how long ago the stream was servable to its end, beyond an epoch of the tiles flow.
        lag: how long the oldest entry that is not servable yet may have waited (an epoch is part of that).
        heartbeat: how long a heartbeat may be missing at the other end of the tiles flow.
        p99: of a service's answers in the last minute.
        availability: which share of a service's requests is answered.
        late, duplicates, refused: which share of the last minute's events may be.
        nulls: by column of a source, or by feature of a view: which share may be null.
        objective: which share of looks must find a bound kept, over `budget`; availability is its own objective.
        budget: the time over which the error budget is counted.
        remedy: what to do by itself when it is broken: `"restart"` a source's flows, `"backfill"` a view.

    Raises:
        DefinitionError: a bound cannot mean what it says.
    """

    freshness: str | None = None
    lag: str | None = None
    heartbeat: str | None = None
    p99: str | None = None
    availability: float | None = None
    late: float | None = None
    duplicates: float | None = None
    refused: float | None = None
    nulls: Mapping[str, float] = field(default_factory=dict)
    objective: float = 0.99
    budget: str = "30d"
    remedy: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is no bound."""
        where = f"SLA ({place()})"
        for name in DURATIONS:
            if getattr(self, name) is not None:
                check_duration(where, name, getattr(self, name))
        check_duration(where, "budget", self.budget)
        if not isinstance(self.nulls, Mapping):
            raise DefinitionError.at(where, "nulls", "shares by column, like {'amount': 0.1}", self.nulls)
        shares = {name: share for name in SHARES if (share := getattr(self, name)) is not None}
        for name, share in {**shares, **{f"nulls[{name!r}]": share for name, share in self.nulls.items()}}.items():
            _check_share(where, name, share)
        for name in ("objective", "availability"):
            _check_objective(where, name, getattr(self, name))
        remedies = (self.remedy,) if isinstance(self.remedy, str) else tuple(self.remedy)
        object.__setattr__(self, "remedy", remedies)
        _check_remedies(where, remedies)

    def us(self, name: str) -> Duration | None:
        """Return a bound that is a duration, in microseconds."""
        text = getattr(self, name)
        return None if text is None else check_duration("SLA", name, text)

    @property
    def budget_us(self) -> Duration:
        """The time over which the error budget is counted, in microseconds."""
        return check_duration("SLA", "budget", self.budget)

    def promised(self) -> set[str]:
        """Return the names of the bounds that were given."""
        given = {name for name in (*DURATIONS, *SHARES, "availability") if getattr(self, name) is not None}
        return given | ({"nulls"} if self.nulls else set())


DEFAULTS: dict[Kind, SLA] = {
    "source": SLA(lag="30s", heartbeat="10s", refused=0.05),
    "view": SLA(),
    "service": SLA(p99="250ms", availability=0.99),
}
"""What is watched where nothing was promised: only what is wrong on any platform. A view's freshness defaults to its
own `freshness`, a service's to the loosest of its views."""


def check_sla(where: str, kind: Kind, sla: object, names: Collection[str] = ()) -> None:
    """Refuse an SLA that does not suit a definition; `names` are its columns or features.

    Raises:
        DefinitionError: it is no SLA, or promises what such a definition has not.
        UnknownNameError: it bounds the nulls of a column or feature that there is not.
    """
    if sla is None:
        return
    if not isinstance(sla, SLA):
        raise DefinitionError.at(where, "sla", "an rtml.SLA", sla)
    for name in sorted(sla.promised() - set(PROMISES[kind])):
        raise DefinitionError(f"{where}: sla: a {kind} has no {name}; it has {', '.join(PROMISES[kind])}")
    for remedy in sla.remedy:
        if remedy not in REMEDIES[kind]:
            able = f"a {kind}'s is {REMEDIES[kind][0]!r}" if REMEDIES[kind] else f"a {kind} has none"
            raise DefinitionError(f"{where}: sla: remedy {remedy!r} is none of a {kind}; {able}")
    what = "feature" if kind == "view" else "column"
    for name in sla.nulls:
        if name not in names:
            raise UnknownNameError.of(what, name, names, f"{where}, sla: nulls")


def agreed(kind: Kind, sla: SLA | None, freshness: str | None = None) -> SLA:
    """Return an SLA with the defaults of its kind in place of what it leaves out; `freshness` is that of the views."""
    given, default = sla or SLA(), DEFAULTS[kind]
    missing: dict[str, Any] = {
        name: getattr(default, name) for name in PROMISES[kind] if name != "nulls" and getattr(given, name) is None
    }
    if kind != "source" and given.freshness is None:
        missing["freshness"] = freshness
    return replace(given, **missing)
