"""What the gate refused, released: in the lake, and as the stream brings it when it is read again."""

from __future__ import annotations

import json
from dataclasses import replace

import dagster as dg
import polars as pl
import pytest
from redis import Redis

from rtml.errors import NotReadyError, RequestError
from rtml.instants import MINUTE, SECOND, to_datetime
from rtml.lake import Lake
from rtml.settings import Settings
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from rtml_assets.tables.mending import DROP, correct, release
from rtml_assets.tables.quarantine import REPLAYED, held, refused
from streaming.entries import Entries
from streaming.gate import Gate
from streaming.mended import Mended, scan_mirrored
from streaming.mirror import append_quarantined
from tests.rtml_assets.orders import REGISTRY, START, generate, orders, to_frame
from tests.rtml_assets.test_events import mirror
from tests.rtml_assets.test_quarantine import DAY, DECIDER, counting, halve, hold_some


def message(**changes: object) -> bytes:
    good = {"order_id": "r", "at": START, "shop": "a", "till": 1, "big": True, "price": 1.5, "items": 3}
    return json.dumps({**good, **changes}).encode()


def refuse(lake: Lake, messages: list[bytes], stamp: int = START + SECOND, partition: int = 1) -> None:
    """What the mirror writes, twice, as after a kill."""
    count = len(messages)
    offsets, stamps = [f"{number}-0" for number in range(count)], [stamp] * count
    gated = Gate(orders)(Entries(partition, offsets, stamps, stamps, messages))
    rows = pl.DataFrame(
        {
            "partition": [one.partition for one in gated.refused],
            "offset": [one.offset for one in gated.refused],
            "ingested_at": [to_datetime(one.ingested_at) for one in gated.refused],
            "payload": [one.payload for one in gated.refused],
            "reason": [one.failures[0].reason.value for one in gated.refused],
            "detail": [one.failures[0].detail for one in gated.refused],
            "ingest_date": [DAY] * len(gated.refused),
        }
    )
    for _ in range(2):
        append_quarantined(lake, orders, rows)


def test_what_was_refused_counts_with_its_own_stamp_when_the_fix_mends_it(lake: Lake) -> None:
    mirror(lake, to_frame(generate(7, 10, days=0.1)))
    refuse(
        lake, [b"nonsense", message(order_id="x", items=5000), message(order_id="y", items=7000), message(shop=None)]
    )
    assert refused(lake, orders)["reason"].to_list() == ["not_json", "out_of_range", "out_of_range", "null_value"]
    done = release(lake, orders, None, None, None, DECIDER)
    assert (done.released, done.days) == (0, ())
    assert [(reason, count) for reason, count, _ in done.still] == [
        ("out_of_range", 2),
        ("not_json", 1),
        ("null_value", 1),
    ]

    def tenth(rows: pl.DataFrame) -> pl.DataFrame:
        bodies = [json.loads(payload) for payload in rows["payload"]]
        mended = [json.dumps({**body, "items": body["items"] // 10}).encode() for body in bodies]
        return rows.with_columns(pl.Series("payload", mended)).filter(pl.col("offset") == "1-0")

    done = release(lake, orders, "out_of_range", START, tenth, DECIDER)
    assert (done.released, done.days, done.still) == (1, (DAY,), ())
    (row,) = counting(lake).filter(order_id="x").to_dicts()
    assert (row["items"], row["ingested_at"]) == (500, to_datetime(START + SECOND))
    assert dict(refused(lake, orders).select("offset", "state").rows())["1-0"] == REPLAYED
    # It can be held by a check then, and be corrected, and dropped, as any other event.
    hold_some(lake, "unit", {"x"})
    correct(lake, orders, "unit", DAY, halve, DECIDER)
    assert counting(lake).filter(order_id="x")["price"].to_list() == [0.75]
    hold_some(lake, "unit", {"x"})
    correct(lake, orders, "unit", DAY, DROP, DECIDER)
    assert counting(lake).filter(order_id="x").is_empty()


def test_the_stream_read_again_brings_what_counts(lake: Lake) -> None:
    """Of one batch: a corrected event before its copy, a dropped one, a released one, and one that came later."""
    messages = [message(order_id="c", price=8.0), message(order_id="d"), message(order_id="r", items=2000)]
    messages += [message(order_id="c", price=8.0), message(order_id="n")]
    stamps = [START, START, START + 1, START + MINUTE, START + MINUTE]
    entries = Entries(0, [f"{n}-0" for n in range(5)], stamps, stamps, messages)
    gated = Gate(orders)(entries)
    assert Mended.load(lake, orders).apply(gated) is gated
    mirror(lake, gated.good.select(to_frame([]).columns))
    refuse(lake, [b"", b"", message(order_id="r", items=2000)], START + 1, partition=0)
    hold_some(lake, "c", {"c"})
    hold_some(lake, "d", {"d"})
    correct(lake, orders, "c", None, halve, DECIDER)
    correct(lake, orders, "d", None, DROP, DECIDER)
    fixed = message(order_id="r", items=20)
    release(lake, orders, "out_of_range", None, lambda rows: rows.with_columns(payload=pl.lit(fixed)), DECIDER)
    mended = Mended.load(lake, orders)
    again = mended.apply(gated)
    assert again.good.select("order_id", "price", "items", "arrived").rows() == [
        ("c", 4.0, 3, START),
        ("r", 1.5, 20, START + 1),
        ("c", 8.0, 3, START + MINUTE),
        ("n", 1.5, 3, START + MINUTE),
    ]
    assert again.good.schema == gated.good.schema
    assert again.refused == []
    later = Entries(0, ["9-0"], [START + 2 * MINUTE], [START + 2 * MINUTE], [message(order_id="z")])
    assert mended.latest == START + 1
    assert Mended.load(lake, orders).apply(after := Gate(orders)(later)) is after


def test_a_contract_that_was_mended_releases_as_it_is(lake: Lake) -> None:
    refuse(lake, [message(order_id="x", items=5000)])

    class Wider(orders.schema):  # type: ignore[name-defined, misc]
        items: int

    wider = replace(orders, schema=Wider)
    assert release(lake, wider, None, None, None, DECIDER).released == 1
    with pytest.raises(RequestError, match="no events that were refused are left"):
        release(lake, wider, None, None, None, DECIDER)
    assert scan_mirrored(lake, wider).collect()["items"].to_list() == [5000]


def test_a_decision_that_no_longer_fits_the_contract_says_so(lake: Lake) -> None:
    refuse(lake, [message(order_id="x", items=5000)])
    good = message(order_id="x", items=5)
    release(lake, orders, None, None, lambda rows: rows.with_columns(payload=pl.lit(good)), DECIDER)

    class Other(orders.schema):  # type: ignore[name-defined, misc]
        items: str

    with pytest.raises(
        NotReadyError, match=r"decisions/orders: 1 events do not fit the contract .* 1:0-0: field 'items'"
    ):
        scan_mirrored(lake, replace(orders, schema=Other))

    class Narrower(orders.schema):  # type: ignore[name-defined, misc]
        tip: float

    # The stream goes on; the day is what the check of the contract holds.
    narrower = replace(orders, schema=Narrower)
    assert scan_mirrored(lake, narrower).collect()["tip"].to_list() == [None]
    assert list(compact_events(lake, narrower, [DAY]).refused) == [DAY]
    assert held(lake, narrower)["reason"].to_list() == ["check:contract"]


def test_dagster_is_told_how_many_events_wait(lake: Lake, settings: Settings, client: Redis) -> None:
    events = to_frame(generate(8, 30, days=0.5))
    land(lake, client, orders, events)
    hold_some(lake, "unit", set(counting(lake)["order_id"].to_list()[:3]))
    refuse(lake, [message(items=5000), message(items=6000)])
    with dg.DagsterInstance.ephemeral() as instance:
        materialize_days(settings, REGISTRY, instance=instance)
        (record,) = instance.fetch_observations(dg.AssetKey(["quarantine", "orders"]), limit=9).records
    assert record.asset_observation is not None
    told = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert told == {"held": 5, "held: check:unit": 3, "held: out_of_range": 2}
