"""Commands as Redis' protocol (RESP) has them, where packing them anew with every request would cost too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Command = tuple[Any, ...]
"""A command's words."""


class PackedCommand(tuple[Any, ...]):
    """A command's words, with the bytes that say it."""

    packed: bytes


def packed_fields(fields: Sequence[bytes]) -> bytes:
    """Return words of a command as bytes."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in fields])


def hmget(key: str, own: Sequence[bytes], packed_own: bytes, fields: Sequence[bytes], packed: bytes) -> PackedCommand:
    """Return the command that reads some fields of a hash, the last of them packed before."""
    command, name = PackedCommand(("HMGET", key, *own, *fields)), key.encode()
    command.packed = b"".join(
        (b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n" % (len(command), len(name), name), packed_own, packed)
    )
    return command
