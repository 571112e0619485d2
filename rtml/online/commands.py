"""Commands as Redis' protocol (RESP) has them, where packing them anew with every request would cost too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class PackedCommand:
    """`HMGET` of some fields of a hash, with the bytes that say it; its words, when it is iterated."""

    __slots__ = ("_fields", "_key", "packed")

    def __init__(self, key: str, fields: Sequence[bytes], packed: bytes) -> None:
        """Take the hash's key, the fields, and both as Redis' protocol has them."""
        self._key, self._fields, self.packed = key, fields, packed

    def __iter__(self) -> Iterator[str | bytes]:
        """Return the words."""
        return iter(("HMGET", self._key, *self._fields))


class FieldsOf:
    """`HMGET` of the same fields of one hash after another: what they share is packed once."""

    def __init__(self, fields: Sequence[bytes]) -> None:
        """Take the fields."""
        self._fields = fields
        self._head = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2)
        self._rest = b"\r\n" + packed_fields(fields)

    def of(self, key: str) -> PackedCommand:
        """Return the command for a hash."""
        name = key.encode()
        return PackedCommand(key, self._fields, b"%b%d\r\n%b%b" % (self._head, len(name), name, self._rest))


def packed_fields(fields: Sequence[bytes]) -> bytes:
    """Return words of a command as bytes."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in fields])


Command = tuple[Any, ...]
"""A command's words."""
AnyCommand = Command | PackedCommand
"""A command's words, or one that is packed already."""
