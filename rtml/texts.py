"""Strings and their hashes: inside, a string is the 64-bit hash of its UTF-8; its text is kept beside.

States, records and tiles so stay of fixed width. The hash is xxh64, the same in every process and for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from rtml.algebra.family import Array, Values
from rtml.errors import CodecError
from rtml.lazy import pl

LONGEST_TEXT = 1_024
"""So many bytes of UTF-8 a string may have; a longer one counts as null, on every road."""
_FEW = 1_000
_HASH, _TEXT = "hash", "text"


def text_column(name: str) -> str:
    """Return the name of the column that holds the texts of a column of hashes."""
    return f"{name}.text"


def hash64(text: str) -> int:
    """Return a string's hash."""
    return xxhash.xxh64_intdigest(text.encode())


def hashed(name: str) -> pl.Expr:
    """Return a column of strings as their hashes; null where there is none, or it is too long to be kept."""
    column = pl.col(name)
    kept = pl.when(column.str.len_bytes() <= LONGEST_TEXT).then(column)
    return kept.map_batches(hashes, return_dtype=pl.UInt64(), is_elementwise=True).alias(name)


def hashes(texts: pl.Series) -> pl.Series:
    """Return the hashes of strings (uint64), null where there is none."""
    if len(texts) <= _FEW or 2 * texts.n_unique() > len(texts):
        return _each(texts)
    different = texts.drop_nulls().unique()
    known = pl.DataFrame({_TEXT: different, _HASH: _each(different)})
    found = pl.DataFrame({_TEXT: texts}).join(known, on=_TEXT, how="left", maintain_order="left")
    return found[_HASH].alias(texts.name)


def _each(texts: pl.Series) -> pl.Series:
    digest = xxhash.xxh64_intdigest
    found = [None if text is None else digest(text.encode()) for text in texts.to_list()]
    return pl.Series(texts.name, found, dtype=pl.UInt64)


class Texts(NamedTuple):
    """The texts of hashes: both sorted by hash, each hash once."""

    hashes: Array
    texts: pl.Series

    @staticmethod
    def none() -> Texts:
        """Return none."""
        return Texts(np.zeros(0, dtype="<u8"), pl.Series(dtype=pl.String))

    @staticmethod
    def of(events: pl.DataFrame, names: Iterable[str]) -> Texts:
        """Return the texts of some columns of events, as `project` gives both."""
        return _sorted([events.select(pl.col(n).alias(_HASH), pl.col(text_column(n)).alias(_TEXT)) for n in names])

    @staticmethod
    def joined(parts: Sequence[Texts]) -> Texts:
        """Return the texts of several as one."""
        return _sorted([pl.DataFrame({_HASH: part.hashes, _TEXT: part.texts}) for part in parts])

    def only(self, found: Iterable[Values]) -> Texts:
        """Return the texts of these values alone; those that are not strings do not matter."""
        named = [values.values.ravel() for values in found if values.values.dtype.kind == "u"]
        chosen = np.isin(self.hashes, np.concatenate([np.zeros(0, dtype="<u8"), *named]))
        return Texts(self.hashes[chosen], self.texts.filter(pl.Series(chosen)))

    def look_up(self, wanted: Array, there: Array) -> pl.Series:
        """Return the texts of hashes (one axis), null where there is none.

        Raises:
            CodecError: one that is there has no text.
        """
        if not there.any():
            return pl.repeat(None, len(wanted), dtype=pl.String, eager=True)
        places = np.minimum(np.searchsorted(self.hashes, wanted), max(len(self.hashes) - 1, 0))
        known = self.hashes[places] == wanted if len(self.hashes) else np.zeros(len(wanted), dtype=bool)
        lost = np.flatnonzero(there & ~known)
        if len(lost):
            raise CodecError(f"the text of a string must be known; the hash {int(wanted[lost[0]]):#018x} has none")
        return self.texts.gather(pl.Series(places).set(pl.Series(~there), None))


def _sorted(parts: Sequence[pl.DataFrame]) -> Texts:
    if not parts:
        return Texts.none()
    known = pl.concat(parts).drop_nulls(_HASH).unique(_HASH, keep="first", maintain_order=True).sort(_HASH)
    return Texts(known[_HASH].to_numpy(), known[_TEXT])
