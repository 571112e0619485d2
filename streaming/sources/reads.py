"""Reads of one stream key: while what one of them brought is worked on, Redis is at the next one."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from rtml.instants import Instant
from streaming.broker import receive, send


class Read(NamedTuple):
    """What one read found."""

    clock: Instant
    """The broker's, just before it."""
    entries: list[tuple[bytes, list[bytes]]]
    """Ids and fields."""
    replayed: bool
    """Whether the source is on replay time."""


class Reads:
    """Plain `XREAD`s of a stream key, on a connection of their own.

    Args:
        connection: of a client's pool.
        key: the stream.
        replay_key: what exists while the source is on replay time.
        most: how many entries a read takes at most: Redis serves nobody else meanwhile.
    """

    def __init__(self, connection: Any, key: str, replay_key: str, most: int) -> None:
        """Ask for nothing yet."""
        self._connection = connection
        self._key = key
        self._replay_key = replay_key
        self._most = most
        self._under_way: str | None = None
        """The id after which the read begins that was sent and not received."""

    def after(self, offset: str) -> Read:
        """Return what follows an entry; behind a full read the next one is under way.

        Raises:
            redis.RedisError: the connection is lost, or Redis says no; `drop` before the next one.
        """
        if self._under_way not in (None, offset):
            self.drop()
        if self._under_way is None:
            self._send(offset)
        replies = receive(self._connection, 3)
        self._under_way = None
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        (seconds, micros), streams, replayed = replies
        entries = streams[0][1] if streams else []
        if self.is_full(entries):
            self._send(entries[-1][0].decode())
        return Read(int(seconds) * 1_000_000 + int(micros), entries, bool(replayed))

    def is_full(self, entries: list[tuple[bytes, list[bytes]]]) -> bool:
        """Whether a read found as many as it takes: there may be more."""
        return len(entries) == self._most

    def drop(self) -> None:
        """Give up what is under way, and the connection with it."""
        self._connection.disconnect()
        self._under_way = None

    def _send(self, offset: str) -> None:
        read = ("XREAD", "COUNT", self._most, "STREAMS", self._key, offset)
        send(self._connection, [("TIME",), read, ("EXISTS", self._replay_key)])
        self._under_way = offset
