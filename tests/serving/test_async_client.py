"""Features in an event loop, straight from Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rtml.errors import InstantError, OverflowedError, RequestError, TooLargeError, UnavailableError, UnknownNameError
from rtml.instants import HOUR, MINUTE
from rtml.lake import Lake
from rtml.settings import Settings
from serving.async_client import AsyncFeatureClient
from serving.client import FeatureClient
from serving.feature_log import FeatureLog
from streaming.services import write_services
from tests.serving.conftest import Filled
from tests.serving.online import OwnRedis, fill, services, write_purchases


def within(where: Any, work: Callable[[AsyncFeatureClient], Awaitable[Any]], **given: Any) -> Any:
    """Run something with a client of its own loop."""

    async def run() -> Any:
        async with AsyncFeatureClient(where, **given) as client:
            return await work(client)

    return asyncio.run(run())


@pytest.mark.parametrize("background", [True, False])
def test_it_answers_as_the_other_client_does(feature_redis: Filled, background: bool) -> None:
    present = feature_redis.present
    asked: list[tuple[str, Any]] = [
        ("spending", [{"user": "ann"}, {"user": "nobody"}]),
        ("spending", []),
        ("shopping", {"user": "ann", "shop": [7, 8, 7]}),
        ("spending", [{"user": f"user {number}"} for number in range(100)]),
    ]

    async def all_of(client: AsyncFeatureClient) -> list[Any]:
        return [await client.get(service, entities, at=present) for service, entities in asked]

    with FeatureClient(feature_redis.url) as client:
        expected = [client.get(service, entities, at=present) for service, entities in asked]
    assert within(feature_redis.url, all_of, background=background) == expected


@pytest.mark.parametrize("background", [True, False])
def test_hundreds_at_once_get_each_their_own(feature_redis: Filled, background: bool) -> None:
    users = ["ann", "bob", "nobody", "o'hara|{x}"]

    async def all_of(client: AsyncFeatureClient) -> Any:
        asked = [client.get("spending", [{"user": users[number % 4]}]) for number in range(500)]
        return await asyncio.gather(*asked)

    answers = within(feature_redis.url, all_of, background=background)
    assert [answer.rows[0][4] for answer in answers] == [7.0, 14.0, None, 21.0] * 125


def test_errors_are_those_of_the_other_client(feature_redis: Filled) -> None:
    write_purchases(feature_redis.client, "whale", feature_redis.present, [(MINUTE, 1.0, 2**62)] * 3)
    asked: list[tuple[str, Any, Any]] = [
        ("spendin", [], None),
        ("spending", [{"usr": "ann"}], None),
        ("spending", {"user": ["ann"], "beside": [1, 2]}, None),
        ("spending", [{"user": "ann"}], feature_redis.present - HOUR),
        ("spending", [{"user": "ann"}], "2024-01-01T00:00:00"),
        ("spending", [{"user": "whale"}], feature_redis.present),
        ("spending", [{}] * 10_001, None),
    ]

    async def all_of(client: AsyncFeatureClient) -> Any:
        got = [client.get(service, entities, at=at) for service, entities, at in asked]
        return await asyncio.gather(*got, return_exceptions=True)

    kinds = [type(error) for error in within(feature_redis.url, all_of)]
    assert kinds == [
        UnknownNameError,
        RequestError,
        RequestError,
        InstantError,
        InstantError,
        OverflowedError,
        TooLargeError,
    ]
    with FeatureClient(feature_redis.url) as client:
        for (service, entities, at), kind in zip(asked, kinds, strict=True):
            with pytest.raises(kind):
                client.get(service, entities, at=at)


def test_redis_away_is_an_error_at_once_and_leaves_nothing_running() -> None:
    async def nothing(_: AsyncFeatureClient) -> None:
        raise AssertionError

    started = time.monotonic()
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        within("redis://127.0.0.1:1/0", nothing)
    assert time.monotonic() - started < 5


def test_a_frozen_redis_does_not_hold_up_the_loop() -> None:
    server = OwnRedis()
    try:
        fill(server.start())

        async def look(client: AsyncFeatureClient) -> int:
            assert (await client.get("spending", [{"user": "ann"}])).rows[0][1] == 3
            server.freeze()
            asked = [asyncio.ensure_future(client.get("spending", [{"user": "ann"}])) for _ in range(3)]
            turns = 0
            for _ in range(20):
                await asyncio.sleep(0.01)
                turns += 1
            assert not any(one.done() for one in asked)
            server.thaw()
            assert [answer.rows[0][1] for answer in await asyncio.gather(*asked)] == [3, 3, 3]
            return turns

        for background in (True, False):
            assert within(server.url, look, background=background) == 20
    finally:
        server.thaw()
        server.stop()


def test_what_is_served_is_logged_and_counted(feature_redis: Filled, tmp_path: Path) -> None:
    import msgspec

    write_services(feature_redis.client, [msgspec.structs.replace(service, log=1.0) for service in services()])
    log = FeatureLog(Lake(str(tmp_path)), HOUR)

    async def ask(client: AsyncFeatureClient) -> str:
        await client.get("shopping", {"user": "ann", "shop": list(range(50))})
        return client.metrics.reply().body.decode()

    figures = within(Settings(redis_url=feature_redis.url), ask, log=log)
    log.flush()
    assert log.logged == 50
    assert 'rtml_rows_total{service="shopping"} 50.0' in figures
