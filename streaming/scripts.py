"""The two scripts of the online protocol: claim an entity, and write it (design §6, I2 and I3)."""

from __future__ import annotations

import struct

STALE = "STALE"
"""How a script's refusal begins: another generation owns the entity, or it is gone."""

CLAIM = """
local h = redis.call('HGET', KEYS[1], 'h')
if h then
  if struct.unpack('<I8', string.sub(h, 3, 10)) > struct.unpack('<I8', ARGV[1]) then
    return redis.error_reply('STALE a newer generation owns ' .. KEYS[1])
  end
  h = string.sub(h, 1, 2) .. ARGV[1] .. string.sub(h, 11)
  redis.call('HSET', KEYS[1], 'h', h)
else
  h = ARGV[2]
  redis.call('HSET', KEYS[1], 'h', h)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
local values = {h}
for i = 4, #ARGV, 1000 do
  for _, value in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))) do
    values[#values + 1] = value
  end
end
return values
"""
"""KEYS: the entity's hash. ARGV: generation (8 bytes), header of a new entity, seconds to live, fields to load."""

WRITE = """
local h = redis.call('HGET', KEYS[1], 'h')
if not h or string.sub(h, 3, 10) ~= ARGV[1] then
  return redis.error_reply('STALE this writer no longer owns ' .. KEYS[1])
end
local ttl, appends, fields, drops = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local at = 7
for i = 1, appends do
  redis.call('SETRANGE', KEYS[1 + i], ARGV[at], ARGV[at + 1])
  if ttl ~= '0' or ARGV[at] == '0' then redis.call('EXPIRE', KEYS[1 + i], ARGV[6]) end
  at = at + 2
end
for i = at, at + 2 * fields - 1, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, at + 2 * fields - 1)))
end
at = at + 2 * fields
for i = at, at + drops - 1, 1000 do
  redis.call('HDEL', KEYS[1], unpack(ARGV, i, math.min(i + 999, at + drops - 1)))
end
for i = 2 + appends, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
if ttl ~= '0' then redis.call('EXPIRE', KEYS[1], ttl) end
return 1
"""
"""KEYS: the entity's hash, raw keys to append to, raw keys to delete. ARGV: generation, seconds to live (0: as before),
how many raw appends, fields and dropped fields, seconds to live of new raw keys; then (offset, bytes) of each append,
(field, value) pairs, dropped fields."""


def generation_bytes(generation: int) -> bytes:
    """Return a generation as headers and scripts carry it."""
    return struct.pack("<Q", generation)
