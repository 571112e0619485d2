"""Random views over one source, of the whole catalog: every aggregate over every kind of column that it takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

import rtml
from rtml.algebra import catalog
from rtml.compile import compile_view
from rtml.define.feature import Tail
from rtml.instants import parse_duration
from rtml.plan import Plan
from rtml.registry import Registry
from tests.end_to_end.definitions_of import PARAMETERS, constructor, kinds_of

LADDERS = [["10s", "1m", "6m"], ["5s"], ["1s", "20s", "5m"], ["10s", "1h"], ["1m", "30m"]]
WINDOWS = ["20s", "90s", "400s", "20m", "3h"]
OFFSETS = ["20s", "1m", "400s", "1h"]
LATENESS = ["0s", "2s", "15s", "15s", "3m"]
EDGES: list[Tail] = ["exact", "tile"]
COLUMNS = {"f": "float", "n": "int", "b": "bool", "s": "str"}


class Reading(rtml.Event):
    """What happens: all of it may be null but its identity and its place."""

    ref: str
    at: rtml.Timestamp
    key: str
    f: float = rtml.Field(nullable=True)
    n: int = rtml.Field(nullable=True)
    b: bool = rtml.Field(nullable=True)
    s: str = rtml.Field(nullable=True)


@dataclass(frozen=True)
class Small(Registry):
    """Definitions whose tiles split after few events."""

    raw_limit: int = 64

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Every view's plan."""
        plans = {name: compile_view(view) for name, view in self.views.items()}
        return {name: msgspec.structs.replace(plan, raw_limit=self.raw_limit) for name, plan in plans.items()}


@dataclass(frozen=True)
class Drawn:
    """A source, views of it, and a service over all of them."""

    source: rtml.EventSource
    registry: Small
    service: str

    @property
    def views(self) -> list[rtml.StreamFeatureView]:
        """The views."""
        return list(self.registry.views.values())

    @property
    def aggregates(self) -> set[str]:
        """What the views are made of."""
        return {feature.aggregate for plan in self.registry.plans.values() for feature in plan.features}


def draw_catalog(rng: random.Random, seed: int) -> Drawn:
    """Draw definitions; those of a few seeds that follow each other have all of the catalog."""
    source = rtml.EventSource(
        name=f"readings{seed}",
        schema=Reading,
        timestamp="at",
        event_id="ref",
        stream=rtml.RedisStream(f"readings{seed}", 2),
        lateness=rng.choice(LATENESS),
        skew="3s",
        starts="2024-01-01",
        ends="2024-12-31",
    )
    choices = _choices()
    due = [choices[(seed * 5 + place) % len(choices)] for place in range(5)]
    drawn = [*due, *rng.sample(choices, rng.randrange(4))]
    cut = rng.randrange(1, len(drawn)) if rng.random() < 0.4 else len(drawn)
    parts = [part for part in (drawn[:cut], drawn[cut:]) if part]
    views = [_draw_view(rng, f"v{seed}_{number}", source, part) for number, part in enumerate(parts)]
    service = rtml.FeatureService(f"all{seed}", features=views, log=0)
    found = Registry.of([*views, service])
    registry = Small(found.sources, found.entities, found.views, found.services, raw_limit=rng.choice([1, 2, 4, 64]))
    return Drawn(source, registry, service.name)


def _choices() -> list[tuple[str, str]]:
    """Return every aggregate with every column that it takes, neighbours of different kinds."""
    found: list[tuple[str, str]] = []
    for name, aggregate in catalog.AGGREGATES.items():
        taken = [column for column, kind in COLUMNS.items() if kind in kinds_of(aggregate)]
        found += [(name, column) for column in taken] if aggregate.takes_column else [(name, "")]
    return [found[place * 31 % len(found)] for place in range(len(found))] if len(found) % 31 else found


def _draw_view(
    rng: random.Random, name: str, source: rtml.EventSource, parts: Sequence[tuple[str, str]]
) -> rtml.StreamFeatureView:
    ladder = rng.choice(LADDERS)
    tails: list[Tail | None] = [None, None, "exact", "tile"]
    pool = [window for window in WINDOWS if parse_duration(window) % parse_duration(ladder[0]) == 0]
    windows: list[str | rtml.Window] = [rng.choice(["lifetime"] if rng.random() < 0.25 else pool)]
    while len(windows) < rng.randrange(1, 4):
        windows.append(_draw_window(rng, rng.choice(pool), ladder[0]))
    features = []
    for place, (aggregate, column) in enumerate(parts):
        given: dict[str, Any] = {"column": column} if column else {}
        given |= {name: rng.choice(choices) for name, choices in PARAMETERS.get(aggregate, {}).items()}
        lasting = catalog.AGGREGATES[aggregate].takes_lifetime
        allowed = [window for window in windows if lasting or window != "lifetime"] or pool[:1]
        some = rng.sample(allowed, rng.randrange(1, len(allowed) + 1))
        labels: dict[str, Any] = {one.label if isinstance(one, rtml.Window) else one: one for one in some}
        made = getattr(rtml, constructor(aggregate))
        features.append(made(**given, windows=list(labels.values()), name=f"x{place}_{aggregate}_{column}"))
    return rtml.StreamFeatureView(
        name=name,
        source=source,
        entity=rtml.Entity("key"),
        tail=rng.choice(tails),
        ladder=ladder,
        salts=rng.choice([1, 1, 3]),
        features=features,
    )


def _draw_window(rng: random.Random, duration: str, finest: str) -> str | rtml.Window:
    offset = rng.choice(OFFSETS)
    if rng.random() < 0.4 and parse_duration(offset) % parse_duration(finest) == 0:
        return rtml.Window(duration, tail="tile", offset=offset)
    choices: list[str | rtml.Window] = [duration, *(rtml.Window(duration, tail=tail) for tail in EDGES)]
    return rng.choice(choices)
