"""Heartbeats on a real stream: they come through, and change nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from msgspec import json

import rtml
from rtml.define.source import EventSource
from rtml.errors import SendError
from rtml.instants import SECOND, now, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.runtime.behind import behind
from streaming import broker
from streaming.contribution import Sample, quantiles
from streaming.entries import Entries
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.heartbeats import first_event, last_event, note, parse_heard, send_heartbeats
from streaming.minute import KEPT, RECENT, Counts, Frequent, Summary, Times
from streaming.mirror import Mirror
from streaming.place import Place
from streaming.positions import Position, arrived_at, raise_position, read_positions
from streaming.producer import Producer
from streaming.rewind import first_ingested, last_ingested, offset_before
from streaming.sources.redis_stream import Reading, RedisStreamSource

DAY_ONE = datetime(2024, 1, 1, tzinfo=UTC)


class Message(rtml.Event):
    id: str
    at: rtml.Timestamp


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Any]:
    with broker.connect(redis_url) as client:
        yield client


@pytest.fixture
def source() -> EventSource:
    name = f"h{uuid4().hex[:12]}"
    return EventSource(name=name, schema=Message, timestamp="at", event_id="id", stream=rtml.RedisStream(name, 2))


def send(client: Any, source: EventSource, minute: int, partition: int = 0) -> None:
    at = DAY_ONE + timedelta(minutes=minute)
    frame = pl.DataFrame({"id": [f"e{minute}"], "at": [at]}, schema_overrides={"at": pl.Datetime("us", "UTC")})
    Producer(client, source, accept_stamps=True).send(frame, ingested_at="at", partition=partition)


def beat(client: Any, source: EventSource, times: int = 1) -> dict[int, str]:
    sent: dict[int, str] = {}
    for _ in range(times):
        sent = send_heartbeats(client, [source])[source.name]
    return sent


def opened(client: Any, source: EventSource, flow: str = "tiles") -> Any:
    key = keys.position(source.name) if flow == "tiles" else keys.mirrored(source.name)
    reading = Reading(flow, key, 1_000, 10_000, accept_stamps=True)
    figures = Figures(source.name, flow)
    return RedisStreamSource(client, source, reading, figures).build_part("read", "0", None)


def test_a_stream_that_was_never_written_stays_so(client: Any, source: EventSource) -> None:
    assert beat(client, source) == {}
    assert not client.exists(source.stream.key(0))
    send(client, source, 0)  # stamps of long ago are still the first
    assert set(beat(client, source)) == {0, 1}


def test_on_replay_time_they_move_the_offset_and_not_the_time(client: Any, source: EventSource) -> None:
    send(client, source, 5)
    sent = beat(client, source, 3)
    part = opened(client, source)
    (entries,) = part.next_batch()
    assert (len(entries), entries.heartbeat) == (1, sent[0])
    part.snapshot()
    part.next_batch()
    stored = read_positions(client, keys.position(source.name), 2)[0]
    assert stored == Position(sent[0], to_instant(DAY_ONE + timedelta(minutes=5)))
    later = beat(client, source)
    (entries,) = part.next_batch()
    assert (len(entries), entries.heartbeat) == (0, later[0])


def test_live_they_are_as_good_as_an_empty_read(client: Any, source: EventSource) -> None:
    with pytest.warns(UserWarning, match="are late"):
        Producer(client, source).send(
            pl.DataFrame({"id": ["a"], "at": [DAY_ONE]}, schema_overrides={"at": pl.Datetime("us", "UTC")}), partition=0
        )
    sent = beat(client, source)
    part = opened(client, source)
    (entries,) = part.next_batch()
    part.snapshot()
    assert part._position == Position(sent[0], arrived_at(sent[0].encode()))
    assert entries.heartbeat == sent[0]


def test_the_gate_and_the_mirror_pass_them_by(client: Any, source: EventSource, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    send(client, source, 1)
    beat(client, source)
    mirror, gate = Mirror(client, lake, source, Figures(source.name, "mirror")), Gate(source)
    part = opened(client, source, "mirror")
    (entries,) = part.next_batch()
    mirror.take(gate(entries))
    assert client.hgetall(keys.heartbeat(source.name, "mirror")) == {}  # nothing is durable yet
    mirror.flush()
    heard = parse_heard(client.hgetall(keys.heartbeat(source.name, "mirror")))
    assert heard[0].offset == entries.heartbeat
    assert pl.read_delta(lake.raw(source.name))["id"].to_list() == ["e1"]
    beat(client, source)
    (entries,) = part.next_batch()
    mirror.take(gate(entries))
    mirror.flush()
    assert parse_heard(client.hgetall(keys.heartbeat(source.name, "mirror")))[0].offset == entries.heartbeat
    assert pl.read_delta(lake.raw(source.name)).height == 1
    assert not Path(lake.quarantine(source.name)).exists()


def test_what_is_noted_never_goes_back(client: Any, source: EventSource) -> None:
    key = keys.heartbeat(source.name, "tiles")
    for offset, expected in (("5-1", "5-1"), ("5-0", "5-1"), ("5-10", "5-10"), ("4-99", "5-10"), ("10-0", "10-0")):
        client.eval(*note(source.name, "tiles", 0, offset)[1:])
        assert parse_heard(client.hgetall(key))[0].offset == expected
    assert abs(parse_heard(client.hgetall(key))[0].written_at - now()) < 60 * SECOND


def test_stamps_are_looked_for_behind_them(client: Any, source: EventSource) -> None:
    """An hour of heartbeats lies over the last event of a replay; only what has a stamp tells the time."""
    for minute in (1, 2, 3):
        send(client, source, minute)
        beat(client, source, 400)
    minutes = [to_instant(DAY_ONE + timedelta(minutes=minute)) for minute in (1, 2, 3)]
    assert first_ingested(client, source, 0) == minutes[0]
    assert last_ingested(client, source, 0) == minutes[2]
    events = [offset for offset, fields in client.xrange(source.stream.key(0)) if b"data" in fields]
    for instant, event in zip(minutes, events, strict=True):
        after = Position(offset_before(client, source, 0, instant))
        assert after.order < Position(event.decode()).order
        later = [found for found in events if Position(found.decode()).order > after.order]
        assert later == events[events.index(event) :]
    send(client, source, 4)  # not refused: wall-clock heartbeats are no stamps
    with pytest.raises(SendError, match="would go back in time"):
        send(client, source, 2)
    first = first_event(client, source.stream.key(0), f"({events[0].decode()}")
    assert first is not None
    assert b"tick" in first[1]


def test_nobody_is_behind_for_heartbeats_alone(client: Any, source: EventSource) -> None:
    send(client, source, 1)
    key = keys.position(source.name)
    assert "behind in partition 0" in behind(client, source, key, now())
    for partition in (0, 1):
        newest = last_event(client, source.stream.key(partition))
        assert newest is not None
        raise_position(client, key, partition, Position(newest[0].decode(), to_instant(DAY_ONE)))
    beat(client, source, 20)
    assert behind(client, source, key, now()) == ""


class TestTheLastMinute:
    def test_counts_are_forgotten(self) -> None:
        counts = Counts()
        counts.add(0, {"late": 2})
        counts.add(30 * SECOND, {"late": 3, "refused": 1})
        assert counts.totals(59 * SECOND) == {"late": 5, "refused": 1}
        assert counts.totals(61 * SECOND) == {"late": 3, "refused": 1}
        assert counts.totals(2 * RECENT) == {}

    def test_times_have_quantiles(self) -> None:
        times = Times()
        for step in range(1, 101):
            times.add(step, "gate", float(step))
        assert quantiles([Sample.of(times.samples(100)["gate"])], 50, 95, 99) == [50.5, 95.05, 99.01]
        assert times.samples(100 + RECENT) == {}

    def test_few_keys_are_told_from_many_however_they_come(self) -> None:
        few, many = Frequent(), Frequent()
        for number in range(2_000):
            few.add(number, {f"k{number % 3}": [0]})
            many.add(number, {f"k{number % 1_000}": [0]})
        assert [found and found.keys for found in (few.summary(2_000).most, many.summary(2_000).most)] == [3, KEPT]

    def test_the_most_frequent_is_found_within_its_bound(self) -> None:
        frequent, true, total = Frequent(), 0, 0
        for batch in range(60):
            rows = {f"k{batch}.{number}": [0] * (1 + number % 3) for number in range(2_000)}
            rows["hot"] = [0] * 400
            frequent.add(batch * SECOND, rows)
            true, total = true + 400, total + sum(map(len, rows.values()))
        most = frequent.summary(59 * SECOND).most
        assert most is not None
        assert (most.key, most.total) == ("hot", total)
        assert true - total / (KEPT + 1) <= most.events <= true
        assert most.keys > KEPT
        assert frequent.summary(3 * RECENT).most is None


def test_a_quiet_minute_has_no_freshness(client: Any, source: EventSource) -> None:
    """What a burst was late by is not told of the quiet after it."""
    clock = [now()]
    figures = Figures(source.name, "tiles", lambda: clock[0])
    figures.sent([clock[0] - 9 * SECOND])
    figures.servable(clock[0])
    figures.write(client)
    assert client.hget(keys.figures(source.name, "tiles"), "freshness_p99_ms") == b"9000.0"
    clock[0] += 2 * RECENT
    figures.write(client)
    kept = client.hgetall(keys.figures(source.name, "tiles"))
    assert not [name for name in kept if name.startswith(b"freshness")]
    assert kept[b"events_per_second"] == b"0.0"


def test_of_several_processes_the_slowest_counts(client: Any, source: EventSource) -> None:
    def pass_on(process: int, offset: str, count: int = 3) -> str | None:
        client.eval(*note(source.name, "tiles", 1, offset, Place(process, count))[1:])
        stored: Any = client.hgetall(keys.heartbeat(source.name, "tiles"))
        return parse_heard(stored)[1].offset if stored else None

    assert [pass_on(0, "7-0"), pass_on(2, "9-0"), pass_on(1, "8-1")] == [None, None, "7-0"]
    assert [pass_on(0, "10-0"), pass_on(0, "6-0"), pass_on(1, "10-0")] == ["8-1", "8-1", "9-0"]
    # Of another number of processes each has other shards: what the former ones have passed says nothing of them.
    assert [pass_on(0, "20-0", 2), pass_on(1, "12-0", 2), pass_on(2, "10-0")] == ["9-0", "12-0", "12-0"]


class TestSeveralProcesses:
    """Each adds its counts; the first one shows what all of them tell."""

    def figures(self, source: EventSource, clock: list[int]) -> list[Figures]:
        return [Figures(source.name, "tiles", lambda: clock[0], place=Place(process, 2)) for process in range(2)]

    def test_counts_and_rates_add_up_and_gauges_are_the_worst(self, client: Any, source: EventSource) -> None:
        clock = [now()]
        first, second = self.figures(source, clock)
        for figures, waits, late in ((first, [SECOND] * 90, 1), (second, [9 * SECOND] * 10, 2)):
            figures.count(late=late)
            figures.gauge(lag_ms=10.0 * late, cached_entities=100 * late)
            figures.sent([clock[0] - wait for wait in waits])
            figures.servable(clock[0])
            for took in range(late * 1_000):
                figures.stage("write", took / 1_000)
        second.write(client)
        key = keys.figures(source.name, "tiles")
        assert client.hkeys(key) == [b"late"]  # it shows nothing by itself
        first.write(client)
        shown = {name: float(text) for name, text in client.hgetall(key).items() if text[:1] not in b"{n"}
        assert (shown[b"late"], shown[b"lag_ms"], shown[b"cached_entities"]) == (3, 20.0, 300)
        assert shown[b"events_per_second"] == 100.0
        assert (shown[b"freshness_p50_ms"], shown[b"freshness_p99_ms"]) == (1_000.0, 9_000.0)
        write = json.decode(client.hget(key, "stages"))["write"]
        # Of 0, 1, … 999 and 0, 1, … 1999 ms together.
        assert write == pytest.approx({"p50": 750, "p95": 1_850, "p99": 1_970}, rel=0.02)

    def test_the_most_frequent_key_is_found_wherever_it_is_read(self, client: Any, source: EventSource) -> None:
        summaries = [Summary({"a": 5, "b": 3}, 10, 4), Summary({"b": 9, "c": 1}, 10, 2)]
        assert Summary.of(summaries).most == ("b", 12, 20, 4)
        assert Summary.of([]).most is None


def test_entries_say_how_many_events_they_are() -> None:
    assert len(Entries(0, [], [], [], [], "1-0")) == 0
