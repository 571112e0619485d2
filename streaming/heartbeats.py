"""Heartbeats: entries without data that travel an event's road, so that a quiet source and a broken flow differ.

An entry's field `heartbeat` marks it; its id is what a flow notes in the hash `keys.heartbeat(source, flow)` when all
that came before it is servable (tiles) or in the lake (mirror): partition → `<id> <instant>`, the instant by Redis'
clock, as the id is. A partition that was never written to gets none: it would not be one any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rtml.instants import Instant
from rtml.online import keys
from rtml.online.commands import Command
from streaming.place import ALONE, Place
from streaming.positions import arrived_at

if TYPE_CHECKING:
    from redis import Redis

    from rtml.define.source import EventSource

FIELD = b"heartbeat"
DATA = b"data"

_NOTE = """
local function parts(text)
  local ms, seq = string.match(text, '^(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function behind(one, other)
  local ms, seq = parts(one)
  local other_ms, other_seq = parts(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end
local partition, offset, process, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if count > 1 then
  local function of(other) return other .. '/' .. count .. ' ' .. partition end
  local before = redis.call('HGET', KEYS[2], of(process))
  if not before or behind(before, offset) then redis.call('HSET', KEYS[2], of(process), offset) end
  for other = 0, count - 1 do
    local passed = redis.call('HGET', KEYS[2], of(other))
    if not passed then return 0 end
    if behind(passed, offset) then offset = passed end
  end
end
local old = redis.call('HGET', KEYS[1], partition)
if old and not behind(old, offset) then return 0 end
local time = redis.call('TIME')
local micros = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[1], partition, offset .. ' ' .. micros)
return 1
"""
"""Never back: a flow that reads its past again passes heartbeats of long ago.

Of several processes each says what it has passed; what all have is noted. That stays true of as many processes, whoever
they are: by their count the shards are theirs."""


class Heard(NamedTuple):
    """The newest heartbeat that came through in a partition."""

    offset: str
    written_at: Instant

    @property
    def order(self) -> tuple[int, int]:
        """The offset, comparable."""
        return order(self.offset)

    @property
    def took_ms(self) -> float:
        """Milliseconds from the stream, whose ids are whole ones, to where it was noted."""
        return max(0.0, (self.written_at - arrived_at(self.offset.encode())) / 1_000)


def order(offset: str) -> tuple[int, int]:
    """Return an entry's id, comparable."""
    milliseconds, _, sequence = offset.partition("-")
    return int(milliseconds), int(sequence or 0)


def is_heartbeat(fields: Mapping[bytes, bytes]) -> bool:
    """Whether an entry is one."""
    return FIELD in fields and DATA not in fields


def send_heartbeats(client: Redis, sources: Iterable[EventSource]) -> dict[str, dict[int, str]]:
    """Append a heartbeat to every partition that was ever written to; return their ids by source and partition."""
    places = [(source, partition) for source in sources for partition in range(source.stream.partitions)]
    pipeline = client.pipeline(transaction=False)
    for source, partition in places:
        pipeline.xadd(source.stream.key(partition), {FIELD: 1}, nomkstream=True)
    sent: dict[str, dict[int, str]] = {}
    for (source, partition), offset in zip(places, pipeline.execute(), strict=True):
        found = sent.setdefault(source.name, {})
        if offset is not None:
            found[partition] = offset.decode()
    return sent


def note(source: str, flow: str, partition: int, offset: str, place: Place = ALONE) -> Command:
    """Return the command that says that a heartbeat came through in a process; it may be repeated."""
    names = (keys.heartbeat(source, flow), keys.passed(source, flow))
    return ("EVAL", _NOTE, len(names), *names, partition, offset, place.process, place.count)


def parse_heard(stored: Mapping[bytes, bytes]) -> dict[int, Heard]:
    """Return what a flow noted, by partition."""
    heard = {}
    for partition, text in stored.items():
        offset, written_at = text.decode().split()
        heard[int(partition)] = Heard(offset, int(written_at))
    return heard


def first_event(client: Redis, key: str, start: str = "-") -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the first entry from an id on that is no heartbeat, if there is one."""
    return _found(client.xrange, key, start, "+")


def last_event(client: Redis, key: str, after: str = "-") -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the last entry that is no heartbeat, if there is one behind an id."""
    return _found(client.xrevrange, key, "+", after)


def _found(read: Any, key: str, start: str, end: str) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Read on from `start` in ever greater pieces: a quiet stream may hold an hour of heartbeats."""
    count = 1
    while found := read(key, start, end, count=count):
        event = next((entry for entry in found if not is_heartbeat(entry[1])), None)
        if event is not None:
            return event  # type: ignore[no-any-return]
        start, count = f"({found[-1][0].decode()}", min(4 * count, 1_024)
    return None
