"""A writer's way to Redis: many commands under way at once, and all of them done, whatever happens to connections."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from streaming import broker
from streaming.link import MOST_POSTED, Link

PART, PARTS = 90, 40


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with broker.connect(redis_url) as client:
        yield client


def parts(name: str) -> list[list[tuple[Any, ...]]]:
    """Commands of absolute values, in the parts in which they are posted; more than may be under way."""
    assert PART * PARTS > 3 * MOST_POSTED
    return [[("HSET", name, n % 1_000, n) for n in range(part * PART, (part + 1) * PART)] for part in range(PARTS)]


def expected() -> dict[bytes, bytes]:
    """What all of them leave."""
    return {b"%d" % (n % 1_000): b"%d" % n for n in range(PART * PARTS)}


def test_all_that_is_posted_is_done_in_order(client: Any) -> None:
    name, link = uuid4().hex, Link(client)
    before = link._connection._sock
    for part in parts(name):
        link.post(part)
        assert len(link._posted) <= MOST_POSTED + PART
        assert link._connection._sock is before
    assert link.run([("HLEN", name), ("PING",)]) == [1_000, b"PONG"]
    assert client.hgetall(name) == expected()
    link.close()


def test_many_replies_are_those_of_what_is_run(client: Any) -> None:
    link = Link(client)
    link.post([("PING",)])
    many = [("ECHO", n) for n in range(3 * MOST_POSTED)]
    assert link.run(many) == [b"%d" % n for n in range(3 * MOST_POSTED)]
    assert link.drain() == []
    link.close()


@pytest.mark.parametrize("at", [0, 5, PARTS - 1])
def test_a_connection_that_is_lost_loses_nothing(client: Any, at: int) -> None:
    name, link = uuid4().hex, Link(client, lambda _: None)
    before = link._connection._sock
    for number, part in enumerate(parts(name)):
        if number == at:
            before.shutdown(socket.SHUT_RDWR)
        link.post(part)
    link.drain()
    assert link._connection._sock is not before
    assert client.hgetall(name) == expected()
    link.close()


def test_a_full_redis_is_waited_for(client: Any) -> None:
    name, waits = uuid4().hex, list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            client.config_set("maxmemory", 0)

    link = Link(client, wait)
    try:
        for number, part in enumerate(parts(name)):
            if number == 7:
                client.config_set("maxmemory", 1)
            link.post(part)
        link.drain()
    finally:
        client.config_set("maxmemory", 0)
    assert len(waits) == 3
    assert client.hgetall(name) == expected()
    link.close()


def test_what_redis_refuses_is_raised_at_the_next_step(client: Any) -> None:
    name, link = uuid4().hex, Link(client)
    link.post([("SET", name, "no hash")])
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        deque(map(link.post, parts(name)), maxlen=0)
    link.close()
