"""Definitions for the tests of the offline half, random events of them, and the oracle's answers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
import xxhash

import rtml
from rtml import (
    Count,
    Entity,
    EventSource,
    FeatureService,
    First,
    FirstN,
    Last,
    Max,
    Mean,
    Min,
    RedisStream,
    Stddev,
    StreamFeatureView,
    Sum,
    Variance,
    Window,
)
from rtml.columns import TIMESTAMP
from rtml.instants import DAY, HOUR, MINUTE, SECOND, to_instant
from rtml.plan import Plan
from rtml.registry import Registry
from tests import oracle
from tests.oracle import Event

START = to_instant("2024-03-01")
LATENESS = 15 * MINUTE


class Order(rtml.Event):
    order_id: str
    at: rtml.Timestamp
    shop: str
    till: int
    big: bool
    price: float = rtml.Field(ge=-1e9, le=1e9, nullable=True)
    items: int = rtml.Field(ge=-1000, le=1000)


orders = EventSource(
    name="orders",
    schema=Order,
    timestamp="at",
    event_id="order_id",
    stream=RedisStream("orders", partitions=2),
    lateness="15m",
    skew="1m",
    starts="2024-03-01",
    ends="2024-04-30",
    owners=["team:shops", "ada@example.org"],
    tags={"tier": "1", "not a tag": "é"},
    description="What is ordered",
)

WINDOWS = ["30m", "24h"]

shop_orders = StreamFeatureView(
    name="shop_orders",
    source=orders,
    entity=Entity("shop", join_keys=["shop"]),
    features=[
        Count(windows=WINDOWS),
        Sum("price", windows=WINDOWS),
        Mean("price", windows=WINDOWS),
        Min("price", windows=WINDOWS),
        Max("items", windows=WINDOWS),
        Sum("items", windows=WINDOWS),
        Variance("price", windows=WINDOWS),
        Stddev("price", windows=WINDOWS),
        First("price", windows=WINDOWS),
        Last("items", windows=WINDOWS),
    ],
    owners=["team:shops"],
)

till_orders = StreamFeatureView(
    name="till_orders",
    source=orders,
    entity=Entity("till_of_shop", join_keys=["shop", "till", "big"]),
    where=pl.col("items") != 0,
    derive={
        "sold": pl.col("items") > 0,
        "value": pl.col("price") * pl.col("items"),
        "word": pl.when(pl.col("items") < 4).then(pl.concat_str(pl.lit("№ "), pl.col("items"))),
    },
    ladder=["1m", "1h"],
    features=[
        Count(windows=["3h", Window("2h", offset="1h")]),
        Mean("sold", windows=["3h"], name="sold_share"),
        Sum("value", windows=["3h"]),
        Last("value", windows=["3h"]),
        Last("word", windows=["3h"]),
        FirstN("word", n=5, windows=["3h"]),
    ],
)

sales = FeatureService("sales", features=[shop_orders, till_orders], version=1, log=1)
REGISTRY = Registry.of([orders, shop_orders, till_orders, sales])


def generate(seed: int, count: int = 600, days: float = 4, shops: Sequence[str] = ("a", "b|{c}", "ü z")) -> list[Event]:
    """Events in the order of their stamps: late ones, duplicates, ties, and edges of tiles."""
    rng = random.Random(seed)
    events: list[Event] = []
    now = START
    for number in range(count):
        now += int(rng.expovariate(count / (days * DAY)))
        if events and rng.random() < 0.1:
            again = rng.choice(events[-30:])
            events.append(Event(again.key, again.time, again.id64, max(now, again.ingested), again.values))
            continue
        delay = rng.choice([0, LATENESS, LATENESS + 1, rng.randrange(LATENESS), rng.randrange(30 * HOUR), -SECOND, 3])
        time = max(START, now - delay)
        if rng.random() < 0.3:
            time = max(START, time // (5 * MINUTE) * (5 * MINUTE))
        elif rng.random() < 0.4:
            time = time // (6 * HOUR) * (6 * HOUR) + rng.randrange(20 * SECOND)  # a hot finest tile
        values: dict[str, Any] = {
            "id": f"o{seed}-{number}",
            "till": rng.randrange(2),
            "big": rng.random() < 0.5,
            "price": None if rng.random() < 0.1 else round(rng.gauss(1e6, 3), 4),
            "items": rng.randrange(-5, 6),
        }
        id64 = xxhash.xxh64_intdigest(str(values["id"]).encode())
        events.append(Event(rng.choice(shops), time, id64, now, values))
    return events


def to_frame(events: Iterable[Event]) -> pl.DataFrame:
    """Events as `land` takes them."""
    events = list(events)
    return pl.DataFrame(
        {
            "order_id": [str(e.values["id"]) for e in events],
            "at": pl.Series([e.time for e in events], dtype=pl.Int64).cast(TIMESTAMP),
            "shop": [e.key for e in events],
            "till": pl.Series([e.values["till"] for e in events], dtype=pl.Int64),
            "big": pl.Series([e.values["big"] for e in events], dtype=pl.Boolean),
            "price": pl.Series([e.values["price"] for e in events], dtype=pl.Float64),
            "items": pl.Series([e.values["items"] for e in events], dtype=pl.Int64),
            "ingested_at": pl.Series([e.ingested for e in events], dtype=pl.Int64).cast(TIMESTAMP),
        }
    )


def seen_by(view: str, events: Iterable[Event]) -> list[Event]:
    """What a view's `where` and `derive` make of events; keys as `key_of` writes them."""
    if view == "shop_orders":
        return list(events)
    kept = []
    for event in events:
        items, price = event.values["items"], event.values["price"]
        if items:
            values: dict[str, Any] = {"sold": int(items > 0), "value": None if price is None else price * items}
            values["word"] = f"№ {items}" if items < 4 else None
            key = key_of(view, entity_of(event))
            kept.append(Event(key, event.time, event.id64, event.ingested, values))
    return kept


def entity_of(event: Event) -> dict[str, Any]:
    """The join keys of an event, for all views."""
    return {"shop": event.key, "till": event.values["till"], "big": event.values["big"]}


def key_of(view: str, entity: dict[str, object]) -> str:
    return str(entity["shop"]) if view == "shop_orders" else f"{entity['shop']}/{entity['till']}/{entity['big']}"


def differences(got: pl.DataFrame, counted: dict[str, list[Event]], at: int) -> list[str]:
    """Compare served features with the oracle over what counts for each view."""
    wrong = []
    for entity, row in zip(got.select("shop", "till", "big").to_dicts(), got.to_dicts(), strict=True):
        for view, plan in REGISTRY.plans.items():
            for feature in plan.features:
                floor = 1 if feature.exact else plan.tiles.finest
                window = oracle.window(counted[view], key_of(view, entity), at, feature.window, floor, feature.offset)
                expected = oracle.value(feature.aggregate, window, feature.column, dict(feature.parameters))
                value = row[f"{view}__{feature.name}"]
                if not oracle.agree(feature.aggregate, value, expected, window, feature.column):
                    wrong.append(f"{view}__{feature.name} of {entity} at {at}: got {value}, expected {expected}")
    return wrong


def plan_of(view: StreamFeatureView) -> Plan:
    return REGISTRY.plans[view.name]
