"""The raw records of a hot finest tile as its writer remembers them: there may be a million."""

from __future__ import annotations

from collections.abc import Iterable

PER_BUCKET = 8
"""How many records a bucket has on average, at most: it is searched from end to end."""


class Hot:
    """The raw records of a hot finest tile, by time and id64, and how many places they take in Redis.

    They are kept as the bytes that they are, in buckets by the hash of their keys: about a sixth of what a dict takes.
    As they become more, so do buckets, one by one: no record waits until all others are moved (Litwin, Linear Hashing,
    1980).
    """

    __slots__ = ("_buckets", "_held", "_key_width", "_width", "count", "damaged")

    def __init__(self, data: bytes, width: int, payload: int, count: int) -> None:
        """Take what the raw key holds; if that is less than `count` records, the tile is damaged for good."""
        self._width, self._key_width = width, width - payload
        self._held = 0
        self._buckets = [b""] * (len(data) // width // PER_BUCKET + 1)
        self.count = count
        self.damaged = len(data) // width < count
        self.admit([data[at : at + width] for at in range(0, len(data) // width * width, width)])

    @property
    def size(self) -> int:
        """How many bytes the records take."""
        return self._held * self._width

    def admit(self, records: Iterable[bytes]) -> list[bytes | None]:
        """Know records; return for each the one that was there before it with its time and id64, if any."""
        buckets, width, key_width = self._buckets, self._width, self._key_width
        count = len(buckets)
        half = (1 << (count.bit_length() - 1)) - 1
        mask = 2 * half + 1
        found: list[bytes | None] = []
        add = found.append
        for record in records:
            key = record[:key_width]
            place = hash(key) & mask
            if place >= count:
                place &= half
            bucket = buckets[place]
            before = find_record(bucket, key, width) if key in bucket else None
            if before is None:
                buckets[place] = bucket + record
            add(before)
        self._held += found.count(None)
        while self._held > PER_BUCKET * len(buckets):
            self._split()
        return found

    def _split(self) -> None:
        """Add a bucket, and divide between it and the one that has had its records so far, by one more bit."""
        count, width, key_width = len(self._buckets), self._width, self._key_width
        bit = 1 << (count.bit_length() - 1)
        data = self._buckets[count - bit]
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for at in range(0, len(data), width):
            parts[hash(data[at : at + key_width]) & bit > 0].append(data[at : at + width])
        self._buckets[count - bit] = b"".join(parts[0])
        self._buckets.append(b"".join(parts[1]))


def find_record(data: bytes, key: bytes, width: int, first: int = 0) -> bytes | None:
    """Return the record that begins with a key, of records that follow each other from `first` on."""
    at = data.find(key, first)
    while at >= 0 and (at - first) % width:
        at = data.find(key, at + 1)
    return data[at : at + width] if at >= 0 else None
