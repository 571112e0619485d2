"""How far a flow has come: per partition an offset and an `ingested_at`, durable in Redis, never lowered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rtml.instants import BEGINNING, HOUR, Duration, Instant
from rtml.online import keys

if TYPE_CHECKING:
    from redis import Redis

START = "0-0"
RETENTION: Duration = HOUR
"""How far behind both flows a stream still holds its entries."""

MOVED = "MOVED-ON"
"""How the script's refusal begins: this is not the Redis in which the position was reached."""

_RAISE = """
if ARGV[4] ~= '' and not string.find(redis.call('INFO', 'server'), 'run_id:' .. ARGV[4], 1, true) then
  return redis.error_reply('MOVED-ON Redis was restarted or failed over')
end
local function parts(text)
  local ms, seq, at = string.match(text, '^(%d+)-(%d+) (-?%d+)$')
  return tonumber(ms), tonumber(seq), tonumber(at)
end
local old = redis.call('HGET', KEYS[1], ARGV[1])
local offset, at = ARGV[2], ARGV[3]
if old then
  local ms, seq, was = parts(old)
  local new_ms, new_seq = parts(offset .. ' 0')
  if ms > new_ms or (ms == new_ms and seq > new_seq) then offset = string.match(old, '^(%S+)') end
  if was > tonumber(at) then at = string.match(old, '(%S+)$') end
end
redis.call('HSET', KEYS[1], ARGV[1], offset .. ' ' .. at)
return 1
"""


class Position(NamedTuple):
    """Up to where all is servable (tiles) or mirrored (mirror): the last stream id, and the instant."""

    offset: str = START
    ingested_at: Instant = BEGINNING

    @property
    def order(self) -> tuple[int, int]:
        """The offset, comparable."""
        milliseconds, sequence = self.offset.split("-")
        return int(milliseconds), int(sequence)


def read_positions(client: Redis, key: str, partitions: int) -> list[Position]:
    """Return the positions of all partitions; one never written is at the beginning of time."""
    return parse_positions(client.hgetall(key), partitions)


def parse_positions(stored: Mapping[Any, Any], partitions: int) -> list[Position]:
    """Return the positions that a hash holds."""
    found = []
    for partition in range(partitions):
        text = stored.get(str(partition).encode())
        if text is None:
            found.append(Position())
        else:
            offset, ingested_at = text.decode().split()
            found.append(Position(offset, int(ingested_at)))
    return found


def raise_position(client: Redis, key: str, partition: int, position: Position, run_id: str = "") -> None:
    """Write a position, unless a later one is there.

    Where a `run_id` is given, Redis must still be that process: a client reconnects by itself, and a Redis that came
    back older has lost what the position covers.

    Raises:
        redis.ResponseError: it is not; begins with `MOVED`.
    """
    client.eval(_RAISE, 1, key, partition, position.offset, position.ingested_at, run_id)


def watermark(positions: Iterable[Position]) -> Instant:
    """Return the least instant of the partitions."""
    return min((position.ingested_at for position in positions), default=BEGINNING)


def has_begun(client: Redis, source: str, partitions: int) -> bool:
    """Whether a source's tiles flow has read anything of its stream yet."""
    return any(position.offset != START for position in read_positions(client, keys.position(source), partitions))


def arrived_at(offset: bytes) -> Instant:
    """Return when the broker took an entry: a stream id begins with its milliseconds."""
    return int(offset.split(b"-")[0]) * 1_000
