"""Deployments: refused where they would end what is served, and noticed by who watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtml.errors import NotReadyError
from rtml.online import keys
from rtml.registry import Registry, load
from rtml_assets.runtime.deployments import DeploymentWatch, deploy
from rtml_assets.runtime.redis_server import EmbeddedRedis
from streaming.adoption import Adoption
from streaming.broker import connect

FEATURES = """
import polars as pl
import rtml
from rtml import Count, Entity, EventSource, FeatureService, RedisStream, StreamFeatureView

class Ride(rtml.Event):
    ride_id: str
    at: rtml.Timestamp
    city: str
    fare: float

rides = EventSource(name="{source}", schema=Ride, timestamp="at", event_id={event_id}, stream=RedisStream("rides"))
demand = StreamFeatureView(name="demand", source=rides, entity=Entity("city"), where=pl.col("{column}") > 1,
                           features=[Count(windows=["1h"])])
pricing = FeatureService("pricing", features=[demand])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as running:
        yield running


def defined(folder: Path, source: str = "rides", event_id: str = "'ride_id'", column: str = "fare") -> Registry:
    text = FEATURES.format(source=source, event_id=event_id, column=column)
    path = folder / f"features_{abs(hash(text))}.py"
    path.write_text(text if column == "fare" else text.replace("fare: float", f"{column}: float"))
    return load(str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"event_id": "None"}, "tells events apart by 'ride_id', and source 'rides'"),
        ({"source": "trips"}, "view 'demand' reads source 'rides', which is not defined any longer"),
        ({"column": "price"}, "as it was defined before, needs column 'fare' of source 'rides'"),
    ],
)
def test_definitions_that_would_end_what_is_served_are_refused(
    server: EmbeddedRedis, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    with connect(server.url) as client:
        first = defined(tmp_path)
        Adoption(client, first, first.source("rides"))
        changed = defined(tmp_path, **changes)
        with pytest.raises(NotReadyError, match=words):
            deploy(client, changed)
        assert not client.exists(keys.DEPLOYED)
        deploy(client, changed, force=True)
        assert client.get(keys.DEPLOYED) == b"1"


def test_a_source_without_flows_is_named(server: EmbeddedRedis, tmp_path: Path) -> None:
    with connect(server.url) as client:
        registry = defined(tmp_path)
        (note,) = deploy(client, registry)
        assert "source 'rides' has no flows yet" in note
        client.hset(keys.figures("rides", "tiles"), "updated_at", 1)
        assert deploy(client, registry) == []


def test_who_watches_hears_of_each_deployment(server: EmbeddedRedis, tmp_path: Path) -> None:
    heard: list[Any] = []
    watch = DeploymentWatch(server.url, lambda: heard.append(1))
    try:
        with connect(server.url) as client:
            deploy(client, defined(tmp_path))
            deadline = time.monotonic() + 20
            while not heard:
                assert time.monotonic() < deadline, "nobody heard of the deployment"
                time.sleep(0.05)
    finally:
        watch.stop()
    assert heard == [1]
