"""Going back in a stream: by I1 what counted already does not count again, so it is always safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtml.define.source import EventSource
from rtml.instants import Instant
from rtml.online import keys
from streaming.heartbeats import first_event, last_event
from streaming.positions import START, arrived_at, has_begun, read_positions

if TYPE_CHECKING:
    from redis import Redis


def request_rewind(client: Redis, source: EventSource, start: Instant | None = None) -> None:
    """Have the tiles flow read again what was ingested from an instant on, or all, when it starts next.

    A rewind that is under way, and goes back further, goes on.
    """
    if not has_begun(client, source.name, source.stream.partitions):
        return  # it reads everything anyway
    rewinding, key = keys.rewinding(source.name), keys.rewind_from(source.name)
    known: Any = client.get(key)
    further_back = client.exists(rewinding) and (known is None or (start is not None and int(known) <= start))
    if start is None:
        client.delete(key)
    elif not further_back:
        client.set(key, start)
    client.sadd(rewinding, *range(source.stream.partitions))


def offset_before(client: Redis, source: EventSource, partition: int, start: Instant) -> str:
    """Return the offset after which lie all entries that were ingested from an instant on.

    Stamps do not go back within a partition, nor do ids: it is found by bisection over the milliseconds of ids.
    """
    key = source.stream.key(partition)
    if not client.exists(key):
        return START
    stamped = _is_stamped(client, source)
    last = arrived_at(client.xinfo_stream(key)["last-generated-id"]) // 1_000
    low, high = 0, last + 1
    while low < high:
        middle = (low + high) // 2
        found = first_event(client, key, f"{middle}-0")
        if found is not None and _ingested_at(found, stamped=stamped) < start:
            low = arrived_at(found[0]) // 1_000 + 1
        else:
            high = middle
    # Entries of one millisecond may lie on both sides: the whole of it is read again.
    return f"{max(0, low - 1)}-0" if low else START


def _is_stamped(client: Redis, source: EventSource) -> bool:
    return bool(client.exists(keys.replay_time(source.name)))


def _ingested_at(entry: tuple[bytes, dict[bytes, bytes]], *, stamped: bool) -> Instant:
    """Return when an entry was ingested: its stamp, where those count, or when the broker took it."""
    offset, fields = entry
    stamp = fields.get(b"ingested_at", b"") if stamped else b""
    return int(stamp) if stamp.isdigit() else arrived_at(offset)


def first_ingested(client: Redis, source: EventSource, partition: int) -> Instant | None:
    """Return when the first entry that a partition holds was ingested, if it holds any."""
    key = source.stream.key(partition)
    entry = first_event(client, key)
    return _ingested_at(entry, stamped=_is_stamped(client, source)) if entry else None


def last_ingested(client: Redis, source: EventSource, partition: int) -> Instant | None:
    """Return when the last entry that a partition holds was ingested, if it holds any."""
    key = source.stream.key(partition)
    entry = last_event(client, key)
    return _ingested_at(entry, stamped=_is_stamped(client, source)) if entry else None


def oldest(client: Redis, source: EventSource, partition: int) -> Instant | None:
    """Return from when on a partition holds all entries; nothing where it holds all that there ever were."""
    key = source.stream.key(partition)
    if not client.exists(key):
        return None
    if not client.exists(keys.trimmed(source.name)):
        return None
    if (begin := first_ingested(client, source, partition)) is not None:
        return begin
    if _is_stamped(client, source):  # the last entry's stamp went with it; the mirror has come that far
        return read_positions(client, keys.mirrored(source.name), source.stream.partitions)[partition].ingested_at
    info: Any = client.xinfo_stream(key)
    return arrived_at(info["last-generated-id"])
