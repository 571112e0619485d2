"""Landing history: what it writes, and what it refuses."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

import rtml
from rtml.errors import SendError
from rtml.instants import MINUTE, to_datetime
from rtml.lake import raw_schema
from rtml.online import keys
from rtml_assets.tables import delta
from rtml_assets.tables.land import land
from streaming.gate import id64
from streaming.positions import Position, raise_position, read_positions
from tests.rtml_assets.orders import START, Order, generate, orders, to_frame

EVENTS = generate(1, 50, days=2)
FRAME = to_frame(EVENTS)


def test_rows_come_with_their_ids_and_days_and_positions_say_up_to_when(lake, client):
    told = []
    assert land(lake, client, orders, FRAME, progress=lambda done, total: told.append((done, total))) == 50
    raw = delta.scan(delta.open_table(lake.raw("orders")), raw_schema(orders)).collect()
    assert raw.select(FRAME.columns).sort("order_id", "ingested_at").equals(FRAME.sort("order_id", "ingested_at"))
    assert {row["id64"] % 2**64 for row in raw.to_dicts()} == {id64(name) for name in FRAME["order_id"]}
    assert raw.select((pl.col("at").dt.date() == pl.col("event_date")).all()).item()
    last = EVENTS[-1].ingested
    assert read_positions(client, keys.mirrored("orders"), 2) == [Position("0-0", last)] * 2
    assert int(client.get(keys.landed("orders"))) == last
    assert not client.exists(keys.position("orders"))
    assert told == [(50, 50)]


def test_until_says_that_more_is_known_than_the_last_stamp(lake, client):
    until = EVENTS[-1].ingested + MINUTE
    land(lake, client, orders, FRAME, until=to_datetime(until))
    assert int(client.get(keys.landed("orders"))) == until
    raise_position(client, keys.mirrored("orders"), 1, Position("7-0", until + MINUTE))
    land(lake, client, orders, FRAME)  # positions are never lowered
    assert read_positions(client, keys.mirrored("orders"), 2) == [
        Position("0-0", until),
        Position("7-0", until + MINUTE),
    ]


def test_it_is_written_in_parts(lake, client, monkeypatch):
    monkeypatch.setattr("rtml_assets.tables.land.ROWS_AT_ONCE", 20)
    told = []
    land(lake, client, orders, FRAME, progress=lambda done, total: told.append((done, total)))
    assert told == [(20, 50), (40, 50), (50, 50)]
    assert sum(delta.rows_by_day(delta.open_table(lake.raw("orders"))).values()) == 50


def test_nothing_to_land_changes_nothing(lake, client):
    assert land(lake, client, orders, FRAME.clear()) == 0
    assert delta.open_table(lake.raw("orders")) is None
    assert client.keys("*") == []


def test_a_source_without_ids_tells_events_apart_by_their_place(lake, client):
    source = rtml.EventSource(
        name="plain", schema=Order, timestamp="at", stream=rtml.RedisStream("plain"), starts="2024-03-01"
    )
    land(lake, client, source, FRAME)
    raw = delta.scan(delta.open_table(lake.raw("plain")), raw_schema(source)).collect()
    assert {value % 2**64 for value in raw["id64"]} == {id64(f"-1:{row}") for row in range(50)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop("items").with_columns(itmes=1), r"no column 'items'\. Did you mean 'itmes'"),
        (lambda f: f.with_columns(itemss=1), r"'itemss' is not in the contract\. Did you mean 'items'"),
        (lambda f: f.with_columns(pl.col("till").cast(pl.Int32)), "'till' must be Int64; got Int32"),
        (lambda f: f.with_columns(pl.col("at").dt.replace_time_zone(None)), "'at' must be Datetime.*naive"),
        (lambda f: f.with_columns(pl.col("ingested_at").dt.cast_time_unit("ms")), "'ingested_at' must be Datetime"),
        (lambda f: f.drop("ingested_at"), "no column 'ingested_at'"),
        (
            lambda f: f.with_columns(pl.when(pl.col("till") == 0).then("ingested_at")),
            r"'ingested_at' must not be null; got \d+ nulls",
        ),
        (lambda f: f.with_columns(pl.lit(None, pl.String).alias("shop")), "shop: not_nullable: 50 rows"),
        (lambda f: f.with_columns(items=pl.lit(1001, pl.Int64)), r"items: less_than_or_equal_to\(1000\): 50 rows"),
        (lambda f: f.with_columns(price=pl.lit(float("nan"))), "price: "),
        (
            lambda f: f.with_columns(pl.col("at").alias("ingested_at") - timedelta(minutes=1, microseconds=1)),
            "'ingested_at' must be at most 1m before 'at'; got 50 earlier",
        ),
        (
            lambda f: f.with_columns(pl.col("at") - timedelta(days=90)),
            "'at' must lie between 2024-03-01 and 2024-04-30 .*; got 2023-12-02 to",
        ),
    ],
)
def test_what_is_no_history_is_refused_by_name(lake, client, change, words):
    with pytest.raises(SendError, match=words) as refused:
        land(lake, client, orders, change(FRAME))
    assert str(refused.value).startswith("history of source 'orders': ")
    assert delta.open_table(lake.raw("orders")) is None
    assert client.keys("*") == []


def test_a_source_without_an_end_takes_any_later_day(lake, client):
    source = rtml.EventSource(
        name="open", schema=Order, timestamp="at", event_id="order_id", stream=rtml.RedisStream("open")
    )
    land(lake, client, source, FRAME)
    assert min(delta.rows_by_day(delta.open_table(lake.raw("open")))) == date(2024, 3, 1)
    assert START > 0
