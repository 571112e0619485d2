"""History and late events in Redis, read back through serving, against the oracle."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import polars as pl
import pytest

from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, DAY, HOUR, MINUTE, now, to_datetime, to_instant
from rtml.lake import LATE, Lake
from rtml.online import codec, keys
from rtml_assets.store import FeatureStore
from rtml_assets.tables import delta, late, publisher
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from rtml_assets.tables.late import LateFigures, publish_late
from rtml_assets.tables.publish import Published, boundary, publish
from rtml_assets.tables.reach import history_start
from rtml_assets.tables.touched import touched_days
from streaming.positions import Position, raise_position
from streaming.producer import Producer
from streaming.services import Service, write_services
from streaming.versions import Version, create_version, find_version, go_live, live_version
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
    plan_of,
    sales,
    seen_by,
    shop_orders,
    till_orders,
    to_frame,
)

VIEWS = [shop_orders, till_orders]


def take(lake: Lake, client: Any, events: list[Event]) -> None:
    """Land events, and build the days that they touch; those that come later, come as by the mirror."""
    before = client.get(keys.landed("orders"))
    land(lake, client, orders, to_frame(events))
    if before is not None:
        client.set(keys.landed("orders"), before)
    compact_events(lake, orders, touched_days(lake, orders))


def is_folded(version: Version, event: Event) -> bool:
    return event.time < version.boundary and event.ingested < version.folded_to


def publish_all(lake: Lake, client: Any) -> dict[str, Published]:
    return {view.name: publish(lake, client, view, plan_of(view)) for view in VIEWS}


def late_rows(lake: Lake) -> pl.DataFrame:
    return delta.scan(delta.open_table(lake.late("orders")), LATE).collect()


def is_late(event: Event) -> bool:
    return event.ingested - event.time > LATENESS


def check_served(
    settings: Any, client: Any, events: list[Event], versions: dict[str, Version], until: int, caught_up: int
) -> int:
    """Compare at instants from the boundary on: what publish answers for is history, and what was late.

    No stream runs: what is on time and follows the boundary was applied from the lake, up to `caught_up`.
    """
    write_services(client, [Service.of(sales, REGISTRY.plans)])
    counted = {
        name: [
            event
            for event in seen_by(name, oracle.counted(events, LATENESS, late_too=True))
            if event.time < version.boundary or event.ingested <= (until if is_late(event) else caught_up)
        ]
        for name, version in versions.items()
    }
    latest = max(version.boundary for version in versions.values())
    entities = list({tuple(entity_of(event).items()): entity_of(event) for event in events}.values())
    entities.append({"shop": "never seen", "till": 0, "big": False})
    compared = 0
    with FeatureStore(settings) as store:
        for at in (latest, latest + 1, latest + 17 * MINUTE, latest + 5 * HOUR, latest + DAY):
            wrong = differences(store.get_online_features("sales", entities, at=at), counted, at)
            assert wrong == []
            compared += len(entities)
    return compared


@pytest.mark.parametrize(
    ("seed", "count", "raw_limit", "salts"), [(1, 900, 64, 1), (2, 900, 4, 3), (3, 300, 64, 1), (4, 2000, 16, 1)]
)
def test_history_is_the_oracles_from_the_boundary_on(
    settings, lake, client, monkeypatch, seed, count, raw_limit, salts
):
    other = {"raw_limit": raw_limit, "salts": salts}
    plans = {name: msgspec.structs.replace(plan, **other) for name, plan in REGISTRY.plans.items()}
    monkeypatch.setitem(REGISTRY.__dict__, "plans", plans)  # small tiles split sooner
    events = generate(seed, count)
    take(lake, client, events)
    outcomes = publish_all(lake, client)
    versions = {name: outcome.version for name, outcome in outcomes.items() if outcome.version}
    mirrored = events[-1].ingested
    for name, version in versions.items():
        plan = plans[name]
        assert version.state == "ready"
        assert version.boundary == boundary(plan, mirrored)
        assert version.boundary % plan.tiles.coarsest == 0
        assert version.boundary + LATENESS <= mirrored < version.boundary + LATENESS + plan.tiles.coarsest
        assert (version.folded_to, version.published_to, version.history_from) == (mirrored, mirrored, BEGINNING)
        assert live_version(client, name, plan.fingerprint) == version
    assert check_served(settings, client, events, versions, mirrored, mirrored) > 20
    if raw_limit == 4:
        assert client.keys("*:r*")
    assert all(client.ttl(key) > DAY // 1_000_000 for key in client.keys("rtml:{*"))


def test_what_is_late_after_the_boundary_is_published_once(settings, lake, client):
    events = generate(5, 700, days=3)
    first, then = events[:500], events[500:]
    take(lake, client, first)
    before = publish_all(lake, client)
    versions = {name: outcome.version for name, outcome in before.items() if outcome.version}
    check_served(settings, client, first, versions, first[-1].ingested, first[-1].ingested)
    take(lake, client, then)
    publish_all(lake, client)
    for _ in range(2):
        outcomes = publish_all(lake, client)
        assert all(outcome.history is None for outcome in outcomes.values())
        assert {outcome.late.new for outcome in outcomes.values() if outcome.late} == {0}
        check_served(settings, client, events, versions, events[-1].ingested, first[-1].ingested)
    rows = late_rows(lake)
    assert rows.height == rows.unique(["view", "version", "event_time", "id64"]).height
    for name, version in versions.items():
        reach = version.boundary - version.plan.lateness - version.plan.longest - version.plan.tiles.coarsest
        expected = {
            (event.time, event.id64)
            for event in seen_by(name, oracle.counted(events, LATENESS, late_too=True))
            if is_late(event) and event.time >= (history_start(version) if is_folded(version, event) else reach)
        }
        ours = rows.filter(pl.col("view") == name)
        got = set(ours.select(pl.col("event_time").dt.epoch("us"), pl.col("id64").reinterpret(signed=False)).rows())
        assert got == expected
        assert ours["version"].unique().to_list() == [version.version]
        stamps = ours["published_at"].dt.epoch("us").unique().to_list()
        assert set(stamps) <= {first[-1].ingested, events[-1].ingested}
        stored = find_version(client, version.plan)
        assert stored is not None
        assert stored.published_to == events[-1].ingested


def test_late_events_that_went_out_of_reach_leave_redis(lake, client):
    plan = plan_of(till_orders)
    create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready"))
    client.set(keys.landed("orders"), BEGINNING)  # all came by the stream
    values: dict[str, Any] = {"id": "x", "till": 0, "big": True, "price": 1.0, "items": 2}
    old = Event("a", START, 7, START + HOUR, values)
    take(lake, client, [old])
    key = keys.entity_tag("till_of_shop", ["a", 0, True]) + keys.versioned("till_orders", f"{plan.fingerprint}.1")
    outcome = publish(lake, client, till_orders, plan)
    assert outcome.late is not None
    assert outcome.late.events == outcome.late.new == outcome.late.most == 1
    assert client.hkeys(key) == [b"late"]
    take(lake, client, [Event("b", START + 9 * HOUR, 8, START + 9 * HOUR, values | {"id": "y"})])
    client.delete(keys.position("orders"))
    for partition in range(2):  # the mirror has come on, the stream has not: a request may still look back
        raise_position(client, keys.position("orders"), partition, Position("1-0", START + 4 * HOUR))
    assert publish(lake, client, till_orders, plan).late == LateFigures(1, 0, 1, 1, 0)
    for partition in range(2):
        raise_position(client, keys.position("orders"), partition, Position("2-0", START + 9 * HOUR))
    assert publish(lake, client, till_orders, plan).late == LateFigures(0, 0, 0, 0, 0)
    assert not client.exists(key)
    assert client.smembers(keys.late_entities("till_orders", f"{plan.fingerprint}.1")) == set()
    assert late_rows(lake).height == 1


class DyingError(Exception):
    """The process would be dead now."""


class Dying:
    """A client that dies before its n-th command or pipeline."""

    def __init__(self, client: Any, left: int) -> None:
        self._client, self.left = client, left

    def _tick(self) -> bool:
        if self.left <= 0:
            raise DyingError
        self.left -= 1
        return True

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            result = method(*args, **kwargs)
            if name == "pipeline":
                execute = result.execute
                result.execute = lambda: self._tick() and execute()
            return result

        return call


def test_it_may_die_between_any_two_commands_and_be_repeated(settings, lake, client, monkeypatch):
    monkeypatch.setattr("rtml_assets.tables.history.EVENTS_AT_ONCE", 50)
    monkeypatch.setattr("rtml_assets.tables.late.KEYS_AT_ONCE", 2)
    events = generate(6, 260, days=2)
    take(lake, client, events[:200])
    deaths, more = 0, events[200:]
    for left in range(60):
        if more and all(find_version(client, plan_of(view)) for view in VIEWS):
            take(lake, client, more)  # more arrives before history is done: what it holds was fixed already
            more = []
        for view in VIEWS:
            try:
                dying: Any = Dying(client, left)
                publish(lake, dying, view, plan_of(view))
            except DyingError:
                deaths += 1
    assert deaths > 30
    assert not more
    versions = {view.name: find_version(client, plan_of(view)) for view in VIEWS}
    assert all(version is not None and version.state == "ready" for version in versions.values())
    assert {version.boundary for version in versions.values() if version} == {
        boundary(plan_of(view), events[199].ingested) for view in VIEWS
    }
    present = events[-1].ingested
    check_served(settings, client, events, {k: v for k, v in versions.items() if v}, present, present)
    rows = late_rows(lake)
    assert rows.height == rows.unique(["view", "version", "event_time", "id64"]).height > 0


def test_nothing_is_published_before_there_is_anything(lake, client):
    assert publish(lake, client, shop_orders, plan_of(shop_orders)).why == "nothing is mirrored yet"
    raise_position(client, keys.mirrored("orders"), 0, Position("1-0", START))
    assert publish(lake, client, shop_orders, plan_of(shop_orders)).version is None  # partition 1 was never written
    raise_position(client, keys.mirrored("orders"), 1, Position("1-0", START))
    assert "the stream holds all" in publish(lake, client, shop_orders, plan_of(shop_orders)).why
    assert find_version(client, plan_of(shop_orders)) is None


def test_history_is_not_fixed_while_landed_days_are_not_built(lake, client):
    land(lake, client, orders, to_frame(generate(7, 100, days=2)))
    with pytest.raises(NotReadyError, match=r"view 'shop_orders': history is complete only to .*materialise 2 days of"):
        publish(lake, client, shop_orders, plan_of(shop_orders))
    assert find_version(client, plan_of(shop_orders)) is None


def test_a_version_that_the_stream_makes_gets_no_history_but_late_events(lake, client):
    plan = plan_of(shop_orders)
    name = f"{plan.fingerprint}.1"
    create_version(client, Version(plan, name, "building"))
    events = generate(8, 200, days=1)
    take(lake, client, events)
    outcome = publish(lake, client, shop_orders, plan)
    assert outcome.history is None
    assert outcome.late is not None
    assert outcome.late.events > 0
    stored = find_version(client, plan)
    assert stored == Version(plan, name, "building", published_to=events[-1].ingested)
    assert not client.exists(keys.live("shop_orders"))


def test_history_that_begins_after_the_sources_first_day_is_partial(settings, lake, client):
    events = [e for e in generate(9, 400, days=4) if e.time >= START + DAY]
    take(lake, client, events)
    outcomes = publish_all(lake, client)
    assert {outcome.version.history_from for outcome in outcomes.values() if outcome.version} == {START + DAY}


def test_a_stream_that_has_come_far_must_go_back_for_a_new_version(lake, client):
    for partition in range(2):
        raise_position(client, keys.position("orders"), partition, Position("5-0", START + 2 * DAY))
    take(lake, client, generate(10, 200, days=2))
    outcome = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert outcome.version is not None
    assert outcome.version.state == "ready"
    assert client.smembers(keys.rewinding("orders")) == {b"0", b"1"}
    assert not client.exists(keys.live("shop_orders"))  # the stream says when it has caught up


def test_an_older_watermark_takes_no_late_event_back(lake, client):
    events = generate(11, 300, days=2)
    take(lake, client, events)
    publish_all(lake, client)
    before = publish(lake, client, shop_orders, plan_of(shop_orders))
    landed = client.get(keys.landed("orders"))
    land(lake, client, orders, to_frame(events[:1]).with_columns(pl.lit("straggler").alias("order_id")))
    client.set(keys.landed("orders"), landed)
    after = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert after.late is None
    assert "holds less than was published" in after.why
    assert after.version is not None
    assert before.version is not None
    assert after.version.published_to == before.version.published_to


def test_tiles_of_all_events_fit_their_fields(lake, client):
    """Every field before the boundary is a tile of history; what follows it was applied from the lake."""
    take(lake, client, generate(12, 800))
    outcome = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert outcome.version is not None
    assert outcome.history is not None
    names = [name for key in client.keys("rtml:{*") if b":r" not in key for name in client.hkeys(key)]
    tiles, ladder = [codec.unfield(name) for name in names if len(name) == 5], outcome.version.plan.tiles
    assert outcome.history.tiles == sum(ladder.start(tile) < outcome.version.boundary for tile in tiles)
    assert outcome.caught_up > 0
    assert to_datetime(outcome.version.boundary) < to_datetime(to_instant("2024-03-10"))


def test_more_late_events_than_the_bound_are_reported(lake, client):
    plan = plan_of(shop_orders)
    version = create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready"))
    values: dict[str, Any] = {"till": 0, "big": True, "price": 1.0, "items": 1}
    events = [Event("a", START + n, n, START + HOUR, values | {"id": f"l{n}"}) for n in range(300)]
    take(lake, client, events)
    figures = publish_late(lake, client, shop_orders, version, START + HOUR, lambda: None)
    assert (figures.most, figures.entities, figures.new) == (300, 1, 300)


def late_bytes(client: Any) -> int:
    return sum(client.hstrlen(key, codec.LATE) for key in client.keys("rtml:{*") if client.type(key) == b"hash")


def overtaken(lake: Lake, client: Any, monkeypatch: Any, meanwhile: Any) -> list[Event]:
    """Publish; then again, with something happening just before fields are written. Return the events still to take."""
    events = generate(5, 700, days=3)
    take(lake, client, events[:500])
    publish(lake, client, shop_orders, plan_of(shop_orders))
    real = late._write_fields
    ran: list[bool] = []

    def slow(*args: Any) -> None:
        if not ran:
            ran.append(True)
            take(lake, client, events[500:])
            meanwhile()
        real(*args)

    monkeypatch.setattr(late, "_write_fields", slow)
    return events


def test_a_publisher_waits_for_the_other_one(lake, client, monkeypatch):
    newer = threading.Thread(target=lambda: publish(lake, client, shop_orders, plan_of(shop_orders)))

    def meanwhile() -> None:
        newer.start()
        time.sleep(0.3)
        assert newer.is_alive()

    events = overtaken(lake, client, monkeypatch, meanwhile)
    older = publish(lake, client, shop_orders, plan_of(shop_orders))
    newer.join(30)
    version = find_version(client, plan_of(shop_orders))
    assert older.version is not None
    assert version is not None
    assert older.version.published_to < version.published_to == events[-1].ingested
    written = late_bytes(client)
    publish(lake, client, shop_orders, plan_of(shop_orders))
    assert late_bytes(client) == written
    assert not client.exists(keys.publishing("shop_orders"))


def test_a_publisher_that_lost_its_lock_takes_nothing_back(lake, client, monkeypatch):
    newer: list[Any] = []

    def meanwhile() -> None:
        client.delete(keys.publishing("shop_orders"))  # it was away for longer than the lock is held
        publish(lake, client, shop_orders, plan_of(shop_orders))
        newer.append((late_bytes(client), find_version(client, plan_of(shop_orders))))

    overtaken(lake, client, monkeypatch, meanwhile)
    with pytest.raises(NotReadyError, match=r"view 'shop_orders': this publisher lost its lock 'rtml:publishing:"):
        publish(lake, client, shop_orders, plan_of(shop_orders))
    assert [(late_bytes(client), find_version(client, plan_of(shop_orders)))] == newer


def test_a_killed_publisher_blocks_the_next_one_for_a_while_only(lake, client, monkeypatch):
    take(lake, client, generate(5, 100, days=2))
    client.set(keys.publishing("shop_orders"), "the dead one's", px=600)
    monkeypatch.setattr(publisher, "WAIT_SECONDS", 0.2)
    with pytest.raises(NotReadyError, match="another publisher has been at work"):
        publish(lake, client, shop_orders, plan_of(shop_orders))
    monkeypatch.setattr(publisher, "WAIT_SECONDS", 5)
    assert publish(lake, client, shop_orders, plan_of(shop_orders)).version is not None


def test_published_to_is_never_lowered(lake, client):
    events = generate(5, 300, days=2)
    take(lake, client, events)
    publish(lake, client, shop_orders, plan_of(shop_orders))
    version = find_version(client, plan_of(shop_orders))
    assert version is not None
    later = events[-1].ingested + HOUR
    meta = keys.meta("shop_orders", version.version)
    client.hset(meta, mapping={"published_to": later, "state": "building"})
    publish(lake, client, shop_orders, plan_of(shop_orders))
    assert find_version(client, plan_of(shop_orders)) == msgspec.structs.replace(version, published_to=later)


@pytest.mark.parametrize("replayed", [True, False])
def test_late_events_are_not_servable_before_the_streams_present(lake, client, replayed):
    events = generate(5, 300, days=2)
    take(lake, client, events)
    present = events[-1].ingested + 3 * MINUTE
    for partition in range(2):
        raise_position(client, keys.position("orders"), partition, Position("5-0", present))
    if replayed:
        client.set(keys.replay_time("orders"), 1)
    before = now()
    publish(lake, client, shop_orders, plan_of(shop_orders))
    stamps = late_rows(lake)["published_at"].dt.epoch("us").unique().to_list()
    if replayed:
        assert stamps == [present]
    else:  # requests up to the wall clock were answered without them
        assert before <= min(stamps) <= max(stamps) <= now()


def trimmed_stream(lake: Lake, client: Any, kept: int) -> list[Event]:
    """A stream that both flows have read, and that holds only what was ingested in its last `kept` microseconds."""
    events = generate(21, 600, days=3)
    until = events[-1].ingested
    land(lake, client, orders, to_frame(events), until=until)
    client.delete(keys.landed("orders"))
    producer = Producer(client, orders, key=("shop",), accept_stamps=True)
    producer.send(to_frame(events), ingested_at="ingested_at")
    for partition in range(2):
        key = orders.stream.key(partition)
        entries = client.xrange(key)
        for place in (keys.position("orders"), keys.mirrored("orders")):
            raise_position(client, place, partition, Position(entries[-1][0].decode(), until))
        first = next((offset for offset, fields in entries if int(fields[b"ingested_at"]) >= until - kept), None)
        assert first is not None
        client.xtrim(key, minid=first, approximate=False)
    client.set(keys.trimmed("orders"), 1)
    compact_events(lake, orders, touched_days(lake, orders))
    return events


@pytest.mark.parametrize("left", ["a minute", "nothing"])
def test_what_a_trimmed_stream_no_longer_holds_comes_from_the_lake(settings, lake, client, left):
    events = trimmed_stream(lake, client, MINUTE)
    if left == "nothing":
        for partition in range(2):
            client.xtrim(orders.stream.key(partition), maxlen=0, approximate=False)
    outcomes = publish_all(lake, client)
    assert all(outcome.caught_up > 0 for outcome in outcomes.values())
    assert client.smembers(keys.rewinding("orders")) == {b"0", b"1"}
    assert not client.exists(keys.live("shop_orders"))  # the stream has to go back for what came since
    versions = {name: outcome.version for name, outcome in outcomes.items() if outcome.version}
    for version in versions.values():
        go_live(client, version)
    client.delete(keys.position("orders"))  # to ask from the boundary on
    present = events[-1].ingested
    assert check_served(settings, client, events, versions, present, present) > 20


def test_a_version_is_refused_where_neither_stream_nor_lake_holds_what_follows(lake, client):
    trimmed_stream(lake, client, MINUTE)
    client.delete(keys.mirrored("orders"))
    for partition in range(2):
        raise_position(client, keys.mirrored("orders"), partition, Position("1-0", START + DAY))
    with pytest.raises(NotReadyError, match=r"view 'shop_orders': all is in the lake up to .* would be missing"):
        publish(lake, client, shop_orders, plan_of(shop_orders))
    version = find_version(client, plan_of(shop_orders))
    assert version is not None
    assert version.state == "replaying"


def test_a_version_may_follow_a_trimmed_stream_that_reaches_back(lake, client):
    trimmed_stream(lake, client, 2 * DAY)
    outcome = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert outcome.version is not None
    assert outcome.caught_up == 0
    assert client.smembers(keys.rewinding("orders")) == {b"0", b"1"}


def test_past_the_bound_of_late_events_a_version_is_built_anew(settings, lake, client):
    values: dict[str, Any] = {"till": 0, "big": True, "price": 1.0, "items": 1}
    first = [Event("a", START + n * MINUTE, n, START + n * MINUTE, values | {"id": f"f{n}"}) for n in range(50)]
    take(lake, client, first)
    before = publish(lake, client, shop_orders, plan_of(shop_orders)).version
    assert before is not None
    end = START + 2 * DAY
    flood = [Event("a", START + HOUR + n, n, end + n, values | {"id": f"l{n}"}) for n in range(300)]
    take(lake, client, flood)
    outcome = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert outcome.late is not None
    assert outcome.late.most == 300
    rebuilt = outcome.version
    assert rebuilt is not None
    assert (rebuilt.build, rebuilt.state) == (before.build + 1, "ready")
    assert live_version(client, "shop_orders", rebuilt.plan.fingerprint) == rebuilt
    other = publish(lake, client, till_orders, plan_of(till_orders)).version
    assert other is not None
    versions = {"shop_orders": rebuilt, "till_orders": other}
    present = flood[-1].ingested
    check_served(settings, client, [*first, *flood], versions, present, present)
    again = publish(lake, client, shop_orders, plan_of(shop_orders))
    assert again.late is not None
    assert (again.late.most, again.history) == (1, None)  # the one that was ingested last
