"""Reading Redis with a deadline: never longer than a server's patience, and back by itself when Redis is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError
from redis.retry import Retry

from rtml.errors import UnavailableError
from rtml.online.commands import AnyCommand
from rtml.settings import Settings
from streaming.broker import address, connect, pack, pipelined, received, sound

if TYPE_CHECKING:
    from redis import Redis

_LOST = (ConnectionError,)
"""After this a read is sent once more: Redis may have been restarted since the last one. After a timeout it is not."""


class LateReplyError(UnavailableError):
    """Redis did not answer within the time that there was."""


def connect_reader(where: Settings | str, timeout: float) -> Redis:
    """Return a blocking client for reads; `timeout` in seconds bounds every wait."""
    client = connect(where, timeout=timeout)
    client.set_retry(Retry(NoBackoff(), 1, _LOST))
    return client


def exchange(client: Redis, commands: Sequence[AnyCommand]) -> list[Any]:
    """Return the replies to commands as they are, of a client that `connect_reader` made.

    Raises:
        redis.RedisError: Redis did not answer, or refused.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        try:
            return sound(pipelined(connection, commands))
        except _LOST:
            connection.disconnect()
            return sound(pipelined(connection, commands))
    except (redis.ConnectionError, redis.TimeoutError):
        connection.disconnect()
        raise
    finally:
        client.connection_pool.release(connection)


class RedisReader:
    """Sends the commands of a round trip without blocking the loop; `timeout` in seconds bounds the whole of it.

    At most `connections` round trips are under way: those beyond them wait for one to end, within their time.
    """

    def __init__(self, where: Settings | str, timeout: float, connections: int = 32) -> None:
        """Take the settings or a URL; nothing is connected before the first `read`."""
        self.timeout = timeout
        self.connections = connections
        url, options = address(where)
        pool = _Pool.from_url(
            url,
            max_connections=connections,
            # The deadline of `read` bounds this wait, too.
            timeout=None,
            # The deadline of `read` bounds all of it, at less cost than one for each reply.
            socket_timeout=None,
            socket_connect_timeout=timeout,
            protocol=2,
            retry=AsyncRetry(NoBackoff(), 1, _LOST),
            **options,
        )
        self._client = AsyncRedis.from_pool(pool)

    async def read(self, commands: Sequence[AnyCommand], within: float | None = None) -> list[Any]:
        """Return the replies to commands; `within` so many seconds, where not `timeout`.

        Raises:
            UnavailableError: Redis did not answer in time, or not at all.
        """
        within = self.timeout if within is None else within
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(within):
                replies: list[Any] = await pipeline.execute()
        except TimeoutError:
            raise LateReplyError(f"Redis did not answer within {within * 1_000:.0f} ms") from None
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {error}") from None
        return replies

    async def exchange(self, commands: Sequence[AnyCommand], within: float) -> list[Any]:
        """Return the replies to commands as they are, `within` so many seconds: `read` at a third of its cost.

        Raises:
            UnavailableError: as `read`.
        """
        try:
            async with asyncio.timeout(within):
                return await self._exchanged(pack(commands), len(commands))
        except TimeoutError:
            raise LateReplyError(f"Redis did not answer within {within * 1_000:.0f} ms") from None
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {error}") from None

    async def _exchanged(self, packed: bytes, count: int) -> list[Any]:
        pool: Any = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            try:
                return await _answered(connection, packed, count)
            except _LOST:
                return await _answered(connection, packed, count)
        finally:
            await pool.release(connection)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class _Pool(BlockingConnectionPool):
    """Hands out connections, and waits where all are in use, at a tenth of the cost.

    It does not look whether a connection is still open: whoever finds that out tries once more.
    """

    def __init__(self, **options: Any) -> None:
        """Take what the client's own pool takes."""
        super().__init__(**options)
        self._room = asyncio.Semaphore(self.max_connections)

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection that is open, as far as is known.

        Raises:
            redis.RedisError, OSError: there is none to be had.
        """
        await self._room.acquire()
        connection = None
        try:
            connection = self.get_available_connection()  # type: ignore[no-untyped-call]
            if not connection.is_connected:
                await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        if connection is not None:
            self._in_use_connections.discard(connection)
            self._available_connections.append(connection)
        self._room.release()


async def _answered(connection: Any, packed: bytes, count: int) -> list[Any]:
    """Send, and return all replies; a connection that fails, or that is given up halfway, is closed.

    Raises:
        redis.RedisError: Redis did not answer, or refused.
    """
    try:
        await connection.send_packed_command(packed)
        replies: list[Any] = []
        while len(replies) < count:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
            replies += received(connection, count - len(replies))
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if isinstance(error, RuntimeError):  # what uvloop says of a connection that was reset while it was idle
            raise ConnectionError(f"the connection was lost: {error}") from None
        raise
    return sound(replies)
