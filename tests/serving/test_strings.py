"""Served strings: from memory, from Redis in a second round trip, and never made up."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl
import pytest
import redis

import rtml
from rtml import FeatureService, instants
from rtml.columns import TIMESTAMP
from rtml.instants import HOUR, MINUTE, Instant
from rtml.online import keys
from rtml.registry import Registry
from rtml.texts import hash64
from serving.async_client import AsyncFeatureClient
from serving.client import FeatureClient
from serving.features import FeatureVectors
from serving.text_cache import TextCache
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated
from streaming.link import Link
from streaming.positions import Position, raise_position
from streaming.route import Router
from streaming.services import Service, write_services
from streaming.tile_writer import TileWriter
from streaming.versions import Version, create_version, go_live
from tests.serving.online import OwnRedis


class Visit(rtml.Event):
    at: rtml.Timestamp
    user: str
    page: str = rtml.Field(nullable=True)


visits = rtml.EventSource(name="visits", schema=Visit, timestamp="at", stream=rtml.RedisStream("visits"))
pages = rtml.StreamFeatureView(
    name="pages",
    source=visits,
    entity=rtml.Entity("user"),
    features=[
        rtml.Last("page", windows=["1h"]),
        rtml.LastDistinctN("page", n=3, windows=["1h"]),
        rtml.CountDistinct("page", windows=["1h"]),
    ],
)
shown = FeatureService("shown", features=[pages])
careful = FeatureService(
    "careful",
    features=[pages],
    on_stale="default",
    defaults={"pages__page_last_1h": "home", "pages__page_last_distinct_3_1h": ["home"]},
)
REGISTRY = Registry.of([visits, pages, shown, careful])
VERSION = Version(REGISTRY.plans["pages"], f"{REGISTRY.plans['pages'].fingerprint}.1", "ready")
VISITED: dict[str, list[str | None]] = {
    "ann": ["/a", "", None, "/🛫", "/a"],
    "bob": ["/b"],
    "cid": [None],
    "dan": ["/a", "/d"],
}


class Written(NamedTuple):
    """A Redis with some users' pages."""

    client: redis.Redis
    url: str
    present: Instant

    def lookups(self) -> int:
        """How many HMGETs it has answered."""
        found: Any = self.client.info("commandstats")
        return int(found.get("cmdstat_hmget", {"calls": 0})["calls"])


@pytest.fixture(scope="module")
def written() -> Iterator[Written]:
    server = OwnRedis()
    client = server.start()
    present = instants.now()
    raise_position(client, keys.position("visits"), 0, Position("5-0", present))
    write_services(client, [Service.of(service, REGISTRY.plans) for service in REGISTRY.services.values()])
    write_visits(client, pages, VERSION, present)
    yield Written(client, server.url, present)
    client.close()
    server.stop()


def write_visits(client: redis.Redis, view: rtml.StreamFeatureView, version: Version, present: Instant) -> None:
    """Let a writer take all visits; ids follow one another."""
    go_live(client, create_version(client, version))
    link = Link(client)
    for user, seen in VISITED.items():
        times = pl.Series([present - MINUTE + number for number in range(len(seen))], dtype=pl.Int64)
        frame = pl.DataFrame(
            {
                "at": times.cast(TIMESTAMP),
                "user": user,
                "page": pl.Series(seen, dtype=pl.String),
                "ingested_at": times.cast(TIMESTAMP),
                "id64": times.cast(pl.UInt64),
                ARRIVED: times,
            }
        )
        batch = Router(visits, [(view, version)])(Gated(Entries(0, [], [], [], []), frame, [])).micro_batch
        TileWriter(link, int(client.incr(keys.GENERATION))).apply(batch, set(range(keys.SHARDS)), present)
        link.drain()
    link.close()


def tag_of(user: str) -> str:
    return keys.entity_tag("user", [user])


def texts_of(user: str) -> str:
    return keys.texts(tag_of(user) + keys.versioned("pages", VERSION.version))


def expected(user: str) -> list[Any]:
    seen = [page for page in VISITED.get(user, []) if page is not None]
    newest = list(dict.fromkeys(reversed(seen)))
    return [seen[-1] if seen else None, newest[:3], len(set(seen))]


USERS = [*VISITED, "nobody", "ann"]


def test_strings_are_read_once_and_then_remembered(written: Written) -> None:
    with FeatureClient(written.url) as client:
        for trips in (len(set(USERS)) + 3, len(set(USERS))):  # of the strings of those three that have any
            before = written.lookups()
            vectors = client.get("shown", [{"user": user} for user in USERS], at=written.present)
            assert vectors.rows == [expected(user) for user in USERS]
            assert written.lookups() - before == trips
            assert vectors.status["pages"] == ["fresh"] * 4 + ["missing", "fresh"]
            frame = vectors.to_polars(statuses=False)
            assert frame.schema["pages__page_last_distinct_3_1h"] == pl.List(pl.String)


def test_strings_of_partial_states_are_found_in_all_of_them(written: Written) -> None:
    view = dataclasses.replace(pages, name="spread", salts=3)
    registry = Registry.of([visits, view, FeatureService("spread", features=[view])])
    plan = registry.plans["spread"]
    write_visits(written.client, view, Version(plan, f"{plan.fingerprint}.1", "ready"), written.present)
    write_services(written.client, [Service.of(registry.services["spread"], registry.plans)])
    with FeatureClient(written.url) as client:
        for trips in (3 * (len(set(USERS)) + 3), 3 * len(set(USERS))):
            before = written.lookups()
            assert client.get("spread", [{"user": user} for user in USERS], at=written.present).rows == [
                expected(user) for user in USERS
            ]
            assert written.lookups() - before == trips


def test_a_server_reads_for_many_at_once_and_counts_second_round_trips(written: Written) -> None:
    async def ask() -> tuple[list[FeatureVectors], bytes]:
        async with AsyncFeatureClient(written.url) as client:
            many = [{"user": user} for user in USERS * 20]
            answers = [await client.get("shown", many, at=written.present)]
            asked = [client.get("shown", [{"user": user}], at=written.present) for user in USERS]
            answers += await asyncio.gather(*asked)
            return answers, client.metrics.reply().body

    (long, *short), metrics = asyncio.run(ask())
    assert long.rows == [expected(user) for user in USERS] * 20
    assert [one.rows for one in short] == [[expected(user)] for user in USERS]
    assert b"rtml_text_lookups_total 3.0" in metrics


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_string_that_is_nowhere_damages_its_entity_alone(written: Written, asynchronous: bool) -> None:
    lost = hash64("/d").to_bytes(8, "little")
    kept: Any = written.client.hget(texts_of("dan"), lost)
    assert written.client.hdel(texts_of("dan"), lost) == 1
    users = [{"user": "dan"}, {"user": "ann"}]

    async def ask() -> FeatureVectors:
        async with AsyncFeatureClient(written.url) as client:
            return await client.get("shown", users, at=written.present)

    try:
        if asynchronous:
            vectors = asyncio.run(ask())
        else:
            with FeatureClient(written.url) as client:
                vectors = client.get("shown", users, at=written.present)
    finally:
        written.client.hset(texts_of("dan"), lost, kept)
    assert vectors.status["pages"] == ["damaged", "fresh"]
    assert vectors.rows == [[None, None, None], expected("ann")]


def test_defaults_are_strings_already(written: Written) -> None:
    with FeatureClient(written.url) as client:
        old = client.get("careful", [{"user": "ann"}, {"user": "bob"}], at=written.present + HOUR // 2)
        assert (old.rows, old.status["pages"]) == ([["home", ["home"], 0]] * 2, ["stale"] * 2)
        fresh = client.get("careful", [{"user": "ann"}], at=written.present)
        assert fresh.rows == [expected("ann")]


def test_what_is_remembered_is_bounded_and_the_newest() -> None:
    cache = TextCache(most=100_000)
    for number in range(1_000):
        cache.put("v", number, f"{number}")
        assert cache.get("v", 0) == "0"  # asked for again and again
    known = [number for number in reversed(range(1_000)) if cache.get("v", number) is not None]
    assert 200 < len(known) < 600
    assert set(range(900, 1_000)) <= set(known)
    assert cache.get("another view", 999) is None


def test_one_text_of_many_entities_is_remembered_once() -> None:
    cache = TextCache(most=10_000)
    cache.put("v", 0, "other")
    for _ in range(1_000):
        cache.put("v", 1, "active")
    assert (cache.get("v", 0), cache.get("v", 1)) == ("other", "active")
