"""Commands to Redis from a writer: pipelined, retried while Redis is away or full, refused when ownership is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import redis

from rtml.online.commands import Command
from rtml.online.texts import DROP, KEEP
from streaming.broker import (
    RestartRequiredError,
    check_incarnation,
    incarnation,
    is_passing,
    longer,
    receive,
    send,
)
from streaming.packing import Packer
from streaming.scripts import CLAIM, STALE, WRITE

if TYPE_CHECKING:
    from redis import Redis

MOST_POSTED = 1_000
"""How many commands are under way at once: their replies must fit the sockets' buffers."""
SENT_AT_ONCE = 250


class Link:
    """One writer process's way to Redis. All of its commands may be repeated: they carry absolute values."""

    def __init__(self, client: Redis, sleep: Callable[[float], None] = time.sleep) -> None:
        """Load the scripts, and remember which Redis this is."""
        self._client = client
        self._connection: Any = client.connection_pool.get_connection()
        self._sleep = sleep
        self._claim = client.script_load(CLAIM)
        self._write = client.script_load(WRITE)
        self._keep, self._drop = client.script_load(KEEP), client.script_load(DROP)
        self._incarnation = incarnation(client)
        self._posted: list[Command | bytes] = []
        self._replies: list[Any] = []
        """Of the oldest ones that were posted."""
        self._under_way = 0
        """How many of those that were sent have no reply yet."""
        self._broken = False

    def close(self) -> None:
        """Give the connection back, without the replies that nobody has waited for."""
        if self._posted:
            self._connection.disconnect()
        self._client.connection_pool.release(self._connection)

    def packer(self, generation: int, expire: int, raw_expire: int) -> Packer:
        """Return what packs the commands of a version's entities, which are kept for so many seconds."""
        return Packer(self._claim, self._write, generation, expire, raw_expire)

    def keep_texts(self, key: str, arguments: list[Any]) -> Command:
        """Return the command that writes strings of an entity."""
        return ("EVALSHA", self._keep, 1, key, *arguments)

    def drop_texts(self, key: str, first: int) -> Command:
        """Return the command that removes an entity's strings that were last seen before a coarsest tile."""
        return ("EVALSHA", self._drop, 1, key, first)

    def run(self, commands: Sequence[Command | bytes]) -> list[Any]:
        """Return the replies to commands, and settle all that were posted before.

        Raises:
            RestartRequiredError: another writer owns an entity, or Redis is no longer the one that it was.
        """
        if not commands:
            return []
        self._put(commands)
        return self.drain()[-len(commands) :]

    def post(self, commands: Sequence[Command | bytes]) -> None:
        """Send commands, and go on while Redis works; `drain` or the next `run` looks at the replies."""
        if self._broken or self._replies:  # some of which are errors
            self.drain()
        self._put(commands)
        if not any(isinstance(reply, Exception) for reply in self._replies):
            del self._posted[: len(self._replies)]
            self._replies = []

    def _put(self, commands: Sequence[Command | bytes]) -> None:
        self._posted += commands
        if not self._broken:
            try:
                self._send(commands)
            except (redis.ConnectionError, redis.TimeoutError):
                self._lose()

    def drain(self) -> list[Any]:
        """Return the replies to all that was posted, sending it again as often as that takes: values are absolute.

        Raises:
            RestartRequiredError: as `run`.
        """
        backoff = 0.0
        while True:
            replies = self._receive(resend=backoff > 0)
            if replies is not None and not any(isinstance(reply, Exception) for reply in replies):
                self._posted = []
                return replies
            self._raise_unless_passing(replies or [])
            backoff = longer(backoff)
            self._sleep(backoff)

    def _receive(self, *, resend: bool) -> list[Any] | None:
        """Read the replies to all that was posted; `None` when the connection is lost."""
        try:
            if resend or self._broken:
                check_incarnation(self._client, self._incarnation)
                self._replies = []
                self._send(self._posted, wait=True)
            else:
                self._take(self._under_way)
        except (redis.ConnectionError, redis.TimeoutError):
            self._lose()
            return None
        replies, self._replies, self._broken = self._replies, [], False
        return replies

    def _send(self, commands: Sequence[Command | bytes], *, wait: bool = False) -> None:
        """Send; while too many are under way, read the oldest replies: Redis is mostly past these."""
        for start in range(0, len(commands), SENT_AT_ONCE):
            chunk = commands[start : start + SENT_AT_ONCE]
            send(self._connection, chunk)
            self._under_way += len(chunk)
            self._take(self._under_way if wait else self._under_way - MOST_POSTED)

    def _take(self, count: int) -> None:
        """Read so many replies, if any."""
        if count > 0:
            self._replies += receive(self._connection, count, more=count < self._under_way)
            self._under_way -= count

    def _lose(self) -> None:
        """Give the connection up, with the replies to what was sent: all of it is sent again."""
        self._connection.disconnect()
        self._replies, self._under_way, self._broken = [], 0, True

    def _raise_unless_passing(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception) and not is_passing(reply):
                self._posted = []
                if str(reply).startswith((STALE, "NOSCRIPT")):
                    raise RestartRequiredError(str(reply)) from reply
                raise reply
