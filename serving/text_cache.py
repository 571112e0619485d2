"""The texts of strings that were served of late, by their hashes."""

from __future__ import annotations

REMEMBERED_BYTES = 16 << 20
"""About how much memory remembered texts take at most."""
_OVERHEAD = 200


class TextCache:
    """The texts of hashes by view: those that were asked for of late."""

    def __init__(self, most: int = REMEMBERED_BYTES) -> None:
        """Remember up to so many bytes, in two halves: when the new one is full, the old one is forgotten."""
        self._half = most // 2
        self._new: dict[tuple[str, int], str] = {}
        self._old: dict[tuple[str, int], str] = {}
        self._size = 0

    def get(self, view: str, text_hash: int) -> str | None:
        """Return a text, if it is remembered."""
        found = self._new.get((view, text_hash))
        if found is None and (found := self._old.get((view, text_hash))) is not None:
            self.put(view, text_hash, found)
        return found

    def put(self, view: str, text_hash: int, text: str) -> None:
        """Remember a text; many entities of one answer may bring the same one."""
        if (view, text_hash) in self._new:
            return
        self._size += len(text) + _OVERHEAD
        if self._size > self._half:
            self._new, self._old, self._size = {}, self._new, len(text) + _OVERHEAD
        self._new[view, text_hash] = text
