"""Strings beside tiles: whoever writes them in whatever order, and that none is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rtml
from rtml.columns import TIMESTAMP
from rtml.compile import compile_view
from rtml.instants import DAY, HOUR, MINUTE, SECOND, Instant
from rtml.online import keys
from rtml.online.texts import DROP, KEEP, field, kept, out_of_reach, text_of
from rtml.texts import hash64, text_column
from streaming.entries import Entries
from streaming.gate import ARRIVED, Gated
from streaming.link import Link
from streaming.route import Router, shard_of
from streaming.texts import BatchTexts, TextWriter
from streaming.tile_writer import TileWriter
from streaming.versions import Version

START = 19_800 * DAY


class Seen(rtml.Event):
    at: rtml.Timestamp
    user: str
    page: str = rtml.Field(nullable=True)


seen = rtml.EventSource(name="seen", schema=Seen, timestamp="at", stream=rtml.RedisStream("seen"), lateness="1m")
pages = rtml.StreamFeatureView(
    name="pages",
    source=seen,
    entity=rtml.Entity("user"),
    ladder=["1m", "1h"],
    derive={"site": pl.col("page").str.head(4)},
    features=[rtml.Last("page", windows=["3h"]), rtml.First("site", windows=["3h"])],
)
PLAN = compile_view(pages)


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


class Stream:
    """A writer of a view's tiles."""

    ids: pl.Series
    """Of the events that were sent last."""

    def __init__(self, client: redis.Redis, view: rtml.StreamFeatureView = pages) -> None:
        self.client = client
        self.view = view.name
        self.version = Version(compile_view(view), f"strings.{uuid4().hex}", "ready")
        self.link = Link(client)
        self.router = Router(seen, [(view, self.version)])
        self.restart()

    def restart(self) -> None:
        self.writer = TileWriter(self.link, int(self.client.incr(keys.GENERATION)))

    def send(
        self, user: str, events: Sequence[tuple[Instant, str | None]], watermark: Instant, replayed: bool = False
    ) -> None:
        instants = pl.Series([at for at, _ in events], dtype=pl.Int64)
        frame = pl.DataFrame(
            {
                "at": instants.cast(TIMESTAMP),
                "user": [user] * len(events),
                "page": pl.Series([page for _, page in events], dtype=pl.String),
                "ingested_at": instants.cast(TIMESTAMP),
                "id64": pl.Series([hash64(uuid4().hex) for _ in events], dtype=pl.UInt64) if not replayed else self.ids,
                ARRIVED: instants,
            }
        )
        self.ids = frame["id64"]
        batch = self.router(Gated(Entries(0, [], [], [], []), frame, [])).micro_batch
        self.counts = self.writer.apply(batch, {shard_of(keys.entity_tag("user", [user]))}, watermark)
        self.link.drain()

    def key(self, user: str) -> str:
        return keys.texts(keys.entity_tag("user", [user]) + keys.versioned(self.view, self.version.version))

    def stored(self, user: str) -> set[str]:
        found: Any = self.client.hvals(self.key(user))
        return {text_of(value) for value in found}


@pytest.fixture
def stream(client: redis.Redis) -> Iterator[Stream]:
    stream = Stream(client)
    yield stream
    stream.link.close()


def test_what_no_window_reaches_is_gone_and_what_one_may_reach_is_there(stream: Stream) -> None:
    for hour in range(30):
        at = START + hour * HOUR + 5 * MINUTE
        stream.send("ann", [(at, f"/{hour}/once"), (at + SECOND, "/always"), (at + 2 * SECOND, None)], at - MINUTE)
        reached = {f"/{earlier}/once" for earlier in range(max(0, hour - 3), hour + 1)}
        assert reached <= stream.stored("ann")
        # Two coarsest tiles more than a window reaches, each with two strings that were never seen again.
        assert len(stream.stored("ann")) <= 2 * 7 + 2
    assert stream.stored("ann") >= {"/always", "/alw"}
    stream.send("ann", [(START + 3 * DAY, None)], START + 3 * DAY)
    assert stream.stored("ann") == set()


def test_strings_live_as_long_as_their_entity(stream: Stream, client: redis.Redis) -> None:
    stream.send("bob", [(START, "/a")], START)
    assert 0.99 * PLAN.expire_after // 1_000 < client.pttl(stream.key("bob")) <= PLAN.expire_after // 1_000
    client.pexpire(stream.key("bob"), 100_000)
    stream.send("bob", [(START + SECOND, "/a")], START)  # written before, and the entity is not renewed yet
    assert client.pttl(stream.key("bob")) <= 100_000
    stream.writer._views[stream.version.name]._loader.entities[keys.entity_tag("user", ["bob"])].refreshed = -1e9
    stream.send("bob", [(START + 2 * SECOND, "/a")], START)
    assert client.pttl(stream.key("bob")) > 100_000


def scripts(client: redis.Redis) -> int:
    """How many scripts have run."""
    found: Any = client.info("commandstats")
    return int(found["cmdstat_evalsha"]["calls"])


def test_a_string_is_written_once_for_each_coarsest_tile(stream: Stream, client: redis.Redis) -> None:
    stream.send("cid", [(START, "/a")], START)
    before = scripts(client)
    for number in range(10):
        stream.send("cid", [(START + number * MINUTE + 1, "/a")], START)
    assert scripts(client) - before == 10  # one for each write of tiles
    stream.send("cid", [(START + HOUR, "/a")], START)
    assert scripts(client) - before == 12


def test_strings_that_stay_for_ever_are_not_looked_through(client: redis.Redis) -> None:
    stream = Stream(client, replace(pages, name="lives", features=[rtml.Last("page", windows=["lifetime"])]))
    stream.send("gil", [(START, "/0")], START)
    before = scripts(client)
    for hour in range(1, 6):
        stream.send("gil", [(START + hour * HOUR, f"/{hour}")], START + hour * HOUR)
    assert stream.stored("gil") == {f"/{hour}" for hour in range(6)}
    assert scripts(client) - before == 2 * 5  # tiles and their strings
    stream.link.close()


def test_a_replay_brings_strings_that_a_full_redis_refused(stream: Stream, client: redis.Redis) -> None:
    events = [(START, "/full"), (START + SECOND, "/room")]
    stream.send("fay", events, START)
    client.delete(stream.key("fay"))  # refused, while room was made for the tiles; then the process died
    stream.restart()
    stream.send("fay", events, START, replayed=True)
    assert stream.counts["duplicates"] == 2
    assert stream.stored("fay") == {"/full", "/ful", "/room", "/roo"}


def test_two_strings_of_one_hash_are_counted_and_the_first_is_kept(stream: Stream, client: redis.Redis) -> None:
    rows = {"page": [1, 1, 2, None], "site": [1, 2, 2, None], text_column("page"): ["a", "b", "c", None]}
    frame = pl.DataFrame(rows | {text_column("site"): ["a", "c", "c", "unhashed"]})
    found = BatchTexts.of(PLAN, frame)
    assert (found.texts, found.rows, found.conflicting) == (
        {1: b"a", 2: b"c"},
        [(1, 1), (1, 2), (2, 2), ()],
        1,
    )
    assert found.at([2, 0]) == BatchTexts([(2, 2), (1, 1)], {1: b"a", 2: b"c"}, 1)
    assert found.at([3]) == BatchTexts([()], {}, 0)
    writer = TextWriter(stream.link, PLAN)
    assert writer.conflicts(found) == 1
    assert writer.conflicts(BatchTexts([(1,)], {1: b"b", 2: b"c"})) == 1
    key = stream.key("dan").removesuffix(":s")
    stream.link.run([*writer.keep(key, {1: 5}, {1: b"a"}), *writer.keep(key, {1: 6}, {1: b"b"})])
    assert client.hgetall(stream.key("dan")) == {field(1): b"\x06\0\0\0a"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.dictionaries(st.integers(0, 6), st.integers(0, 9), min_size=1), min_size=1, max_size=6),
    order=st.randoms(),
    first=st.integers(0, 10),
)
def test_writes_in_any_order_and_any_number_come_to_the_same(
    client: redis.Redis, writes: list[dict[int, int]], order: Any, first: int
) -> None:
    key = f"rtml:{{strings|{uuid4().hex}}}:s"
    texts = {number: f"text {number} é".encode() for number in range(7)}
    again = [*writes, *order.sample(writes, len(writes))]
    order.shuffle(again)
    for write in again:
        client.eval(KEEP, 1, key, *kept(PLAN, write, texts))
    newest = {one: max(write.get(one, -1) for write in writes) for write in writes for one in write}
    expected = {field(one): number.to_bytes(4, "little") + texts[one] for one, number in newest.items()}
    assert client.hgetall(key) == expected
    client.eval(DROP, 1, key, first)
    assert client.hgetall(key) == {field(one): expected[field(one)] for one, n in newest.items() if n >= first}


def test_many_strings_are_written_and_dropped_in_one_go(stream: Stream, client: redis.Redis) -> None:
    many = [(START + number, f"/{number}") for number in range(5_000)]
    stream.send("eve", many, START)
    assert len(stream.stored("eve")) == 5_000 + len({page[:4] for _, page in many if page} - {p for _, p in many})
    stream.send("eve", [(START + DAY, "/")], START + DAY)
    assert stream.stored("eve") == {"/"}


def test_out_of_reach_leaves_a_tile_more_than_any_window_needs() -> None:
    fence = START + 7 * HOUR
    assert out_of_reach(PLAN, fence) == (fence - MINUTE - 3 * HOUR - MINUTE) // HOUR - 1
    assert out_of_reach(PLAN, 0) == 0
