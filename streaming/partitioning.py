"""Which partition an event goes to: the hash of its key decides, whoever sends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
import xxhash


def partitions_of(frame: pl.DataFrame, key: Sequence[str], count: int) -> Iterator[int]:
    """Return the partition of each row, of `count`; without a `key` all go to the first."""
    if count == 1 or not key:
        return iter([0] * frame.height)
    chosen = frame.select(key).rows()
    return (xxhash.xxh64_intdigest(repr(values).encode()) % count for values in chosen)
