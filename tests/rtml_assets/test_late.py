"""Late events in Redis: how far back they are kept, and what a publisher that dies half-way leaves of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
import xxhash

from rtml.instants import BEGINNING, HOUR, MINUTE
from rtml.lake import Lake
from rtml.online import codec, keys
from rtml.online.salts import partial_tags
from rtml.plan import Plan
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from rtml_assets.tables.publish import publish
from rtml_assets.tables.touched import touched_days
from serving.reader import Turns, ViewLookup
from streaming.positions import Position, raise_position
from streaming.versions import Version, create_version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import START, orders, plan_of, shop_orders, till_orders, to_frame
from tests.streaming.test_lifetimes import MortalRedis, die
from tests.streaming.test_protocol import KilledError

SALTS = 3
PER_SALT = (1, 2, 4)
"""So many late events each partial state has: a count tells which of them were published."""


def bring(lake: Lake, client: Any, events: list[Event]) -> None:
    """Have the lake hold events that came by the stream, which is not told how far it has come."""
    land(lake, client, orders, to_frame(events))
    compact_events(lake, orders, touched_days(lake, orders))
    client.set(keys.landed("orders"), BEGINNING)
    client.delete(keys.position("orders"))


def order(shop: str, name: str, time: int, ingested: int) -> Event:
    values: dict[str, Any] = {"id": name, "till": 0, "big": True, "price": 1.0, "items": 2}
    return Event(shop, time, xxhash.xxh64_intdigest(name.encode()), ingested, values)


def test_nothing_is_out_of_reach_until_each_partition_was_read(lake: Lake, client: Any) -> None:
    """The mirror is far ahead of the stream, which may begin anywhere behind it."""
    plan = plan_of(till_orders)
    create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready"))
    bring(lake, client, [order("a", "old", START, START + HOUR), order("b", "new", START + 9 * HOUR, START + 9 * HOUR)])
    key = keys.entity_tag("till_of_shop", ["a", 0, True]) + keys.versioned("till_orders", f"{plan.fingerprint}.1")
    for place, read_to, kept in ((0, 2 * HOUR, True), (1, 2 * HOUR, True), (0, 9 * HOUR, True), (1, 9 * HOUR, False)):
        raise_position(client, keys.position("orders"), place, Position("1-0", START + read_to))
        outcome = publish(lake, client, till_orders, plan)
        assert outcome.late is not None
        assert outcome.late.events == kept
        assert client.hexists(key, codec.LATE) == kept


@pytest.fixture
def mortal(own_redis: str) -> Iterator[MortalRedis]:
    with MortalRedis.from_url(own_redis, protocol=2) as mortal:
        yield mortal


def test_what_a_dead_publisher_left_counts_once_by_partial_state(lake: Lake, client: Any, mortal: MortalRedis) -> None:
    plan = msgspec.structs.replace(plan_of(shop_orders), salts=SALTS)
    version = create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready"))
    late = late_by_salt("a", START, START + HOUR)
    bring(lake, client, late)
    left, got = set[Any](), dict[str, Any]()
    for commands in count():
        mortal.left, mortal.interrupt = commands, die
        try:
            publish(lake, mortal, shop_orders, plan)
        except KilledError:
            client.delete(keys.publishing("shop_orders"))  # as it would be after a while
        got = served(client, version, "a", START + 2 * HOUR)
        truths = [values_of(plan, mixture, START + 2 * HOUR) for mixture in oracle.mixtures([[], late], "a", SALTS)]
        assert got in truths
        left.add(got["count_24h"])
        if mortal.interrupt is not None:  # it did not die
            break
        client.delete(*(tag + keys.versioned("shop_orders", version.version) for tag in partial_tags(plan, ["a"])))
    assert left == {0, 1, 1 + 2, 1 + 2 + 4}
    assert got == values_of(plan, late, START + 2 * HOUR)


def late_by_salt(shop: str, time: int, ingested: int) -> list[Event]:
    """Late orders of one shop, so many of each salt."""
    found: list[Event] = []
    for number in count():
        event = order(shop, f"late {number}", time + number * MINUTE, ingested)
        mine = [one for one in found if one.id64 % SALTS == event.id64 % SALTS]
        if len(mine) < PER_SALT[event.id64 % SALTS]:
            found.append(event)
        if len(found) == sum(PER_SALT):
            break
    return found


def served(client: Any, version: Version, shop: str, at: int) -> dict[str, Any]:
    """All features of a shop, as a server reads them."""
    turn = Turns().at(version.plan, at, version.based_to)
    lookup = ViewLookup(version, turn, [keys.entity_tag("shop", [shop])], at)
    while lookup.unfinished:
        lookup.absorb(iter([client.execute_command(*command) for command in lookup.commands()]))
    return {name: values[0] for name, values in lookup.answer().items()}


def values_of(plan: Plan, events: list[Event], at: int) -> dict[str, Any]:
    """The same, by the oracle."""
    windows = {
        feature.name: oracle.window(events, "a", at, feature.window, 1 if feature.exact else plan.tiles.finest)
        for feature in plan.features
    }
    return {one.name: oracle.value(one.aggregate, windows[one.name], one.column) for one in plan.features}
