"""Random definitions: the text of a `features.py`, and in plain values what it means."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rtml
from rtml.algebra import catalog
from rtml.algebra.family import Aggregate, Parameters
from rtml.instants import DAY, MINUTE, SECOND, Duration, parse_duration
from rtml.texts import LONGEST_TEXT
from rtml.tiles import LIFETIME, Window
from tests.end_to_end.expressions_of import Column, Expression, Row, can_reckon, condition, number
from tests.oracle import Event

WINDOWS = ["1m", "5m", "7m30s", "30m", "1h", "90m", "3h", "24h", "36h", "2d", "7d", "8d", "lifetime"]
OFFSETS = ["5m", "1h", "3h", "1d", "2d"]
LADDERS: list[list[str]] = [
    ["1s", "1m", "1h"],
    ["5s", "1m", "20m", "4h"],
    ["10s", "5m", "1h", "1d"],
    ["30s", "1h", "12h"],
    ["1m", "1d"],
    ["5m"],
    ["1h"],
    ["5m", "6h", "1d"],
]
PARAMETERS: dict[str, dict[str, list[Any]]] = {
    "count_distinct": {"bound": [1, 3, 1000]},
    "approx_count_distinct": {"lg_k": [8, 12]},
    "approx_percentile": {"q": [0, 0.07, 0.5, 0.999, 1], "k": [8, 200]},
    "approx_percentiles": {"qs": [[0.5], [0.9, 0.1, 0.5]], "k": [8, 200]},
    "approx_top_k": {"k": [1, 3, 10], "counters": [0, 10]},
    "histogram": {"edges": [[0], [-2.5, 0, 1, 1e9]]},
    **{name: {"n": [1, 3, 20]} for name in ("first_n", "last_n", "last_distinct_n")},
    **{name: {"half_life": ["1m", "1h", "1d"]} for name in ("decayed_count", "decayed_sum", "decayed_mean")},
}
"""What aggregates may be given beside a column and windows; few, so that sketches are much in use."""
HEAD = """import polars as pl

import rtml
from rtml import Entity, EventSource, FeatureService, RedisStream, StreamFeatureView, Window
"""


@dataclass(frozen=True)
class Feature:
    """One feature; `length` and `offset` in µs."""

    name: str
    aggregate: str
    column: str
    length: Duration
    exact: bool
    parameters: Parameters = ()
    offset: Duration = 0


@dataclass(frozen=True)
class View:
    """A view, as it was drawn; `finest` is its finest tile in µs."""

    name: str
    source: str
    keys: tuple[str, ...]
    where: Expression | None
    derive: dict[str, Expression]
    features: tuple[Feature, ...]
    finest: Duration
    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What its aggregates read."""
        return tuple({feature.column: None for feature in self.features if feature.column})

    def key_of(self, row: Row) -> str:
        """Return the entity that a row is about."""
        return repr(tuple(row[key] for key in self.keys))

    def seen(self, events: Iterable[Event]) -> list[Event]:
        """Return what the view makes of a source's events."""
        found = []
        for event in events:
            row = {**event.values, **{name: part.meaning(event.values) for name, part in self.derive.items()}}
            if self.where is None or self.where.meaning(row) is True:
                values = {column: _lane(row[column]) for column in self.columns}
                found.append(replace(event, key=self.key_of(row), values=values))
        return found


@dataclass(frozen=True)
class Source:
    """A source, as it was drawn; durations in µs."""

    name: str
    columns: tuple[Column, ...]
    partitions: int
    lateness: Duration
    skew: Duration
    id_kind: str | None
    text: str


@dataclass(frozen=True)
class Definitions:
    """All that was drawn, and its text."""

    keys: tuple[Column, ...]
    sources: dict[str, Source]
    views: tuple[View, ...]
    text: str


def draw_definitions(rng: random.Random) -> Definitions:
    """Draw sources, views and a service over all of them, called `all_of_it`."""
    kinds = [rng.choice(["str", "str", "int", "bool"]) for _ in range(rng.choice([1, 2, 2, 3]))]
    keys = tuple(Column(f"k{place}", kind, wide=True) for place, kind in enumerate(kinds))
    sources = [_draw_source(rng, f"s{number}", keys) for number in range(rng.choice([1, 1, 2]))]
    views = [
        _draw_view(rng, f"{source.name}v{number}", source, keys)
        for source in sources
        for number in range(rng.randrange(1, 4))
    ]
    entities = {view.keys: f"Entity({_entity(view.keys)!r}, join_keys={list(view.keys)})" for view in views}
    rng.shuffle(views)
    parts = [HEAD, *(source.text for source in sources)]
    parts += [f"{_entity(names)} = {text}" for names, text in entities.items()]
    parts += [view.text for view in views]
    parts.append(f'all_of_it = FeatureService("all_of_it", features=[{", ".join(v.name for v in views)}], log=0)\n')
    return Definitions(keys, {source.name: source for source in sources}, tuple(views), "\n".join(parts))


def _draw_source(rng: random.Random, name: str, keys: Sequence[Column]) -> Source:
    kinds = [rng.choice(["float", "float", "int", "bool", "str"]) for _ in range(rng.randrange(1, 5))]
    values = [
        Column(f"v{number}", kind, rng.random() < 0.5, kind == "int" and rng.random() < 0.3)
        for number, kind in enumerate(["float", *kinds])
    ]
    id_kind = rng.choice(["str", "str", "int", None])
    columns = (*keys, *values)
    lateness, skew = rng.choice(["0s", "1s", "15m", "15m", "2h", "1d"]), rng.choice(["0s", "1m", "10m"])
    partitions = rng.randrange(1, 4)
    event_id = "" if id_kind is None else 'event_id="ref", '
    text = [f"\nclass {name.upper()}(rtml.Event):", f"    ref: {id_kind or 'str'}", "    at: rtml.Timestamp"]
    text += [
        f"    {column.name}: {column.kind}{' = rtml.Field(nullable=True)' if column.nullable else ''}"
        for column in columns
    ]
    text += [
        f'\n{name} = EventSource(name="{name}", schema={name.upper()}, timestamp="at", {event_id}'
        f'stream=RedisStream("stream_{name}", partitions={partitions}), lateness="{lateness}", skew="{skew}", '
        'starts="2023-01-01", ends="2024-12-31")'
    ]
    return Source(name, columns, partitions, _micros(lateness), _micros(skew), id_kind, "\n".join(text))


def _draw_view(rng: random.Random, name: str, source: Source, keys: Sequence[Column]) -> View:
    joined = tuple(column.name for column in rng.sample(keys, min(len(keys), rng.choice([1, 1, 2]))))
    derive = _draw_derived(rng, source.columns)
    derived = [Column(column, part.kind, nullable=True, wide=True) for column, part in derive.items()]
    where = condition(rng, (*source.columns, *derived)) if rng.random() < 0.6 else None
    windows = rng.sample(WINDOWS, rng.randrange(1, 5))
    ladder = rng.choice(LADDERS) if rng.random() < 0.5 else None
    tail = rng.choice([None, None, "exact", "tile"])
    values = [column for column in source.columns if column not in keys]
    features, texts = [], []
    drawn = _draw_aggregates(rng, [*values, *derived])
    asked = [rng.sample(windows, rng.randrange(1, len(windows) + 1)) for _ in drawn]
    asked = [
        [window for window in some if window != "lifetime" or catalog.AGGREGATES[aggregate].takes_lifetime] or ["1h"]
        for (aggregate, _), some in zip(drawn, asked, strict=True)
    ]
    finest = _finest([window for some in asked for window in some], ladder)
    for place, ((aggregate, column), some) in enumerate(zip(drawn, asked, strict=True)):
        given: dict[str, Any] = {"column": column} if column else {}
        given |= {name: rng.choice(choices) for name, choices in PARAMETERS.get(aggregate, {}).items()}
        given |= {"name": f"named{place}"} if rng.random() < 0.2 else {}
        made = getattr(rtml, constructor(aggregate))(**given, windows=some)
        spans = [_draw_window(rng, window, tail, finest) for window in some]
        features += [
            Feature(
                f"{made.stem}_{label}", aggregate, column, window.length, window.exact, made.parameters, window.offset
            )
            for _, label, window in spans
        ]
        shown = ", ".join(span for span, _, _ in spans)
        written = "".join(f", {name}={value!r}" for name, value in given.items())
        texts.append(f"rtml.{constructor(aggregate)}(windows=[{shown}]{written})")
    text = f'{name} = StreamFeatureView(name="{name}", source={source.name}, entity={_entity(joined)}, '
    text += "" if where is None else f"\n    where={where.text}, "
    text += f"\n    derive={{{', '.join(f'{c!r}: {e.text}' for c, e in derive.items())}}}, " if derive else ""
    text += f"tail={tail!r}, " if tail else ""
    text += f"ladder={ladder}, " if ladder else ""
    text += f"\n    features=[{', '.join(texts)}])"
    return View(name, source.name, joined, where, derive, tuple(features), finest, text)


def _draw_derived(rng: random.Random, columns: Sequence[Column]) -> dict[str, Expression]:
    derive = {}
    for place in range(rng.choice([0, 1, 2])):
        numeric = can_reckon(columns) and rng.random() < 0.7
        derive[f"d{place}"] = number(rng, columns) if numeric else condition(rng, columns, 1)
    return derive


def _draw_aggregates(rng: random.Random, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Draw different aggregates of different columns, of all that the catalog has and allows."""
    choices: list[tuple[str, str]] = []
    for name, aggregate in catalog.AGGREGATES.items():
        if not aggregate.takes_column:
            choices.append((name, ""))
            continue
        choices += [(name, one.name) for one in columns if one.kind in kinds_of(aggregate)]
    return rng.sample(choices, min(len(choices), rng.randrange(2, 8)))


def kinds_of(aggregate: type[Aggregate]) -> list[str]:
    """Return the kinds of columns that an aggregate takes."""
    takes = {
        "int": aggregate.takes_number,
        "float": aggregate.takes_number,
        "bool": aggregate.takes_boolean,
        "str": aggregate.takes_string,
    }
    return [kind for kind, taken in takes.items() if taken]


def constructor(aggregate: str) -> str:
    """Return what makes an aggregate: `DecayedSum` for `decayed_sum`."""
    return "".join(part.capitalize() for part in aggregate.split("_"))


def _draw_window(rng: random.Random, window: str, tail: str | None, finest: Duration) -> tuple[str, str, Window]:
    """Draw how a window is written; return with it its name, and what it means."""
    if window == "lifetime":
        return rng.choice(['"lifetime"', "Window.lifetime()"]), window, Window(LIFETIME, exact=True)
    offset = rng.choice(OFFSETS) if rng.random() < 0.25 else None
    if offset is not None and not (_micros(offset) % finest or _micros(window) % finest):
        told = ', tail="tile"' if tail == "exact" else ""
        meant = Window(_micros(window), exact=False, offset=_micros(offset))
        return f'Window("{window}", offset="{offset}"{told})', f"{window}_offset_{offset}", meant
    own = rng.choice([None, None, None, "exact", "tile"])
    length = _micros(window)
    resolved = own or tail or ("exact" if length <= DAY else "tile")
    if resolved == "tile" and length % finest:
        own = resolved = "exact"
    shown = f'"{window}"' if own is None else f'Window("{window}", tail="{own}")'
    return shown, window, Window(length, resolved == "exact")


def _finest(windows: Sequence[str], ladder: Sequence[str] | None) -> Duration:
    if ladder is not None:
        return _micros(ladder[0])
    shortest = min(map(_micros, windows))
    return 10 * SECOND if shortest < 6 * MINUTE else MINUTE if shortest < 30 * MINUTE else 5 * MINUTE


def _micros(text: str) -> Duration:
    return LIFETIME if text == "lifetime" else 0 if text == "0s" else parse_duration(text)


def _entity(keys: Iterable[str]) -> str:
    return "_".join(["entity", *keys])


def _lane(value: Any) -> Any:
    """Return a value as an aggregate sees it: of a boolean 0 or 1, of what is not finite or too long nothing."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return value if len(value.encode()) <= LONGEST_TEXT else None
    return None if isinstance(value, float) and not math.isfinite(value) else value
