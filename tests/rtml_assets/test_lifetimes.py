"""Lifetime windows published: history in bases up to the boundary, what follows folded as it comes, tiles that go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import rtml
from rtml.compile import compile_view
from rtml.errors import InstantError
from rtml.instants import BEGINNING, DAY, HOUR
from rtml.lake import Lake
from rtml.online import keys
from rtml.online.base import BASE, Base
from rtml.online.codec import HEADER
from rtml.online.texts import text_of
from rtml.plan import NEVER
from rtml.reading import Turn
from rtml.registry import Registry
from rtml_assets.tables import base
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from rtml_assets.tables.publish import Published, publish
from rtml_assets.tables.touched import touched_days
from serving.client import FeatureClient
from serving.reader import ViewLookup
from streaming.positions import START, Position, raise_position
from streaming.services import Service, write_services
from streaming.versions import Version, find_version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import LATENESS, generate, orders, to_frame

shop_lives = rtml.StreamFeatureView(
    name="shop_lives",
    source=orders,
    entity=rtml.Entity("shop", join_keys=["shop"]),
    ladder=["5m", "1h"],
    features=[
        rtml.Count(windows=["3h", "lifetime"]),
        rtml.Sum("items", windows=["lifetime"]),
        rtml.First("items", windows=["lifetime"]),
        rtml.Max("price", windows=["lifetime", rtml.Window("2h", offset="1h")]),
    ],
    ttl="1d",
)
shop_names = replace(
    shop_lives, name="shop_names", features=[rtml.Count(windows=["lifetime"]), rtml.Last("order_id", windows=["3h"])]
)
lives = rtml.FeatureService("lives", features=[shop_lives], version=1)
PLANS = Registry.of([orders, shop_lives, lives]).plans
PLAN = compile_view(shop_lives)


def take(lake: Lake, client: Any, events: list[Event], view: rtml.StreamFeatureView = shop_lives) -> Published:
    """Land events, build their days, and publish; those that come later, come as by the mirror."""
    before = client.get(keys.landed("orders"))
    if events:
        land(lake, client, orders, to_frame(events))
    if before is not None:
        client.set(keys.landed("orders"), before)
    compact_events(lake, orders, touched_days(lake, orders))
    for partition in range(2) if events else ():  # a stream has come as far
        raise_position(client, keys.position("orders"), partition, Position(START, events[-1].ingested))
    return publish(lake, client, view, compile_view(view))


def check(client: Any, events: list[Event], at: int) -> None:
    """Compare with the oracle."""
    write_services(client, [Service.of(lives, PLANS)])
    shops = [*sorted({event.key for event in events}), "nobody"]
    with FeatureClient(client, background=False) as features:
        got = features.get("lives", [{"shop": shop} for shop in shops], at=at)
    rows: list[list[Any]] = got.rows
    for shop, row in zip(shops, rows, strict=True):
        for feature, value in zip(PLAN.features, row, strict=True):
            floor = 1 if feature.exact else PLAN.tiles.finest
            window = oracle.window(events, shop, at, feature.window, floor, feature.offset)
            expected = oracle.value(feature.aggregate, window, feature.column)
            assert oracle.agree(feature.aggregate, value, expected, window, feature.column), (shop, feature, expected)


def version_of(client: Any) -> Version:
    version = find_version(client, PLAN)
    assert version is not None
    return version


def hash_of(client: Any, shop: str) -> dict[bytes, bytes]:
    name = keys.entity_tag("shop", [shop]) + keys.versioned("shop_lives", version_of(client).version)
    found: dict[bytes, bytes] = client.hgetall(name)
    return found


@pytest.mark.parametrize("at_once", [50, 10_000])
def test_a_life_is_all_that_is_on_record(
    lake: Lake, client: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(base, "EVENTS_AT_ONCE", at_once)  # in several parts, or in one
    events = generate(11, 700, days=4)
    first, then = events[:400], events[400:]
    take(lake, client, first)
    version = version_of(client)
    assert (version.based_to, version.based_late) == (version.boundary, version.folded_to)
    counted = oracle.counted(first, LATENESS, late_too=True)
    check(client, counted, max(version.boundary, first[-1].ingested - LATENESS))
    check(client, counted, first[-1].ingested)

    take(lake, client, then)
    version = version_of(client)
    assert version.based_to > version.boundary
    assert version.based_to + LATENESS <= events[-1].ingested < version.based_to + LATENESS + HOUR
    # No stream brought what follows: only that it is late, or in a base.
    known = [
        event
        for event in oracle.counted(events, LATENESS, late_too=True)
        if event.time < version.based_to
        or event.ingested - event.time > LATENESS
        or event.ingested <= first[-1].ingested
    ]
    at = events[-1].ingested
    lifetimes = [feature for feature in PLAN.features if feature.span.lifetime]
    with FeatureClient(client, background=False) as features:
        got = features.get("lives", [{"shop": shop} for shop in sorted({e.key for e in events})], at=at)
    for shop, row in zip(sorted({e.key for e in events}), got.rows, strict=True):
        for feature in lifetimes:
            window = oracle.window(known, shop, at, feature.window)
            expected = oracle.value(feature.aggregate, window, feature.column)
            assert row[PLAN.features.index(feature)] == expected, (shop, feature.name)
    take(lake, client, [])  # what was late is in bases by then, and nothing has changed
    assert version_of(client).based_late == events[-1].ingested
    with FeatureClient(client, background=False) as features:
        again = features.get("lives", [{"shop": shop} for shop in sorted({e.key for e in events})], at=at)
    assert again.rows == got.rows


def test_a_quiet_entity_keeps_its_base_alone_and_for_ever(lake: Lake, client: Any) -> None:
    events = generate(12, 300, days=1, shops=("quiet", "busy"))
    last = events[-1].ingested
    later = [
        Event("busy", last + n * HOUR, 10**6 + n, last + n * HOUR, {**events[0].values, "id": f"l{n}"})
        for n in range(60)
    ]
    take(lake, client, events)
    assert any(len(name) == 5 for name in hash_of(client, "quiet"))
    take(lake, client, later)
    take(lake, client, [])
    kept = hash_of(client, "quiet")
    assert set(kept) == {HEADER, BASE}
    mine = [event for event in oracle.counted(events, LATENESS, late_too=True) if event.key == "quiet"]
    assert Base.decode(kept[BASE]).latest == max(event.time for event in mine)
    name = keys.entity_tag("shop", ["quiet"]) + keys.versioned("shop_lives", version_of(client).version)
    assert client.ttl(name) == -1 or client.ttl(name) > NEVER // 1_000_000 - 10**6
    with FeatureClient(client, background=False) as features:
        write_services(client, [Service.of(lives, PLANS)])
        got = features.get("lives", [{"shop": "quiet"}], at=later[-1].time)
    assert got.rows[0][PLAN.features.index(PLAN.feature("count_lifetime"))] == len(mine)
    assert got.status["shop_lives"] == ["expired"]


def test_history_that_does_not_begin_with_the_source_is_partial(lake: Lake, client: Any) -> None:
    begin = 2 * DAY  # the source's first day has no events
    events = [Event(e.key, e.time + begin, e.id64, e.ingested + begin, e.values) for e in generate(13, 100, days=1)]
    take(lake, client, events)
    assert version_of(client).history_from > BEGINNING
    write_services(client, [Service.of(lives, PLANS)])
    with FeatureClient(client, background=False) as features:
        got = features.get("lives", [{"shop": events[0].key}], leading_edge="watermark")
    assert got.status["shop_lives"] == ["partial"]


def test_a_life_without_strings_keeps_those_that_windows_reach(lake: Lake, client: Any) -> None:
    events = generate(14, 300, days=3, shops=("quiet", "busy"))
    take(lake, client, events, shop_names)
    version = find_version(client, compile_view(shop_names))
    assert version is not None
    name = keys.entity_tag("shop", ["quiet"]) + keys.versioned("shop_names", version.version)

    def ids() -> set[str]:
        return {text_of(value) for value in client.hvals(keys.texts(name))}

    on_record = oracle.counted(events, LATENESS, late_too=True)
    mine = {e.values["id"]: e.time for e in on_record if e.key == "quiet"}
    reached = {one for one, time in mine.items() if version.boundary - 3 * HOUR <= time < version.boundary}
    behind = {one for one, time in mine.items() if time < version.boundary - 6 * HOUR}
    late = {e.values["id"] for e in on_record if e.ingested >= version.folded_to}
    assert reached
    assert behind - late
    assert reached <= ids()
    assert not ids() & (behind - late)
    last = events[-1].ingested
    later = [
        Event("busy", last + n * HOUR, 10**6 + n, last + n * HOUR, {**events[0].values, "id": f"l{n}"})
        for n in range(60)
    ]
    take(lake, client, later, shop_names)
    take(lake, client, [], shop_names)
    assert ids() == set()
    assert client.hget(name, BASE) is not None


def test_no_instant_before_the_bases_is_answered(lake: Lake, client: Any) -> None:
    take(lake, client, generate(15, 100, days=2))
    version = version_of(client)
    for at in (version.based_to, version.based_to - 1):
        lookup = ViewLookup(version, Turn(PLAN, at, version.based_to), [keys.entity_tag("shop", ["nobody"])], at)
        if at == version.based_to:
            lookup.check_reach()
            continue
        with pytest.raises(InstantError, match="can be asked from"):
            lookup.check_reach()
