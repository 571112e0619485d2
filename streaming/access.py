"""API keys in Redis: what all changes in the lake come to, for the servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rtml.access import Key
from rtml.online import keys

if TYPE_CHECKING:
    from redis import Redis

PRESENT = b""
"""A field of the hash in Redis that says that it is complete: a Redis that lost it has to be filled."""


def project_keys(client: Redis, known: dict[str, Key]) -> None:
    """Tell the servers which keys there are, all at once."""
    fields: dict[Any, Any] = {number: msgspec.json.encode(key) for number, key in known.items()}
    pipeline = client.pipeline(transaction=True)
    pipeline.delete(keys.KEYS)
    pipeline.hset(keys.KEYS, mapping={PRESENT: b"1", **fields})
    pipeline.execute()


def projected_keys(client: Redis) -> dict[str, Key] | None:
    """Return the keys that Redis knows; `None` where it was never told, or has lost them."""
    stored: dict[Any, Any] = client.hgetall(keys.KEYS)
    if PRESENT not in stored:
        return None
    found = {number.decode(): text for number, text in stored.items() if number != PRESENT}
    return {number: msgspec.json.decode(text, type=Key) for number, text in found.items()}
