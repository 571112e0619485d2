"""Reads of a partition: a backlog comes several reads at once, nothing twice, and nothing when one of them fails."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

import rtml
from rtml.define.source import EventSource
from rtml.online import keys
from streaming import broker
from streaming.entries import Entries
from streaming.figures import Figures
from streaming.sources.redis_stream import READS, Reading, RedisStreamPartition, RedisStreamSource

BATCH = 10


class Message(rtml.Event):
    at: rtml.Timestamp
    key: str


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Any]:
    with broker.connect(redis_url) as client:
        yield client


@pytest.fixture
def source() -> EventSource:
    name = f"m{uuid4().hex[:12]}"
    return EventSource(name=name, schema=Message, timestamp="at", stream=rtml.RedisStream(name))


@pytest.fixture
def opened(client: Any, source: EventSource) -> Callable[..., RedisStreamPartition]:
    def opened(credit: int = 10_000) -> RedisStreamPartition:
        reading = Reading("mirror", keys.mirrored(source.name), BATCH, credit, accept_stamps=False)
        figures = Figures(source.name, "mirror")
        return RedisStreamSource(client, source, reading, figures).build_part("read", "0", None)

    return opened


def append(client: Any, source: EventSource, count: int) -> list[str]:
    key = source.stream.key(0)
    return [client.xadd(key, {"data": b"{}"}).decode() for _ in range(count)]


def taken(part: RedisStreamPartition) -> list[str]:
    """The ids that the next micro-batch has."""
    found: list[Entries] = list(part.next_batch())
    return [offset for entries in found for offset in entries.offsets]


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, READS * BATCH, 9 * BATCH + 3])
def test_a_backlog_comes_in_order_and_once(
    client: Any, source: EventSource, opened: Callable[..., RedisStreamPartition], count: int
) -> None:
    offsets, part = append(client, source, count), opened()
    sizes, found = [], []
    while batch := taken(part):
        sizes.append(len(batch))
        found += batch
    whole, rest = divmod(count, READS * BATCH)
    assert sizes == [READS * BATCH] * whole + [rest] * (rest > 0)
    assert found == offsets


def test_what_comes_while_a_read_is_under_way_comes_behind_it(
    client: Any, source: EventSource, opened: Callable[..., RedisStreamPartition]
) -> None:
    before, part = append(client, source, READS * BATCH), opened()
    assert taken(part) == before
    after = append(client, source, 3)  # the next read found nothing: it was made before
    assert taken(part) == []
    assert taken(part) == after


def test_credit_ends_a_micro_batch(
    client: Any, source: EventSource, opened: Callable[..., RedisStreamPartition]
) -> None:
    offsets, part = append(client, source, 4 * BATCH), opened(credit=BATCH + 1)
    assert taken(part) == offsets[: 2 * BATCH]
    assert taken(part) == []
    part.snapshot()
    assert taken(part) == offsets[2 * BATCH :]


@pytest.mark.parametrize("after", range(1, 4))
def test_a_read_that_fails_takes_those_before_it_along(
    client: Any,
    source: EventSource,
    opened: Callable[..., RedisStreamPartition],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    offsets, part = append(client, source, 4 * BATCH), opened()
    reads, right, count = part._reads, part._reads.after, 0

    def breaking(offset: str) -> Any:
        nonlocal count
        count += 1
        if count == after + 1:
            reads._connection._sock.shutdown(socket.SHUT_RDWR)
        return right(offset)

    monkeypatch.setattr(reads, "after", breaking)
    assert taken(part) == []
    assert part.snapshot() == "0-0"
    assert taken(part) == offsets


def test_what_is_under_way_is_given_up_where_another_is_asked_for(
    client: Any, source: EventSource, opened: Callable[..., RedisStreamPartition]
) -> None:
    offsets, reads = append(client, source, 4 * BATCH), opened()._reads
    assert [offset.decode() for offset, _ in reads.after("0-0").entries] == offsets[:BATCH]
    assert [offset.decode() for offset, _ in reads.after(offsets[4]).entries] == offsets[5 : 5 + BATCH]
