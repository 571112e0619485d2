"""The connection to Redis, and what must be true of the Redis it reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA

from rtml.errors import RtmlError, SettingsError, UnavailableError
from rtml.online.commands import AnyCommand, PackedCommand
from rtml.secrets import mask
from rtml.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

LONGEST_BACKOFF = 5.0
"""Seconds between two looks for a Redis that is away."""


class RestartRequiredError(RtmlError):
    """This process may not go on: another took over, or Redis is no longer the one that it was. Start a new one."""


def connect(where: Settings | str, *, timeout: float | None = None) -> Redis:
    """Return a client that answers in bytes; `timeout` in seconds bounds every wait for it.

    Args:
        where: the settings, whose user, password and certificates count, or the URL of a Redis that needs none.
        timeout: seconds.

    Raises:
        SettingsError: the URL is none, or a certificate cannot be read.
    """
    url, options = address(where)
    try:
        return redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout or 5, protocol=2, **options
        )
    except ValueError as error:
        raise SettingsError(f"redis_url (RTML_REDIS_URL): {error}; got {mask(url)!r}") from None


def address(where: Settings | str) -> tuple[str, dict[str, Any]]:
    """Return where Redis is, and the options of a connection to it; every connection is made of these.

    Raises:
        SettingsError: a certificate cannot be read, or the URL does not ask for TLS.
    """
    if isinstance(where, str):
        return where, {}
    options: dict[str, Any] = {}
    # What the URL says goes before: only what it leaves out is given.
    if where.redis_username:
        options["username"] = where.redis_username
    if where.redis_password:
        options["password"] = where.redis_password
    files = {"ssl_ca_certs": "redis_ca", "ssl_certfile": "redis_cert", "ssl_keyfile": "redis_key"}
    given = {option: name for option, name in files.items() if getattr(where, name)}
    for option, name in given.items():
        options[option] = file = getattr(where, name)
        if not Path(file).is_file():
            raise SettingsError(f"{name} (RTML_{name.upper()}) must be a file; got {file!r}")
    if given and not where.redis_url.startswith("rediss://"):
        raise SettingsError(
            f"{', '.join(given.values())} are for TLS: redis_url must begin with rediss://; got {where.redis_shown!r}"
        )
    return where.redis_url, options


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


def pipelined(connection: Any, commands: Sequence[AnyCommand]) -> list[Any]:
    """Send commands, and return their replies as they are, errors among them.

    Packed by hiredis and not interpreted: a fourth of the time that the client's own pipeline takes around the same.

    Raises:
        redis.ConnectionError, redis.TimeoutError: the connection is lost.
    """
    send(connection, commands)
    return receive(connection, len(commands))


def send(connection: Any, commands: Sequence[AnyCommand | bytes]) -> None:
    """Send commands, as words or packed already, without waiting for their replies."""
    connection.send_packed_command([pack(commands)])


def pack(commands: Iterable[AnyCommand | bytes]) -> bytes:
    """Return commands as Redis' protocol has them."""
    return b"".join([_packed(command) for command in commands])


def _packed(command: AnyCommand | bytes) -> bytes:
    if isinstance(command, bytes):
        return command
    return command.packed if isinstance(command, PackedCommand) else pack_command(command)


def sound(replies: list[Any]) -> list[Any]:
    """Return replies without an error among them.

    Raises:
        redis.ResponseError: the first one.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def receive(connection: Any, count: int, *, more: bool = False) -> list[Any]:
    """Return the next replies, errors among them; with `more`, commands are under way whose replies are left for later.

    Raises:
        redis.ConnectionError, redis.TimeoutError: the connection is lost, or not fit for more.
    """
    replies: list[Any] = []
    while len(replies) < count:
        try:
            replies.append(connection.read_response(disable_decoding=True))
        except redis.ResponseError as error:
            replies.append(error)
        try:
            replies += received(connection, count - len(replies), more=more)
        except BaseException:
            connection.disconnect()
            raise
    return replies


def received(connection: Any, most: int, *, more: bool = False) -> list[Any]:
    """Return replies that came along with the last one, errors among them; blocking connection or not.

    They are in its buffer: to take them from there costs a tenth of what `read_response` does around each. Whoever is
    left with an exception must close the connection.

    Raises:
        redis.ConnectionError: Redis is loading or the like; or there is more than `most`, so that nobody knows any more
            which reply is whose; but for `more`, as for `receive`.
    """
    reader = connection._parser._reader
    replies: list[Any] = []
    while len(replies) < most and (reply := reader.gets(False)) is not NOT_ENOUGH_DATA:
        if isinstance(reply, redis.ConnectionError):
            raise reply
        replies.append(reply)
    if not more and len(replies) == most and reader.has_data():
        raise redis.ConnectionError("Redis sent more replies than it was sent commands")
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
