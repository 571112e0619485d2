"""When an entity's last event was, against all of its events."""

from __future__ import annotations

import random

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtml.algebra.family import Events, Lane
from rtml.instants import BEGINNING, DAY, HOUR, MINUTE
from rtml.online.codec import RAW_MARK, Header, Records
from rtml.reading import Fetched
from serving.last_event import expired, last_event
from tests.oracle import Event
from tests.rtml.test_tiles_and_answer import plan, read, stored

PLAN = plan((MINUTE, HOUR, DAY), [(HOUR, True), (3 * DAY, False)], 4)
START = 20_000 * DAY
LENGTH = 4 * DAY


def late_records(times: list[int]) -> bytes:
    layout = Records(PLAN)
    lanes = {"x": Lane(np.zeros(len(times)), np.ones(len(times), dtype=bool))}
    events = Events(np.array(times, dtype=np.int64), np.arange(len(times), dtype=np.uint64), lanes)
    return RAW_MARK + layout.encode(events, 0, layout.wide).tobytes()


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    span=st.sampled_from([MINUTE, HOUR, LENGTH]),
    late=st.lists(st.integers(0, LENGTH), max_size=3),
    header=st.booleans(),
    back=st.sampled_from([0, 1, MINUTE, HOUR, DAY]),
    ttl=st.sampled_from([MINUTE, HOUR, DAY, 3 * DAY]),
)
def test_it_is_never_taken_for_younger_than_it_is(
    seed: int, count: int, span: int, late: list[int], header: bool, back: int, ttl: int
) -> None:
    rng = random.Random(seed)
    times = sorted(START + LENGTH - rng.randrange(span + 1) for _ in range(count))
    at = START + LENGTH - back
    events = [Event("k", time, number, time, {"x": 1.0}) for number, time in enumerate(times)]
    fetched = read(PLAN, stored(PLAN, events, header=header), at)
    late = [START + time for time in late]
    if late:
        fetched.late = late_records(late)
    truth = max((time for time in [*times, *late] if time < at), default=BEGINNING)
    found = last_event(fetched, PLAN, at)
    assert found <= truth
    if not times or (header and times[-1] < at):
        assert found == truth, "the stream's and the late ones are known exactly"
    elif header and truth >= at - HOUR:
        assert truth - found < MINUTE, "near the instant it is known to the finest tile"
    if at - truth > ttl:
        assert expired(fetched, msgspec.structs.replace(PLAN, ttl=ttl), at)


def test_an_entity_of_late_events_alone_has_their_age() -> None:
    at = START + LENGTH
    fetched = Fetched(late=late_records([at - 2 * HOUR, at - 5 * HOUR, at + 1]))
    assert last_event(fetched, PLAN, at) == at - 2 * HOUR
    for ttl, old in ((HOUR, True), (3 * HOUR, False)):
        assert expired(fetched, msgspec.structs.replace(PLAN, ttl=ttl), at) is old


def test_a_late_event_may_be_younger_than_the_stream_s_own() -> None:
    at = START + LENGTH
    fetched = Fetched(header=Header(1, 0, at - DAY, at - DAY), late=late_records([at - HOUR]))
    assert last_event(fetched, PLAN, at) == at - HOUR


def test_without_a_ttl_nothing_expires() -> None:
    assert not expired(Fetched(header=Header(1, 0, 1, 1)), PLAN, START)
