"""Tiles, covers and answers, against brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml.algebra.family import Events, Lane
from rtml.answer import answer
from rtml.errors import DefinitionError
from rtml.instants import DAY, HOUR, MINUTE, SECOND
from rtml.online.adaptive import fold
from rtml.online.base import Base
from rtml.online.codec import RAW_MARK, Header, Records
from rtml.plan import Plan, PlannedFeature
from rtml.reading import Fetched, Reading, Turn
from rtml.tiles import LIFETIME, Ladder, Tile, Window
from tests import oracle
from tests.oracle import Event
from tests.rtml.trees import tree


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


def plan(ladder: tuple[int, ...], windows: Sequence[tuple[int, bool] | Window], raw_limit: int) -> Plan:
    features = []
    for number, (length, exact, offset) in enumerate(Window(*window) for window in windows):
        features += [
            PlannedFeature(f"count{number}", "count", "", "i64", length, exact, (), offset),
            PlannedFeature(f"last{number}", "last", "x", "f64", length, exact, (), offset),
            PlannedFeature(f"sum{number}", "sum", "x", "f64", length, exact, (), offset),
        ]
    return Plan("v", "s", 1, "e", (("k", "str"),), tuple(features), ladder, 0, 0, 1, None, "f", raw_limit)


class Stored(NamedTuple):
    """All that there is of an entity."""

    header: Header
    tiles: dict[Tile, bytes]
    raw: dict[int, bytes]


def stored(plan: Plan, events: list[Event], *, header: bool) -> Stored:
    """An entity as the writer leaves it, whole."""
    layout = Records(plan)
    values = np.array([event.values["x"] or 0.0 for event in events])
    lanes = {"x": Lane(values, np.array([event.values["x"] is not None for event in events], dtype=bool))}
    times = np.array([event.time for event in events], dtype=np.int64)
    records = layout.encode(Events(times, np.array([e.id64 for e in events], dtype=np.uint64), lanes), 0, layout.wide)
    tiles, raw = tree(plan, records)
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
        exact = rng.random() < 0.4
        length = rng.randint(1, 900 * SECOND) if exact else sizes[0] * rng.randint(1, 60)
        offset = 0 if exact or rng.random() < 0.5 else sizes[0] * rng.randint(1, 60)
        windows.append(Window(length, exact, offset))
    described = plan(sizes, windows, raw_limit)
    events = [
        Event(
            "k", rng.randrange(0, 1200 * SECOND, 250_000), rng.getrandbits(64), 0, {"x": rng.choice([None, 1.5, -2.0])}
        )
        for _ in range(rng.choice([1, 10, 200]))
    ]
    # Of published history alone there is no header, and nothing as late as the boundary.
    entity = stored(described, events, header=rng.random() < 0.7)
    for _ in range(5):
        at = rng.choice([rng.randint(1, 1300 * SECOND), rng.choice(events).time, rng.randrange(0, 1200) * SECOND + 1])
        if entity.header == Header():
            at += max(event.time for event in events) + 1
        fetched = read(described, entity, at)
        assert not fetched.damaged(described)
        values = answer(described, at, [fetched, Fetched()]).features
        for feature in described.features:
            floor = 1 if feature.exact else sizes[0]
            for row, known in enumerate([events, []]):
                truth = oracle.window(known, "k", at, feature.window, floor, feature.offset)
                expected = oracle.value(feature.aggregate, truth, "x")
                got = values[feature.name].values[row].item() if values[feature.name].valid[row] else None
                assert oracle.agree(feature.aggregate, got, expected, truth, "x"), (feature, at, got, expected)


@given(seed=st.integers(0, 2**32))
def test_a_lifetime_is_a_base_and_what_follows(seed: int) -> None:
    """Late events in the base or not, a base that is ahead of the meta, and tiles before it that are still there."""
    rng = random.Random(seed)
    described = plan((10 * SECOND, 60 * SECOND), [Window(LIFETIME, exact=True), Window(95 * SECOND, exact=True)], 3)
    drawn = [
        Event("k", rng.randrange(1200) * SECOND, n, rng.randrange(3_000) * SECOND, {"x": rng.choice([None, 1.5])})
        for n in range(rng.choice([3, 60]))
    ]
    late, on_time = drawn[: len(drawn) // 3], drawn[len(drawn) // 3 :]
    based_to = rng.randrange(0, 20) * 60 * SECOND
    base = Base(max(based_to, rng.randrange(0, 20) * 60 * SECOND), rng.randrange(3_000) * SECOND)
    inside = [e for e in on_time if e.time < base.up_to]
    inside += [e for e in late if e.time < base.up_to and e.ingested < base.folded_to]
    if rng.random() < 0.3:  # nothing came of it since the epoch
        base, inside = Base(), []
        on_time = [e for e in on_time if e.time >= based_to]
    gone = 0 if rng.random() < 0.5 else max(base.up_to, 0)
    entity = stored(described, [e for e in on_time if e.time >= gone], header=True)
    at = max(base.up_to, based_to) + rng.randint(95 * SECOND, 400 * SECOND)
    turn = Turn(described, at, based_to)
    fetched = fetch(entity, turn.narrow)
    if fetched.needs_head(described, at):
        fetched = fetch(entity, turn.wide)
    fetched.base = made_of(base, inside, described)
    fetched.late, fetched.late_at = encoded(described, late), np.array([e.ingested for e in late], "<i8").tobytes()
    values = answer(described, at, [fetched, Fetched()], based_to).features
    for feature in described.features[:3]:
        truth = oracle.window([*on_time, *late], "k", at, feature.window)
        got = values[feature.name].values[0].item() if values[feature.name].valid[0] else None
        expected = oracle.value(feature.aggregate, truth, "x")
        assert oracle.agree(feature.aggregate, got, expected, truth, "x"), (feature, at, got, expected)


def made_of(base: Base, events: list[Event], described: Plan) -> bytes | None:
    """A base of these events."""
    if not events:
        return None
    records = np.frombuffer(encoded(described, events), Records(described).wide, offset=1)
    return base._replace(state=fold(described, [(None, records)])[0]).encode()


def encoded(described: Plan, events: list[Event]) -> bytes:
    """Records with absolute times, as `late` has them."""
    lanes = {
        "x": Lane(
            np.array([e.values["x"] or 0.0 for e in events]),
            np.array([e.values["x"] is not None for e in events], dtype=bool),
        )
    }
    times, ids = np.array([e.time for e in events], dtype=np.int64), np.array([e.id64 for e in events], dtype=np.uint64)
    layout = Records(described)
    return RAW_MARK + layout.encode(Events(times, ids, lanes), 0, layout.wide).tobytes()


def test_one_turn_serves_every_instant_that_shares_its_key() -> None:
    windows = [
        Window(25 * SECOND, exact=True),
        Window(120 * SECOND, exact=False),
        Window(30 * SECOND, exact=False, offset=50 * SECOND),
    ]
    described = plan((10 * SECOND, 60 * SECOND), [*windows, Window(LIFETIME, exact=True)], 1)
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
