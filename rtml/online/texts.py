"""Strings in Redis: an entity's hash of its strings, by their 64-bit hashes (little endian).

field   u64 xxh64 of the text
value   u32 number of the coarsest tile in which it was last seen, then the text in UTF-8

A text never changes and the number only grows, by scripts that keep the greater one: whoever writes, in whatever order
and however often, the outcome is the same. So the stream and publish share the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from rtml.instants import Instant
from rtml.plan import Plan

KEEP = """
for at = 2, #ARGV, 3 * 300 do
  local last = math.min(at + 3 * 300 - 1, #ARGV)
  local names, pairs = {}, {}
  for i = at, last, 3 do names[#names + 1] = ARGV[i] end
  for i, old in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
    local seen, text = ARGV[at + 3 * i - 2], ARGV[at + 3 * i - 1]
    if old then text = string.sub(old, 5) end
    if not old or struct.unpack('<I4', old) < struct.unpack('<I4', seen) then
      pairs[#pairs + 1] = names[i]
      pairs[#pairs + 1] = seen .. text
    end
  end
  if #pairs > 0 then redis.call('HSET', KEYS[1], unpack(pairs)) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
"""KEYS: an entity's strings. ARGV: milliseconds to live; then (hash, number of the tile, text) of each."""

DROP = """
local found, gone = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #found, 2 do
  if struct.unpack('<I4', found[i + 1]) < tonumber(ARGV[1]) then gone[#gone + 1] = found[i] end
end
for i = 1, #gone, 1000 do redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone))) end
return #gone
"""
"""KEYS: an entity's strings. ARGV: the number of the first tile whose strings stay."""

_HASH, _SEEN = struct.Struct("<Q"), struct.Struct("<I")


def field(text_hash: int) -> bytes:
    """Return the name of a string's field."""
    return _HASH.pack(text_hash)


def text_of(value: bytes) -> str:
    """Return the text of a field's value."""
    return value[_SEEN.size :].decode()


def kept(plan: Plan, seen: Mapping[int, int], texts: Mapping[int, bytes]) -> list[Any]:
    """Return the arguments of `KEEP`: strings by hash, with the number of the coarsest tile that each is in."""
    arguments: list[Any] = [plan.expire_after // 1_000]
    for text_hash, number in seen.items():
        arguments += (_HASH.pack(text_hash), _SEEN.pack(number), texts[text_hash])
    return arguments


def stay_for_ever(plan: Plan) -> bool:
    """Whether all strings stay, because one of a lifetime window may be any of them."""
    return any(feature.span.lifetime for feature in plan.features if feature.output.kind == "str")


def out_of_reach(plan: Plan, fence: Instant) -> int:
    """Return the number of the first coarsest tile that a reader may still look at, less one; 0 where all strings stay.

    A reader who was allowed to read finds what it read of for as long as one more coarsest tile takes.
    """
    if stay_for_ever(plan):
        return 0
    earliest = fence - plan.lateness - plan.longest - plan.tiles.finest
    return max(0, earliest // plan.tiles.coarsest - 1)
