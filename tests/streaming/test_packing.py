"""Commands that are packed by hand are those that the client would pack."""

from __future__ import annotations

from typing import Any

from hiredis import pack_command

from rtml.online.codec import HEADER, Header
from streaming.packing import Packer
from streaming.scripts import generation_bytes

CLAIM, WRITE, MARK = "c" * 40, "w" * 40, generation_bytes(7)
PACKER = Packer(CLAIM, WRITE, generation=7, expire=100, raw_expire=9)
KEY, RAW = b"rtml:{card|\r\n}:v@1", b"rtml:{card|\r\n}:v@1:r3"


def packed(*words: Any) -> bytes:
    command: Any = words
    return bytes(pack_command(command))


def test_a_claim() -> None:
    names = [b"\x01\r\n\x00\x00", b"tail"]
    fresh = Header(7).encode()
    assert PACKER.claim(KEY, names) == packed("EVALSHA", CLAIM, 1, KEY, MARK, fresh, 100, *names)


def test_one_tile_is_written_as_any_others_are() -> None:
    header, name, value = Header(7, 5, 6, 7).encode(), b"\x00abcd", b"R" + bytes(70)
    tile = PACKER.write_tile(KEY, header, name, value)
    assert tile == PACKER.write([KEY], 0, [], [HEADER, header, name, value], [])
    assert tile == packed("EVALSHA", WRITE, 1, KEY, MARK, 0, 0, 2, 0, 9, HEADER, header, name, value)


def test_a_write_with_all_that_it_may_have() -> None:
    pairs, dropped = [HEADER, b"x", b"\x00abcd", b""], [b"\x01abcd"]
    command = PACKER.write([KEY, RAW, b"other"], 60, [(130, b"record")], pairs, dropped)
    counts = (MARK, 60, 1, 2, 1, 9)
    assert command == packed("EVALSHA", WRITE, 3, KEY, RAW, b"other", *counts, 130, b"record", *pairs, *dropped)
