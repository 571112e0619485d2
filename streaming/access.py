"""Where API keys are kept: every change in the lake, and what they come to in Redis for the servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rtml.access import Key, merge
from rtml.columns import TIMESTAMP
from rtml.lake import Lake
from rtml.online import keys
from streaming import append_only

if TYPE_CHECKING:
    from redis import Redis

CHANGES: dict[str, pl.DataType] = {
    "id": pl.String(),
    "name": pl.String(),
    "digest": pl.String(),
    "scopes": pl.String(),
    "created_at": TIMESTAMP,
    "expires_at": TIMESTAMP,
    "revoked": pl.Boolean(),
}
"""One row a change: all of a key as it is from then on. The scopes stand with blanks between them."""

PRESENT = b""
"""A field of the hash in Redis that says that it is complete: a Redis that lost it has to be filled."""


def save_keys(lake: Lake, changed: Iterable[Key]) -> None:
    """Append changes of keys to the lake."""
    plain = {name: pl.Int64() if kind == TIMESTAMP else kind for name, kind in CHANGES.items()}
    rows = [
        (key.id, key.name, key.digest, " ".join(key.scopes), key.created_at, key.expires_at, key.revoked)
        for key in changed
    ]
    frame = pl.DataFrame(rows, schema=plain, orient="row")
    append_only.append(lake.access_keys, frame.cast({"created_at": TIMESTAMP, "expires_at": TIMESTAMP}))


def stored_keys(lake: Lake) -> dict[str, Key]:
    """Return all keys that the lake knows, by their ids, those that are revoked or expired among them."""
    rows = append_only.read(lake.access_keys, CHANGES)
    plain = rows.cast({"created_at": pl.Int64(), "expires_at": pl.Int64()})
    return merge(
        Key(number, name, digest, tuple(scopes.split()), created_at, expires_at, revoked)
        for number, name, digest, scopes, created_at, expires_at, revoked in plain.iter_rows()
    )


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
