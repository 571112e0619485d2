"""The connection to Redis, and what must be true of the Redis it reaches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from hiredis import pack_command

from rtml.errors import RtmlError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from redis import Redis

Command = tuple[Any, ...]
LONGEST_BACKOFF = 5.0
"""Seconds between two looks for a Redis that is away."""


class RestartRequiredError(RtmlError):
    """This process may not go on: another took over, or Redis is no longer the one that it was. Start a new one."""


def connect(url: str, *, timeout: float | None = None) -> Redis:
    """Return a client that answers in bytes; `timeout` in seconds bounds every wait for it.

    Raises:
        SettingsError: the URL is none.
    """
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout or 5, protocol=2)
    except ValueError as error:
        raise SettingsError(f"redis_url (RTML_REDIS_URL): {error}; got {url!r}") from None


def check(client: Redis) -> None:
    """Refuse a Redis that would throw state away.

    Raises:
        UnavailableError: it does not answer.
        SettingsError: its `maxmemory-policy` evicts.
    """
    try:
        policy = str(client.info("memory").get("maxmemory_policy", "noeviction"))
    except redis.RedisError as error:
        raise UnavailableError(f"Redis does not answer: {error}") from None
    if policy != "noeviction":
        raise SettingsError(f"Redis has maxmemory-policy {policy!r}, which loses features; expected 'noeviction'")


def incarnation(client: Redis) -> str:
    """Return what changes when Redis is restarted or failed over."""
    return f"{client.info('server')['run_id']} {client.info('replication')['master_replid']}"


def check_incarnation(client: Redis, known: str) -> None:
    """Refuse to go on with a Redis that is not the one of before.

    Raises:
        RestartRequiredError: it was restarted or failed over.
    """
    if incarnation(client) != known:
        raise RestartRequiredError("Redis was restarted or failed over; the flow resumes from its position there")


def longer(backoff: float) -> float:
    """Return the seconds to wait after having waited `backoff` in vain."""
    return min(LONGEST_BACKOFF, backoff * 2 or 0.05)


def pipelined(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Send commands, and return their replies as they are, errors among them.

    Packed by hiredis and not interpreted: a fourth of the time that the client's own pipeline takes around the same.

    Raises:
        redis.ConnectionError, redis.TimeoutError: the connection is lost.
    """
    send(connection, commands)
    return receive(connection, len(commands))


def send(connection: Any, commands: Sequence[Command]) -> None:
    """Send commands without waiting for their replies."""
    connection.send_packed_command([b"".join([pack_command(command) for command in commands])])


def receive(connection: Any, count: int) -> list[Any]:
    """Return the next replies, errors among them."""
    replies = []
    for _ in range(count):
        try:
            replies.append(connection.read_response(disable_decoding=True))
        except redis.ResponseError as error:
            replies.append(error)
    return replies


_PASSING = re.compile(r"\b(OOM|LOADING|BUSY|READONLY|MASTERDOWN|TRYAGAIN|MISCONF)\b")
_PASSING_TYPES = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
)


def is_passing(error: Exception) -> bool:
    """Whether Redis said no for a while only: full, loading, busy or failing over.

    The client takes the code off the errors that it has types for; a script's error has it within its text.
    """
    return isinstance(error, _PASSING_TYPES) or bool(_PASSING.search(str(error)))
