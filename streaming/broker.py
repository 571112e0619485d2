"""The connection to Redis, and what must be true of the Redis it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from rtml.errors import SettingsError, UnavailableError

if TYPE_CHECKING:
    from redis import Redis


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
