"""Connections: those of HTTP are kept, and asked more than once at a time; those to Redis are bounded."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import pytest

from rtml.errors import UnavailableError
from rtml.online.commands import FieldsOf
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


def test_nobody_gets_the_replies_of_another():
    """Connections closed by Redis, requests given up halfway, and errors among replies."""
    store = OwnRedis()
    client = store.start()
    for number in range(50):
        client.hset(f"h{number}", mapping={"a": str(number)})
    command = FieldsOf([b"a"])
    wrong: list[object] = []

    async def ask(reader: RedisReader, first: int, within: float) -> None:
        numbers = [(first + more) % 50 for more in range(20)]
        try:
            found = await reader.exchange([command.of(f"h{number}") for number in numbers], within)
        except UnavailableError:
            return
        if found != [[str(number).encode()] for number in numbers]:
            wrong.append(found)

    async def all_of_it() -> None:
        reader = RedisReader(store.url, 1.0, 3)
        for turn in range(60):
            tasks = [asyncio.ensure_future(ask(reader, number, (1e-4, 1e-3, 1.0)[number % 3])) for number in range(9)]
            await asyncio.sleep(turn % 5 * 2e-4)
            tasks[turn % 9].cancel()
            if turn % 10 == 0:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(UnavailableError, match="WRONGTYPE"):
            await reader.exchange([command.of("h1"), ("LPUSH", "h2", "x"), command.of("h3")], 1.0)
        assert await reader.exchange([command.of("h4")], 1.0) == [[b"4"]]
        await reader.close()

    try:
        asyncio.run(all_of_it())
    finally:
        store.stop()
    assert wrong == []


@pytest.mark.parametrize("more", [b"$5\r\nextra\r\n", b"-MOVED x\r\n"])
def test_a_connection_that_says_too_much_is_given_up(more: bytes) -> None:
    """As no Redis does: replies that nobody asked for, or that cannot be read, are nobody's."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while received := await reader.read(4096):
            asked = received.count(b"HMGET")
            writer.write(b"+OK\r\n" * (received.count(b"*") - asked))
            writer.write(b"*1\r\n$1\r\n1\r\n" * asked + (more if asked and connections == 1 else b""))
        writer.close()

    async def all_of_it() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader = RedisReader(f"redis://127.0.0.1:{port}", 1.0, 1)
        for _ in range(3):
            assert await reader.exchange([FieldsOf([b"a"]).of("h")] * 2, 1.0) == [[b"1"], [b"1"]]
        await reader.close()
        server.close()

    asyncio.run(all_of_it())
    assert connections == 2
