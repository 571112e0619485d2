"""Replays: in the order of stamps, together over all sources, at the pace asked."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from rtml.instants import MINUTE, SECOND, to_instant
from rtml_assets.runtime.replay import replay, steps
from streaming.producer import Producer

START = datetime(2013, 3, 1, tzinfo=UTC)


def frame_of(*minutes):
    stamps = [START + timedelta(minutes=minute) for minute in minutes]
    return pl.DataFrame({"minute": minutes, "ingested_at": stamps}).with_columns(
        pl.col("ingested_at").dt.cast_time_unit("us")
    )


class Recorder(Producer):
    """A producer that remembers."""

    def __init__(self):
        self.sent: list[int] = []
        self.ticks: list[int | None] = []

    def send(self, frame, *, ingested_at=None, partition=None):
        assert ingested_at == "ingested_at"
        self.sent += frame["minute"].to_list()
        return frame.height

    def tick(self, stamp=None):
        self.ticks.append(stamp)


class Clock:
    """A clock that moves by sleeping."""

    def __init__(self):
        self.now, self.slept = 0.0, 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


def test_steps_hold_every_event_once_in_order():
    taken = list(steps({"a": frame_of(5, 0, 1, 9), "b": frame_of(1, 30)}, 5 * MINUTE))
    assert [step.until for step in taken] == sorted({step.until for step in taken})
    assert [row for step in taken for row in step.frames["a"]["minute"]] == [0, 1, 5, 9]
    assert [row for step in taken for row in step.frames["b"]["minute"]] == [1, 30]
    for step in taken:
        assert all(to_instant(at) < step.until for frame in step.frames.values() for at in frame["ingested_at"])
    assert taken[-1].until == to_instant(START + timedelta(minutes=30)) + 1


def test_steps_of_nothing_are_none():
    assert list(steps({"a": frame_of(0)[:0]}, MINUTE)) == []


def test_a_quiet_source_is_ticked_along():
    producers = {"busy": Recorder(), "quiet": Recorder()}
    frames = {"busy": frame_of(*range(120)), "quiet": frame_of(3)}
    for _ in replay(frames, producers, 0):
        pass
    assert producers["busy"].sent == list(range(120))
    assert producers["quiet"].sent == [3]
    assert producers["quiet"].ticks == producers["busy"].ticks
    assert (producers["quiet"].ticks[-1] or 0) > to_instant(START + timedelta(minutes=119))


@pytest.mark.parametrize("speed", [60, 600, 7200])
def test_the_pace_is_the_one_asked(speed):
    clock = Clock()
    sent = list(replay({"a": frame_of(*range(600))}, {"a": Recorder()}, speed, clock=clock, sleep=clock.sleep))
    assert sent[-1].counts == {"a": 600}
    assert clock.slept == pytest.approx(599 * MINUTE / SECOND / speed, rel=0.02)


def test_as_fast_as_can_be_never_sleeps():
    clock = Clock()
    for _ in replay({"a": frame_of(*range(600))}, {"a": Recorder()}, 0, clock=clock, sleep=clock.sleep):
        pass
    assert clock.slept == 0


def test_a_replay_can_be_stopped():
    producer = Recorder()
    for _ in replay({"a": frame_of(*range(600))}, {"a": producer}, 0, stopped=lambda: len(producer.sent) >= 120):
        pass
    assert len(producer.sent) == 120
