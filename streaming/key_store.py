"""API keys in the lake: an append-only table of their changes, which is the truth."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from rtml.access import Key, merge
from rtml.columns import TIMESTAMP
from rtml.lake import Lake
from streaming import append_only

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
