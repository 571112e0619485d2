"""Connections: those of HTTP are kept, and asked more than once at a time; those to Redis are bounded."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import pytest

from rtml.errors import UnavailableError
from serving.redis_io import RedisReader
from tests.serving.online import PATIENCE_SECONDS, OwnRedis

SPENDING = "/v1/features/spending"


def request(user: str, close: bool = False) -> bytes:
    body = b'{"entities": [{"user": "%s"}]}' % user.encode()
    head = f"POST {SPENDING} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: {'close' if close else 'keep-alive'}\r\n\r\n".encode() + body


def test_requests_in_one_packet_are_answered_in_order(served):
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS) as connection:
        users = ["ann", "nobody"] * 20
        connection.sendall(b"".join(request(user) for user in users[:-1]) + request(users[-1], close=True))
        read = b""
        while piece := connection.recv(65_536):
            read += piece
    answers = read.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 40
    statuses = [b'"missing"' in answer for answer in answers]
    assert statuses == [user == "nobody" for user in users]


def test_a_connection_serves_many_requests(served):
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS) as connection:
        for number in range(300):
            connection.sendall(request(("ann", "bob", "nobody")[number % 3]))
            read = b""
            while b"age_ms" not in read or not read.endswith(b"}"):
                read += connection.recv(65_536)
            assert read.startswith(b"HTTP/1.1 200")
            assert (b'"missing"' in read) == (number % 3 == 2)


def test_round_trips_beyond_the_connections_wait_for_one(serve, feature_redis):
    before = feature_redis.client.info("clients")["connected_clients"]
    served = serve(feature_redis.url, RTML_REDIS_CONNECTIONS="2")

    def ask(number: int) -> int:
        user = {"user": ("ann", "bob", "nobody")[number % 3]}
        at = feature_redis.present - number  # each an instant of its own, and so a round trip of its own
        return served.http.post(SPENDING, json={"entities": [user], "at": at}).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    # Two for features, and one that looks at versions and positions.
    assert feature_redis.client.info("clients")["connected_clients"] <= before + 3


def test_the_wait_for_a_connection_ends_with_the_time_there_is():
    async def read_both(reader: RedisReader) -> list[object]:
        work = (reader.read([("PING",)], 20), reader.read([("PING",)], 0.2))
        first, second = (asyncio.ensure_future(one) for one in work)
        begun = perf_counter()
        with pytest.raises(UnavailableError, match="within 200 ms"):
            await second
        assert perf_counter() - begun < 10
        own_redis.thaw()
        found = await first
        again = await reader.read([("PING",)])
        await reader.close()
        return [*found, *again]

    own_redis = OwnRedis()
    try:
        own_redis.start().close()
        own_redis.freeze()
        assert asyncio.run(read_both(RedisReader(own_redis.url, 30, connections=1))) == [True] * 2
    finally:
        own_redis.thaw()
        own_redis.stop()
