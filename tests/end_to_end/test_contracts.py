"""A contract changes while events flow: nothing stops, nothing is lost, and what may not be does not get in."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rtml.define.written import Contract
from rtml.errors import NotReadyError
from rtml.instants import MINUTE, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import load
from rtml_assets.defs.materialize import CompactionError
from rtml_assets.runtime.contracts import put_in_force
from rtml_assets.runtime.deployments import deploy
from rtml_assets.tables.quarantine import refused
from rtml_assets.testing import LocalPlatform
from streaming.contracts import held, history, running
from streaming.producer import Producer
from streaming.rewind import request_rewind

START = to_instant("2024-03-01T00:00:00Z")
FEATURES = """
import polars as pl
import rtml
from rtml import Count, Entity, EventSource, FeatureService, RedisStream, StreamFeatureView, Sum

class Ride(rtml.Event):
    ride_id: str
    at: rtml.Timestamp
    city: str
{columns}

rides = EventSource(name="rides", schema=Ride, timestamp="at", event_id="ride_id",
                    stream=RedisStream("rides", partitions=2), starts="2024-01-01", ends="2024-12-31")
demand = StreamFeatureView(name="demand", source=rides, entity=Entity("city"),
                           features=[Count(windows=["24h"]), Sum("people", windows=["24h"]),
                                     Sum("fare", windows=["24h"])])
pricing = FeatureService("pricing", features=[demand])
"""
FIRST = "    people: pl.Int16\n    fare: pl.Float32 = rtml.Field(ge=0)"
SECOND = "    people: pl.Int64\n    fare: float\n    tip: float = rtml.Field(nullable=True)"
REFUSED = "    people: pl.Int32\n    fare: float\n    tip: float = rtml.Field(nullable=True)\n    seat: str"


def define(path: Path, columns: str) -> None:
    path.write_text(FEATURES.format(columns=columns))


class Traffic:
    """Rides of the first contract and, when asked, of the second, one in two; all of them are remembered."""

    def __init__(self, platform: LocalPlatform) -> None:
        self.sent: list[dict[str, Any]] = []
        self._platform = platform
        self._numbers = itertools.count()

    def send(self, count: int, *, new: bool) -> None:
        client = self._platform.client
        producer = Producer(client, self._platform.registry.source("rides"), key=("city",), accept_stamps=True)
        for _ in range(count):
            number = next(self._numbers)
            at = START + number * MINUTE // 10
            ride = {"ride_id": f"r{number}", "at": at, "city": "ab"[number % 3 % 2], "people": number % 5, "fare": 0.5}
            if new and number % 2:
                ride |= {"people": 2**40 + number, "fare": 0.1 * number, "tip": 1.5}
            self.sent.append(ride)
            stamp = to_datetime(at + MINUTE)
            producer.send_bytes([json.dumps(ride).encode()], ingested_at=to_instant(stamp), partition=number % 2)

    def send_early(self) -> None:
        """Send rides of the second contract while the first one is in force, of a city that no other ride is of."""
        at = START + 6 * MINUTE
        ride = {"ride_id": "early", "at": at, "city": "c", "people": 2**40, "fare": 0.5}
        for partition in range(2):
            payload = json.dumps(ride).encode()
            stamp = to_datetime(at + MINUTE)
            self._platform.send_bytes("rides", [payload], ingested_at=stamp, partition=partition)
        self._platform.settle()

    def truth(self) -> dict[str, tuple[int, int, float]]:
        """By city: how many rides, people and fares."""
        rides = {city: [ride for ride in self.sent if ride["city"] == city] for city in "ab"}
        return {
            city: (len(some), sum(ride["people"] for ride in some), sum(ride["fare"] for ride in some))
            for city, some in rides.items()
        }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("contracts") / "features.py"
    define(file, FIRST)
    return file


@pytest.fixture(scope="module")
def platform(path: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform(str(path)) as running_platform:
        yield running_platform


@pytest.fixture(scope="module")
def traffic(platform: LocalPlatform) -> Traffic:
    return Traffic(platform)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def run_by(platform: LocalPlatform, contract: Contract) -> None:
    def all_do() -> bool:
        return running(platform.client, "rides") == dict.fromkeys(("tiles", "mirror"), contract.hash)

    until(all_do, "the flows did not load the contract")


def restarted(platform: LocalPlatform) -> None:
    """Kill both flows, and wait until others have read: the tiles flow the whole stream again."""
    request_rewind(platform.client, platform.registry.source("rides"))
    figures = [keys.figures("rides", flow) for flow in ("tiles", "mirror")]
    platform.crash()
    for key in figures:
        platform.client.hdel(key, "updated_at")
    until(lambda: all(platform.client.hexists(key, "updated_at") for key in figures), "the flows did not come back")
    until(lambda: not platform.client.exists(keys.rewinding("rides")), "the stream was not read again")


def agrees(platform: LocalPlatform, traffic: Traffic) -> None:
    """What is served, and what the lake has, is what was sent."""
    platform.settle()
    vectors = platform.online("pricing", [{"city": "a"}, {"city": "b"}, {"city": "c"}])
    assert vectors["demand__count_24h"][2] == 0
    for row in vectors[:2].iter_rows(named=True):
        count, people, fare = traffic.truth()[row["city"]]
        assert (row["demand__count_24h"], row["demand__people_sum_24h"]) == (count, people)
        assert row["demand__fare_sum_24h"] == pytest.approx(fare, rel=1e-9)
    raw = pl.read_delta(Lake(platform.lake).raw("rides")).unique("ride_id")
    assert raw.height == len(traffic.sent)
    assert refused(Lake(platform.lake), platform.registry.source("rides")).height == 2


def test_a_column_comes_and_types_widen_while_events_flow(
    platform: LocalPlatform, path: Path, traffic: Traffic
) -> None:
    lake = Lake(platform.lake)
    traffic.send(60, new=False)
    traffic.send_early()
    define(path, SECOND)
    platform.registry = load(str(path))
    put_in_force(platform.client, lake, platform.registry)
    deploy(platform.client, platform.registry)
    second = Contract.of(platform.registry.source("rides"))
    for _ in range(10):  # old producers do not wait for anybody
        traffic.send(6, new=False)
        time.sleep(0.05)
    run_by(platform, second)
    traffic.send(60, new=True)
    agrees(platform, traffic)
    assert [one.version for one in history(lake, "rides")] == [1, 2]
    raw = pl.read_delta(lake.raw("rides")).unique("ride_id")
    assert [str(raw.schema[name]) for name in ("people", "fare", "tip")] == ["Int64", "Float64", "Float64"]
    assert sorted(raw["people"]) == sorted(ride["people"] for ride in traffic.sent)
    assert raw["tip"].null_count() == sum("tip" not in ride for ride in traffic.sent)
    platform.compact()
    assert pl.read_delta(lake.events("rides")).height == len(traffic.sent)


def test_what_may_not_be_is_refused_before_anything_restarts_and_does_not_get_in(
    platform: LocalPlatform, path: Path, traffic: Traffic
) -> None:
    lake = Lake(platform.lake)
    before = history(lake, "rides")
    define(path, REFUSED)
    other = load(str(path))
    with pytest.raises(NotReadyError, match=r"people: Int64 → Int32: refused(.|\n)*seat: new required column"):
        put_in_force(platform.client, lake, other)
    restarted(platform)
    assert "not compatible with version 2" in held(platform.client, "rides")
    traffic.send(40, new=True)
    agrees(platform, traffic)
    assert history(lake, "rides") == before
    platform.registry = other
    with pytest.raises(CompactionError, match="people: Int64 → Int32"):
        platform.compact()


def test_definitions_that_cannot_be_loaded_do_not_stop_the_stream(
    platform: LocalPlatform, path: Path, traffic: Traffic
) -> None:
    path.write_text("this is no Python")
    restarted(platform)
    assert "the definitions cannot be loaded" in held(platform.client, "rides")
    traffic.send(40, new=True)
    agrees(platform, traffic)
    define(path, SECOND)
    platform.registry = load(str(path))
    deploy(platform.client, platform.registry)
    until(lambda: not held(platform.client, "rides"), "the flows do not run by the definitions again")
    traffic.send(20, new=True)
    agrees(platform, traffic)
