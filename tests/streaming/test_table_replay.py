"""The replay from Delta: raw rows with duplicates, out of order across days, killed and repeated, by the oracle."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rtml.algebra.family import ID64
from rtml.answer import answer
from rtml.errors import RequestError
from rtml.instants import BEGINNING, DAY, HOUR, MINUTE, Instant, to_datetime
from rtml.lake import Lake
from rtml.online import keys
from rtml.online.codec import HEADER, Header
from rtml.online.texts import text_of
from rtml.projection import INGESTED_AT
from rtml.texts import Texts
from rtml.values import to_series
from serving.reader import Turns, ViewLookup
from streaming import broker
from streaming.broker import RestartRequiredError
from streaming.entries import Entries
from streaming.figures import Figures
from streaming.gate import ARRIVED, Gated
from streaming.link import Link
from streaming.mirror import Mirror
from streaming.scripts import generation_bytes
from streaming.sources.table import Stretch, read_raw
from streaming.table_replay import replay_table
from streaming.versions import Version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import (
    LATENESS,
    REGISTRY,
    START,
    differences,
    entity_of,
    generate,
    orders,
    seen_by,
    to_frame,
)

VIEWS = list(REGISTRY.views.values())
EVER: dict[str, Any] = {"start": BEGINNING, "end": START + 400 * DAY}


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Any]:
    with broker.connect(redis_url) as client:
        yield client


class KilledError(Exception):
    """The process died here."""


def mirror(client: Any, lake: Lake, events: Sequence[Event], rng: random.Random) -> None:
    """Write `raw/` as a mirror does, in appends of any order."""
    written = Mirror(client, lake, orders, Figures(f"replay{uuid4().hex}", "mirror"))
    cuts = sorted(rng.sample(range(len(events) + 1), min(3, len(events) + 1)))
    parts = [list(events[start:stop]) for start, stop in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    rng.shuffle(parts)
    for part in parts:
        rng.shuffle(part)
        frame = to_frame(part).with_columns(
            pl.Series(ID64, [event.id64 for event in part], dtype=pl.UInt64),
            pl.Series(ARRIVED, [event.ingested for event in part], dtype=pl.Int64),
        )
        written.take(Gated(Entries(0, [], [], [], []), frame, []))
        written.flush()


def scratch(boundary: Instant = BEGINNING) -> list[tuple[Any, Version]]:
    name = f"replay{uuid4().hex}"
    return [(view, Version(REGISTRY.plans[view.name], name, "ready", boundary)) for view in VIEWS]


def read(client: Any, versions: list[tuple[Any, Version]], events: Sequence[Event], at: Instant) -> pl.DataFrame:
    """The features of all entities, straight from the versions' tiles."""
    entities = list({tuple(entity_of(event).items()): entity_of(event) for event in events}.values())
    columns = pl.DataFrame(entities)
    for _, version in versions:
        plan = version.plan
        tags = [keys.entity_tag(plan.entity, [entity[name] for name in plan.key_names]) for entity in entities]
        lookup = ViewLookup(version, Turns().at(plan, at), tags, at)
        while lookup.unfinished:
            pipeline = client.pipeline(transaction=False)
            for command in lookup.commands():
                pipeline.execute_command(*command)
            lookup.absorb(iter(pipeline.execute()))
        texts = Texts.joined([stored_texts(client, row.key) for row in lookup.rows])
        read = [row.fetched for row in lookup.rows]
        for name, values in answer(plan, at, read, version.based_to).features.items():
            columns = columns.with_columns(to_series(values, texts).alias(f"{version.view}__{name}"))
    return columns


def stored_texts(client: Any, key: str) -> Texts:
    """The strings that Redis has of an entity."""
    stored = sorted((int.from_bytes(name, "little"), text_of(v)) for name, v in client.hgetall(keys.texts(key)).items())
    hashes = np.array([one for one, _ in stored], dtype="<u8")
    return Texts(hashes, pl.Series([text for _, text in stored], dtype=pl.String))


def truth(events: Sequence[Event], since: Instant = BEGINNING) -> dict[str, list[Event]]:
    counted = [event for event in oracle.counted(events, LATENESS) if event.time >= since]
    return {view.name: seen_by(view.name, counted) for view in VIEWS}


@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.sampled_from([1, 20, 300]), kills=st.integers(0, 2))
def test_a_replay_is_the_stream(client: Any, tmp_path: Path, seed: int, count: int, kills: int) -> None:
    rng = random.Random(seed)
    lake = Lake(str(tmp_path / uuid4().hex))
    events = generate(seed, count=count, days=rng.choice([0.1, 1, 4]))
    mirror(client, lake, events, rng)
    end = rng.choice([events[-1].ingested, rng.choice(events).ingested])
    boundary = rng.choice([BEGINNING, START + 5 * HOUR])
    versions = scratch(boundary)
    batch = rng.choice([1, 7, 100, 10_000]) if count < 300 else rng.choice([50, 10_000])
    given: dict[str, Any] = {"start": BEGINNING, "end": end, "fence": rng.random() < 0.5, "batch": batch}
    for _ in range(kills):
        kill_within(rng.randrange(40), client, lake, versions, given)
    replay_table(client, lake, orders, versions, **given)
    arrived = [event for event in events if event.ingested <= end]
    counted = truth(arrived, boundary)
    for at in (end, end + 1, end + MINUTE, end - rng.randrange(LATENESS)):
        assert differences(read(client, versions, events, at), counted, at) == []


def kill_within(commands: int, client: Any, lake: Lake, versions: list[tuple[Any, Version]], given: Any) -> None:
    left = commands

    def send(self: Link, sent: list[Any], *, wait: bool = False) -> None:
        nonlocal left
        for command in sent:
            if left <= 0:
                raise KilledError
            left -= 1
            whole(self, [command], wait=True)

    with pytest.MonkeyPatch.context() as patch:
        whole = Link._send
        patch.setattr(Link, "_send", send)
        with suppress(KilledError):
            replay_table(client, lake, orders, versions, **given)


def test_reads_in_the_order_of_ingestion_and_in_bounded_parts(client: Any, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    events = generate(5, count=500)
    mirror(client, lake, events, random.Random(5))
    first, last = events[100].ingested, events[400].ingested
    frames = list(read_raw(lake, orders, Stretch(first, last), limit=20))
    on_time = [e for e in events if first <= e.ingested <= last and e.ingested - e.time <= LATENESS]
    assert [to_datetime(instant) for instant in sorted(e.ingested for e in on_time)] == [
        moment for frame in frames for moment in frame[INGESTED_AT]
    ]
    assert sorted(e.id64 for e in on_time) == sorted(pl.concat(frames)[ID64])
    assert max(frame.height for frame in frames) <= 20
    assert len(frames) < 60


def test_reads_some_days_and_what_is_not_the_histories(client: Any, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    events = generate(6)
    mirror(client, lake, events, random.Random(6))
    day = to_datetime(START + DAY).date()
    (frame,) = read_raw(lake, orders, Stretch(**EVER, since=START + DAY + HOUR, days=frozenset([day])))
    inside = [e for e in events if START + DAY + HOUR <= e.time < START + 2 * DAY and e.ingested - e.time <= LATENESS]
    assert sorted(frame[ID64]) == sorted(e.id64 for e in inside)


def test_many_rows_of_one_instant_are_read_together(client: Any, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    now = START + HOUR
    events = [Event(e.key, now - i, e.id64, now, e.values) for i, e in enumerate(generate(7, count=50))]
    mirror(client, lake, events, random.Random(7))
    (frame,) = read_raw(lake, orders, Stretch(**EVER), limit=10)
    assert frame.height == 50


def test_nothing_mirrored_is_nothing_read(client: Any, tmp_path: Path) -> None:
    assert replay_table(client, Lake(str(tmp_path)), orders, scratch(), **EVER) == 0


@pytest.mark.parametrize("fence", [True, False])
def test_the_fence_rises_with_the_replay_where_it_shall(
    client: Any, tmp_path: Path, fence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.table_replay.EPOCH", timedelta(0))
    lake = Lake(str(tmp_path))
    events = generate(8, shops=["a"])
    mirror(client, lake, events, random.Random(8))
    versions = scratch()
    replay_table(client, lake, orders, versions, **EVER, fence=fence, batch=10)
    key = keys.entity_tag("shop", ["a"]) + keys.versioned("shop_orders", versions[0][1].version)
    header = Header.decode(client.hget(key, HEADER))
    on_time = [e.ingested for e in events if e.ingested - e.time <= LATENESS]
    assert header.last_ingested == on_time[-1]
    if fence:
        assert on_time[-40] <= header.fence < on_time[-1]
    else:
        assert header.fence == BEGINNING


def test_a_newer_writer_ends_it(client: Any, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    events = generate(9, count=20)
    mirror(client, lake, events, random.Random(9))
    versions = scratch()
    newer = int(client.get(keys.GENERATION) or 0) + 1_000
    for event in events:
        tag = keys.entity_tag("shop", [event.key])
        header = Header(newer).encode()
        assert header[2:10] == generation_bytes(newer)
        client.hset(tag + keys.versioned("shop_orders", versions[0][1].version), HEADER, header)
    with pytest.raises(RestartRequiredError, match="a newer generation owns"):
        replay_table(client, lake, orders, versions, **EVER)


def test_what_cannot_be_replayed(client: Any, tmp_path: Path) -> None:
    lake, versions = Lake(str(tmp_path)), scratch()
    with pytest.raises(RequestError, match="must have fence=False"):
        replay_table(client, lake, orders, versions, **EVER, days=[to_datetime(START).date()])
    (shop, _), (_, tills) = versions
    with pytest.raises(RequestError, match=r"got till_orders@\S+ for view 'shop_orders' of source 'orders'"):
        replay_table(client, lake, orders, [(shop, tills)], **EVER)
