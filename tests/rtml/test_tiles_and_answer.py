"""Tiles, covers and answers, against brute force."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml.algebra.family import Events, Lane
from rtml.answer import Fetched, Reading, Turn, answer
from rtml.errors import DefinitionError
from rtml.instants import DAY, HOUR, MINUTE, SECOND
from rtml.online.adaptive import fold, grow
from rtml.online.codec import Header, Records, state_value
from rtml.plan import Plan, PlannedFeature
from rtml.tiles import Ladder, Tile
from tests import oracle
from tests.oracle import Event


@pytest.mark.parametrize(
    ("windows", "sizes"),
    [
        ([5 * MINUTE], (10 * SECOND, 5 * MINUTE)),
        ([90 * SECOND], (10 * SECOND,)),
        ([5 * MINUTE, 2 * HOUR], (10 * SECOND, 5 * MINUTE, HOUR)),
        ([6 * MINUTE, DAY], (MINUTE, HOUR, DAY)),
        ([30 * MINUTE, 3 * HOUR, 7 * DAY], (5 * MINUTE, HOUR, DAY)),
        ([30 * MINUTE], (5 * MINUTE,)),
    ],
)
def test_the_default_ladder(windows: list[int], sizes: tuple[int, ...]) -> None:
    assert Ladder.default(windows).sizes == sizes


@pytest.mark.parametrize("sizes", [(), (MINUTE, 90 * SECOND), (HOUR, MINUTE), (7 * HOUR,), (1,)])
def test_a_ladder_that_does_not_nest_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(DefinitionError):
        Ladder(sizes)


def plan(ladder: tuple[int, ...], windows: list[tuple[int, bool]], raw_limit: int) -> Plan:
    features = []
    for number, (length, exact) in enumerate(windows):
        features += [
            PlannedFeature(f"count{number}", "count", "", "i64", length, exact),
            PlannedFeature(f"last{number}", "last", "x", "f64", length, exact),
            PlannedFeature(f"sum{number}", "sum", "x", "f64", length, exact),
        ]
    return Plan("v", "s", 1, "e", (("k", "str"),), tuple(features), ladder, 0, 0, 1, None, "f", raw_limit)


class Stored(NamedTuple):
    """All that there is of an entity."""

    header: Header
    tiles: dict[Tile, bytes | None]
    raw: dict[int, bytes]


def stored(plan: Plan, events: list[Event], *, header: bool) -> Stored:
    """An entity as the writer leaves it, whole."""
    layout = Records(plan)
    values = np.array([event.values["x"] or 0.0 for event in events])
    lanes = {"x": Lane(values, np.array([event.values["x"] is not None for event in events], dtype=bool))}
    times = np.array([event.time for event in events], dtype=np.int64)
    records = layout.encode(Events(times, np.array([e.id64 for e in events], dtype=np.uint64), lanes), 0, layout.wide)
    tiles: dict[Tile, bytes | None] = {}
    raw: dict[int, bytes] = {}
    top = times // plan.tiles.coarsest
    for index in np.unique(top):
        grown = grow(plan, Tile(plan.tiles.top, int(index)), records[top == index])
        raw |= grown.raw
        tiles |= grown.leaves
        packed = fold(plan, [(None, found) for found in grown.states.values()])
        for (tile, _), state in zip(grown.states.items(), packed, strict=True):
            count = len(raw[tile.index]) // layout.narrow.itemsize if tile.level == 0 else 0
            tiles[tile] = state_value(count, state)
    known = Header(1, 0, int(times.max()), 1) if header and events else Header()
    return Stored(known, tiles, raw)


def read(plan: Plan, entity: Stored, at: int) -> Fetched:
    """What a reader fetches of it: the tail's cover, and the head's where that is needed."""
    turn = Turn(plan, at)
    fetched = fetch(entity, turn.narrow)
    return fetch(entity, turn.wide) if fetched.needs_head(plan, at) else fetched


def fetch(entity: Stored, reading: Reading) -> Fetched:
    values = [entity.tiles.get(tile) for tile in reading.tiles]
    return Fetched(entity.header, None, reading, values, {index: entity.raw.get(index, b"") for index in reading.raw})


@given(seed=st.integers(0, 2**32), raw_limit=st.sampled_from([1, 3, 64]))
def test_any_window_of_any_ladder_is_what_brute_force_says(seed: int, raw_limit: int) -> None:
    rng = random.Random(seed)
    ladder = rng.choice([(10, 60, 360), (5, 60), (30,), (1, 2, 4, 8)])
    sizes = tuple(size * SECOND for size in ladder)
    windows = []
    for _ in range(rng.randint(1, 3)):
        exact = rng.random() < 0.5
        length = rng.randint(1, 900 * SECOND) if exact else sizes[0] * rng.randint(1, 60)
        windows.append((length, exact))
    described = plan(sizes, windows, raw_limit)
    events = [
        Event(
            "k", rng.randrange(0, 1200 * SECOND, 250_000), rng.getrandbits(64), 0, {"x": rng.choice([None, 1.5, -2.0])}
        )
        for _ in range(rng.choice([1, 10, 200]))
    ]
    entity = stored(described, events, header=True)
    for _ in range(5):
        at = rng.choice([rng.randint(1, 1300 * SECOND), rng.choice(events).time, rng.randrange(0, 1200) * SECOND + 1])
        fetched = read(described, entity, at)
        assert not fetched.damaged(described)
        values = answer(described, at, [fetched, Fetched()]).features
        for feature in described.features:
            floor = 1 if feature.exact else sizes[0]
            for row, known in enumerate([events, []]):
                truth = oracle.window(known, "k", at, feature.window, floor)
                expected = oracle.value(feature.aggregate, truth, "x")
                got = values[feature.name].values[row].item() if values[feature.name].valid[row] else None
                assert oracle.agree(feature.aggregate, got, expected, truth, "x"), (feature, at, got, expected)


def test_one_turn_serves_every_instant_that_shares_its_key() -> None:
    described = plan((10 * SECOND, 60 * SECOND), [(25 * SECOND, True), (120 * SECOND, False)], 1)
    rng = random.Random(1)
    known: dict[tuple[int, ...], Turn] = {}
    for _ in range(3_000):
        at = rng.randint(1, 400 * SECOND)
        turn = known.setdefault(Turn.key(described, at), Turn(described, at))
        fresh = Turn(described, at)
        assert turn.tail == fresh.tail
        assert turn.head == fresh.head


def test_a_raw_edge_that_is_shorter_than_its_count_is_damaged() -> None:
    described = plan((10 * SECOND,), [(15 * SECOND, True)], 1)
    events = [Event("k", second * SECOND, second, 0, {"x": 1.0}) for second in range(30)]
    entity = stored(described, events, header=True)
    at = 28 * SECOND
    assert not read(described, entity, at).damaged(described)
    entity.raw[1] = entity.raw[1][:-1]
    assert read(described, entity, at).damaged(described) == [1]


def test_a_plan_survives_its_serialisation() -> None:
    described = plan((10 * SECOND,), [(15 * SECOND, True)], 1)
    again = Plan.decode(described.encode())
    assert again == described
    assert again.states.dtype == described.states.dtype
    assert msgspec.json.decode(described.encode())["raw_limit"] == 1
