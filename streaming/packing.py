"""The commands that a writer sends for each entity, packed for Redis: most of their bytes are always the same.

Packed by hiredis, argument by argument, a command takes five times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtml.online.codec import Header
from rtml.online.commands import packed_fields
from streaming.scripts import generation_bytes


def bulk(argument: bytes) -> bytes:
    """Return one argument as RESP has it."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def number(argument: int) -> bytes:
    """Return an integer as an argument."""
    return bulk(b"%d" % argument)


class Packer:
    """Packs the two scripts of one version's entities.

    Args:
        claim: the hash of the script.
        write: the hash of the script.
        generation: the writer's.
        expire: seconds that an entity is kept.
        raw_expire: seconds that raw keys are kept.
    """

    def __init__(self, claim: str, write: str, generation: int, expire: int, raw_expire: int) -> None:
        """Pack what all commands share."""
        mark = bulk(generation_bytes(generation))
        self._claim = bulk(b"EVALSHA") + bulk(claim.encode()) + number(1)
        self._claimed = mark + bulk(Header(generation).encode()) + number(expire)
        self._write = bulk(b"EVALSHA") + bulk(write.encode())
        self._one_key = self._write + number(1)
        self._mark, self._zero, self._raw_expire = mark, number(0), number(raw_expire)
        self._one_tile = mark + number(0) + number(0) + number(2) + number(0) + self._raw_expire

    def claim(self, key: bytes, names: Sequence[bytes]) -> bytes:
        """Return the command that claims an entity and loads fields of it."""
        head = b"*%d\r\n%b%b%b" % (7 + len(names), self._claim, bulk(key), self._claimed)
        return head + packed_fields(names)

    def write_tile(self, key: bytes, header: bytes, name: bytes, value: bytes) -> bytes:
        """Return the command that writes an entity's header and one tile, and nothing else."""
        return b"*14\r\n%b$%d\r\n%b\r\n%b$1\r\nh\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            self._one_key,
            len(key),
            key,
            self._one_tile,
            len(header),
            header,
            len(name),
            name,
            len(value),
            value,
        )

    def write(
        self,
        names: Sequence[bytes],
        ttl: int,
        appends: Sequence[tuple[int, bytes]],
        pairs: Sequence[bytes],
        dropped: Sequence[bytes],
    ) -> bytes:
        """Return the command that writes an entity.

        Args:
            names: its hash, raw keys to append to, raw keys to delete.
            ttl: seconds to live; 0 leaves it as it was.
            appends: offsets and bytes, in the order of the raw keys.
            pairs: fields and their values, in turns.
            dropped: fields to delete.
        """
        parts = [b"*%d\r\n" % (9 + len(names) + 2 * len(appends) + len(pairs) + len(dropped))]
        parts += [self._write, number(len(names)), packed_fields(names)]
        parts += [self._mark, number(ttl), number(len(appends)), number(len(pairs) // 2), number(len(dropped))]
        parts.append(self._raw_expire)
        for offset, data in appends:
            parts += (number(offset), bulk(data))
        parts += (packed_fields(pairs), packed_fields(dropped))
        return b"".join(parts)
