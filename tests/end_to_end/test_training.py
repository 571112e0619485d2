"""What serving answered, the training set at the same instants, and the oracle: all the same, and no leaks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rtml.columns import TIMESTAMP
from rtml.instants import HOUR, MINUTE, SECOND, to_datetime
from rtml_assets.testing import LocalPlatform
from tests import oracle
from tests.end_to_end.test_platform import DEFINITIONS, LATENESS, World, desk_events, frame, generate
from tests.oracle import Event

# Instants are asked long before and after the few days of some trials.
pytestmark = pytest.mark.filterwarnings("ignore:.* rows lie outside:rtml.NotBuiltWarning")

Servable = Mapping[tuple[int, int], int]
"""When late events became servable, by time and id64."""


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform(DEFINITIONS) as platform:
        yield platform


def send(platform: LocalPlatform, events: list[Event]) -> None:
    platform.send("trades", frame(events), ingested_at="stamp")
    platform.settle()


def pass_time(platform: LocalPlatform) -> None:
    """Another account trades, later than all that was asked."""
    World.now += MINUTE
    World.examples += 1
    values = {"price": 1.0, "lots": 1, "desk": 0, "id": f"later{World.examples}"}
    send(platform, [Event("another", World.now, World.examples, World.now, values)])


def spine_of(entities: list[dict[str, Any]], instants: list[int]) -> pl.DataFrame:
    rows = [{**entity, "timestamp": at} for at in instants for entity in entities]
    schema = {"account": pl.String, "desk": pl.Int64, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("timestamp").cast(TIMESTAMP))


def check(platform: LocalPlatform, got: pl.DataFrame, events: list[Event], servable: Servable) -> int:
    """Compare every feature of rows of (account, desk, timestamp) with the oracle; return how many."""
    truth = {
        "account_trades": oracle.counted(events, LATENESS, late_too=True),
        "desk_trades": oracle.counted(desk_events(events), LATENESS, late_too=True),
    }
    instants = got["timestamp"].dt.epoch("us")
    compared = 0
    for row, at in zip(got.to_dicts(), instants, strict=True):
        for name, plan in platform.registry.plans.items():
            key = row["account"] if name == "account_trades" else f"{row['desk']}/{row['account']}"
            known = [e for e in truth[name] if oracle.servable(e, LATENESS, at, servable.get((e.time, e.id64)))]
            for feature in plan.features:
                floor = 1 if feature.exact else plan.tiles.finest
                window = oracle.window(known, key, at, feature.window, floor, feature.offset)
                expected = oracle.value(feature.aggregate, window, feature.column)
                value = row[f"{name}__{feature.name}"]
                assert oracle.agree(feature.aggregate, value, expected, window, feature.column), (
                    f"{name}__{feature.name} of {key!r} at {at}: got {value}, expected {expected}"
                )
                compared += 1
    return compared


@settings(max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_training_set_is_what_serving_answered(platform: LocalPlatform, seed: int) -> None:
    """Events come in rounds, compacted now and then; after each, serving is asked at an instant of its own."""
    rng = random.Random(seed)
    events = generate(rng)
    entities = [
        {"account": account, "desk": desk}
        for account, desk in [*dict.fromkeys((e.key, e.values["desk"]) for e in events), ("never seen", 0)]
    ]
    stamps = sorted({e.ingested for e in events})
    ends = sorted(rng.sample(stamps, min(len(stamps), 4)))
    asked: list[int] = []
    answers: list[pl.DataFrame] = []
    servable: dict[tuple[int, int], int] = {}
    for begin, end in zip([-1, *ends], ends, strict=False):
        send(platform, [e for e in events if begin < e.ingested <= end])
        if rng.random() < 0.6:
            platform.compact()
            for event in events:
                if event.ingested <= end:
                    servable.setdefault((event.time, event.id64), end)
        coming = min((stamp for stamp in stamps if stamp > end), default=end + HOUR)
        asked.append(rng.randrange(end, coming))
        answers.append(platform.online("risk", entities, at=to_datetime(asked[-1])))
    seen = [e for e in events if e.ingested <= ends[-1]]
    World.now = max(World.now, *asked)
    pass_time(platform)
    platform.compact()
    spine = spine_of(entities, asked)
    online = pl.concat(answers).with_columns(spine["timestamp"])
    offline = platform.historical("risk", spine)
    assert online.select(sorted(online.columns)).schema == offline.select(sorted(offline.columns)).schema
    assert check(platform, offline, seen, servable) == check(platform, online, seen, servable) > 50


@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_nothing_leaks_from_the_future(platform: LocalPlatform, seed: int) -> None:
    """Made again after more has happened, arrived, been corrected and published, a training set is the same."""
    rng = random.Random(seed)
    events = generate(rng)
    while len(events) < 100:
        events = generate(rng)
    send(platform, events)
    platform.compact()
    own = sorted({e.time for e in rng.sample(events, 8)})  # rows at the very instants of events
    entities = [{"account": e.key, "desk": e.values["desk"]} for e in rng.sample(events, 3)]
    spine = spine_of(entities, [*own, World.now - HOUR, World.now])
    before = platform.historical("risk", spine, labels=["next_trade"])
    hindsight = platform.historical("risk", spine, known_at="hindsight")
    features = [name for name in before.columns if not name.startswith("next_trade")]

    send(platform, meddle(rng, events, own))
    platform.compact()
    after = platform.historical("risk", spine, labels=["next_trade"])
    assert_frame_equal(after.select(features), before.select(features), rel_tol=1e-9)
    assert_frame_equal(platform.historical("risk", spine), before.select(features), rel_tol=1e-9)
    mature = before.filter("next_trade__mature").select("next_trade__price", "next_trade__mature")
    assert mature.height > 0
    assert after.filter(before["next_trade__mature"]).select(mature.columns).equals(mature)
    # It could have failed: by event time alone, what came later is in the rows' past.
    assert not platform.historical("risk", spine, known_at="hindsight").equals(hindsight)


def meddle(rng: random.Random, events: list[Event], own: list[int]) -> list[Event]:
    """What came after the rows were made: on time and late events of their past, of their instants, of the future."""
    made = World.now
    found = []
    for number in range(60):
        World.now += rng.randrange(SECOND)
        like = rng.choice(events)
        time = rng.choice([made - 1, made, made + 1, World.now, rng.choice(own), rng.choice(own) - 1, like.time - 1])
        values = {**like.values, "price": 1e9, "lots": 1000, "id": f"m{World.examples}-{number}"}
        found.append(Event(like.key, time, 0, World.now, values))
    corrected = rng.sample(events, 20)
    return found + [
        Event(e.key, e.time, e.id64, World.now, {**e.values, "price": -1e9, "lots": -1000}) for e in corrected
    ]
