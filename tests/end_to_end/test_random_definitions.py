"""Random definitions over random events: what is served, the training set and the oracle are the same.

`TRIAL_SEEDS=25` takes so many seeds instead of a few, and `TRIAL_SEED=7` begins with that one.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rtml.algebra import catalog
from rtml.columns import TIMESTAMP
from rtml.instants import DAY, HOUR, MINUTE, Instant, to_datetime
from rtml.tiles import LIFETIME
from rtml_assets.testing import LocalPlatform
from tests import oracle
from tests.end_to_end.definitions_of import Definitions, Source, View, draw_definitions, kinds_of
from tests.end_to_end.events_of import Draw, frame, identified
from tests.oracle import Event

RUNS = int(os.environ.get("TRIAL_SEEDS", "4"))
FIRST = int(os.environ.get("TRIAL_SEED", "1"))
SERVICE = "all_of_it"
NEVER = 2**63 - 1

# Instants are asked long before and after the few days of some trials.
pytestmark = pytest.mark.filterwarnings("ignore:.* rows lie outside:rtml.NotBuiltWarning")


@pytest.mark.parametrize("run", range(RUNS))
def test_online_is_offline_is_the_oracle(run: int, tmp_path: Path) -> None:
    seed = FIRST + run
    rng = random.Random(seed)
    definitions = draw_definitions(rng)
    features = tmp_path / f"features_{seed}.py"
    features.write_text(definitions.text)
    try:
        with LocalPlatform(str(features)) as platform:
            compared = Trial(platform, definitions, rng).run()
    except Exception as error:
        error.add_note(f"To repeat it: TRIAL_SEED={seed} TRIAL_SEEDS=1. The definitions:\n{definitions.text}")
        raise
    print(f"seed {seed}: {dict(compared)}")
    assert min(compared[road] for road in ("online", "serving", "hindsight")) > 0


def test_the_generator_draws_all_of_the_catalog() -> None:
    """Every aggregate over every kind of column that it takes, tails of both kinds, and whatever a view may have."""
    drawn: set[tuple[str, str | None]] = set()
    shapes: set[tuple[bool, bool, bool]] = set()
    lifetimes = offsets = False
    for seed in range(300):
        definitions = draw_definitions(random.Random(seed))
        for view in definitions.views:
            kinds = {column.name: column.kind for column in definitions.sources[view.source].columns}
            kinds |= {name: part.kind for name, part in view.derive.items()}
            drawn |= {(feature.aggregate, kinds.get(feature.column)) for feature in view.features}
            shapes |= {(view.where is None, not view.derive, feature.exact) for feature in view.features}
            lifetimes |= any(feature.length == LIFETIME for feature in view.features)
            offsets |= any(feature.offset for feature in view.features)
    expected: set[tuple[str, str | None]] = set()
    for name, aggregate in catalog.AGGREGATES.items():
        expected |= {(name, kind) for kind in kinds_of(aggregate)} if aggregate.takes_column else {(name, None)}
    assert drawn == expected
    assert len(shapes) == 8
    assert (lifetimes, offsets) == (True, True)


class Trial:
    """One set of definitions: rounds of events, what was asked after each, and what is compared."""

    def __init__(self, platform: LocalPlatform, definitions: Definitions, rng: random.Random) -> None:
        self.platform = platform
        self.definitions = definitions
        self.rng = rng
        self.draw = Draw(rng, definitions)
        self.entities = self.draw.entities()
        self.sent: dict[str, list[Event]] = {name: [] for name in definitions.sources}
        self.published: dict[str, dict[tuple[int, int], Instant]] = {name: {} for name in definitions.sources}
        self.asked: list[tuple[Instant, pl.DataFrame]] = []
        self.compared: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Return how many values were compared on each road."""
        rounds = self.rng.randrange(1, 4)
        for number in range(rounds):
            last = number == rounds - 1
            self._send(last=last)
            coming = self.draw.now + self.rng.choice([1, MINUTE, HOUR, 3 * DAY])
            instants = self._instants(coming)
            self._ask(instants)
            if last or self.rng.random() < 0.5:
                self.platform.compact()
                self._publish()
                self._ask(instants)
            present = [at for at in instants if at >= self.draw.now]
            self.asked += [(at, self._online(at)) for at in self.rng.sample(present, min(2, len(present)))]
            self.draw.now = coming
        self._train()
        return self.compared

    def _send(self, *, last: bool) -> None:
        for name, events in self.draw.round(last=last).items():
            rows = frame(self.definitions.sources[name], events)
            cut = self.rng.randrange(len(events) + 1)
            self.platform.send(name, rows[:cut], ingested_at="stamp")
            if self.rng.random() < 0.2:
                self.platform.crash()
            self.platform.send(name, rows[cut:], ingested_at="stamp")
            self.sent[name] += events
        self.platform.settle()

    def _publish(self) -> None:
        """Remember which late events are servable from now on, in their source's own time."""
        for name, events in self._events().items():
            for event in events:
                self.published[name].setdefault((event.time, event.id64), self.sent[name][-1].ingested)

    def _events(self) -> dict[str, list[Event]]:
        """Return each source's events, each once, as far as they may have come: none of the future."""
        found = {}
        for name, source in self.definitions.sources.items():
            sent = [e for e in self.sent[name] if e.time <= e.ingested + source.skew]
            once = oracle.counted(identified(self.platform.client, source, sent), source.lateness, late_too=True)
            known = self.published[name]
            found[name] = [replace(event, published=known.get((event.time, event.id64), NEVER)) for event in once]
        return found

    def _instants(self, coming: Instant) -> list[Instant]:
        """Draw instants that may be asked: around the present, and with events at the very edges of windows."""
        rng, now = self.rng, self.draw.now
        sent = {name: events for name, events in self.sent.items() if events}
        source = {name: self.definitions.sources[name] for name in sent}
        earliest = max((events[-1].ingested - source[name].lateness for name, events in sent.items()), default=now)
        lengths = [feature.length + feature.offset for view in self.definitions.views for feature in view.features]
        times = [event.time for events in sent.values() for event in events] or [now]
        edges = [rng.choice(times) + rng.choice([0, *lengths]) + rng.choice([0, 1]) for _ in range(40)]
        found = [at for at in edges if earliest <= at <= coming][:4]
        found += [earliest, now, rng.randrange(min(earliest, now), now + 1), rng.randrange(now, coming)]
        return sorted({at for at in found if at >= earliest})

    def _online(self, at: Instant) -> pl.DataFrame:
        return self.platform.online(SERVICE, self.entities, at=to_datetime(at))

    def _ask(self, instants: Iterable[Instant]) -> None:
        """Compare what is served with what is on time, and what is late and published."""
        events = self._events()
        truth = {
            name: oracle.known(events[name], source.lateness, NEVER, NEVER - 1)
            for name, source in self.definitions.sources.items()
        }
        for at in instants:
            self._compare("online", self._online(at), [at] * len(self.entities), lambda source, at: truth[source.name])

    def _train(self) -> None:
        """Compare training sets with the oracle, at any instant, and with what was answered at the instants asked."""
        events = self._events()
        times = [event.time for some in events.values() for event in some] or [self.draw.now]
        past = [self.rng.choice(times) + self.rng.choice([0, 1, MINUTE, HOUR]) for _ in range(6)]
        rows = [(at, entity) for at in [*past, *(at for at, _ in self.asked)] for entity in self.entities]
        self.rng.shuffle(rows)
        spine = pl.DataFrame([entity for _, entity in rows], schema=self._key_schema())
        spine = spine.with_columns(pl.Series("timestamp", [at for at, _ in rows], dtype=pl.Int64).cast(TIMESTAMP))
        instants = [at for at, _ in rows]
        serving = self.platform.historical(SERVICE, spine)
        assert serving.select(spine.columns).equals(spine)
        known: dict[tuple[str, Instant], list[Event]] = {}

        def at_serving(source: Source, at: Instant) -> list[Event]:
            key = source.name, at
            return known.setdefault(key, oracle.known(events[source.name], source.lateness, at, at))

        self._compare("serving", serving, instants, at_serving)
        hindsight = self.platform.historical(SERVICE, spine, known_at="hindsight")
        self._compare("hindsight", hindsight, instants, lambda source, at: events[source.name])
        for at, answer in self.asked:
            self._compare("online at the time", answer, [at] * len(self.entities), at_serving)

    def _key_schema(self) -> dict[str, pl.DataType]:
        kinds: dict[str, pl.DataType] = {"str": pl.String(), "int": pl.Int64(), "bool": pl.Boolean()}
        return {key.name: kinds[key.kind] for key in self.definitions.keys}

    def _compare(self, road: str, got: pl.DataFrame, instants: Sequence[Instant], known: Any) -> None:
        """Compare every feature of every row with the oracle's, over the events that count there."""
        seen: dict[tuple[str, Instant], dict[str, list[Event]]] = {}
        joined = {key for view in self.definitions.views for key in view.keys}
        for row, at in zip(got.select(*joined, pl.col("^.*__.*$")).to_dicts(), instants, strict=True):
            for view in self.definitions.views:
                if (view.name, at) not in seen:
                    source = self.definitions.sources[view.source]
                    seen[view.name, at] = _by_entity(view.seen(known(source, at)))
                of_entity = seen[view.name, at].get(view.key_of(row), [])
                self.compared[road] += _check(road, view, row, at, of_entity)


def _by_entity(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.key, []).append(event)
    return found


def _check(road: str, view: View, row: dict[str, Any], at: Instant, events: list[Event]) -> int:
    """Compare the features of one view, of one entity's events; return how many."""
    key = view.key_of(row)
    for feature in view.features:
        floor = 1 if feature.exact else view.finest
        window = oracle.window(events, key, at, feature.length, floor, feature.offset)
        told = dict(feature.parameters), oracle.edges(at, feature.length, floor, feature.offset)
        expected = oracle.value(feature.aggregate, window, feature.column, *told)
        got = row[f"{view.name}__{feature.name}"]
        assert oracle.agree(feature.aggregate, got, expected, window, feature.column, *told), (
            f"{road}: {view.name}__{feature.name} of {key} at {at} ({to_datetime(at)}): got {got}, "
            f"expected {expected} of {len(window)} events, the last of them {window[-3:]}"
        )
    return len(view.features)
