"""Quarantine in the lake: what is held, what was decided, and the events that count by then; against plain Python."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from redis import Redis

from rtml.errors import NotReadyError, RequestError
from rtml.instants import MINUTE, SECOND, to_datetime, to_instant
from rtml.lake import Lake, raw_schema
from rtml.settings import Settings
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.tables import mending
from rtml_assets.tables.delta import open_table
from rtml_assets.tables.events import compact_events, deduplicate, load_events
from rtml_assets.tables.land import land
from rtml_assets.tables.mending import DROP, Decider, accept, correct, release
from rtml_assets.tables.quarantine import HELD, REPLAYED, accepted, held, hold, payloads, quarantined, refused, summary
from rtml_assets.tables.touched import complete_to, touched_days
from streaming.entries import Entries
from streaming.gate import Gate
from streaming.mended import Mended, mended_count, mirrored_by_day, scan_mirrored
from streaming.mirror import append_quarantined
from streaming.sources.table import Stretch, read_raw
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import LATENESS, REGISTRY, START, generate, orders, to_frame
from tests.rtml_assets.test_events import days_of, mirror

DECIDER = Decider(START, "ada@example", "a test")
DAY = to_datetime(START).date()


def counting(lake: Lake) -> pl.DataFrame:
    events, _ = deduplicate(orders, scan_mirrored(lake, orders).collect())
    return events


def hold_some(lake: Lake, check: str, ids: set[str]) -> int:
    rows = counting(lake).filter(pl.col("order_id").is_in(list(ids)))
    parts = rows.partition_by("event_date", as_dict=True).items()
    return sum(hold(lake, orders, day, part, check, "odd") for (day,), part in parts)


def halve(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(pl.col("price") / 2)


@given_settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_after_any_mends_events_are_those_of_plain_python(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Rounds of corrections and drops, over events that were built or not; then what comes later, copies included."""
    rng = random.Random(seed)
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    everything = generate(seed, 120, days=2)
    cut = rng.randrange(60, 120)
    mirror(lake, to_frame(everything[:cut]))
    truth = {(e.time, e.id64): e for e in oracle.counted(everything[:cut], LATENESS, late_too=True)}
    for number in range(rng.randrange(1, 4)):
        chosen = set(rng.sample(sorted(truth), rng.randrange(1, 10)))
        ids = {str(truth[key].values["id"]) for key in chosen}
        assert hold_some(lake, f"check_{number}", ids) == len(ids)
        assert hold_some(lake, f"check_{number}", ids) == 0
        if rng.random() < 0.5:
            compact_events(lake, orders, sorted(mirrored_by_day(lake, orders)))
        dropped = {str(truth[key].values["id"]) for key in chosen if rng.random() < 0.4}

        def fix(events: pl.DataFrame, dropped: set[str] = dropped) -> pl.DataFrame:
            return halve(events.filter(~pl.col("order_id").is_in(list(dropped)))).reverse()

        done = correct(lake, orders, f"check_{number}", None, fix, DECIDER)
        assert (done.corrected, done.dropped, done.elsewhere) == (len(ids - dropped), len(dropped), 0)
        for key in chosen:
            event = truth.pop(key)
            if event.values["id"] not in dropped:
                price = event.values["price"]
                values = {**event.values, "price": None if price is None else price / 2}
                truth[key] = Event(event.key, event.time, event.id64, event.ingested, values)
    expected = to_frame(sorted(truth.values(), key=lambda e: (e.time, e.id64)))
    assert_events(lake, expected)
    # What comes later joins them; a copy of a corrected event changes nothing, one of a dropped event counts.
    seen = {(e.time, e.id64) for e in everything[:cut]}
    mirror(lake, to_frame(everything[cut:]))
    later = [e for e in everything[cut:] if (e.time, e.id64) not in truth]
    joined = {**truth, **{(e.time, e.id64): e for e in oracle.counted(later, LATENESS, late_too=True)}}
    assert seen | set(joined) == {(e.time, e.id64) for e in everything}
    assert_events(lake, to_frame(sorted(joined.values(), key=lambda e: (e.time, e.id64))))


def assert_events(lake: Lake, expected: pl.DataFrame) -> None:
    """What counts, before the days are built and after, and what a replay of the mirror brings."""
    missing = complete_to(lake, orders, 2**62)
    assert counting(lake).select(expected.columns).equals(expected)
    days = touched_days(lake, orders)
    compact_events(lake, orders, days)
    assert touched_days(lake, orders) == []
    assert complete_to(lake, orders, 2**62) == 2**62 >= missing
    built = load_events(lake, orders, list(mirrored_by_day(lake, orders))).sort("at", "id64").collect()
    assert built.select(expected.columns).equals(expected)
    stretch = Stretch(0, 2**60)
    parts = [pl.DataFrame(schema=raw_schema(orders)).select(expected.columns)]
    parts += [part.select(expected.columns) for part in read_raw(lake, orders, stretch, limit=20)]
    replayed = pl.concat(parts).unique(["at", "order_id"], keep="first", maintain_order=True)
    on_time = expected.filter(pl.col("ingested_at") - pl.col("at") <= pl.duration(microseconds=LATENESS))
    assert replayed.sort("at", "order_id").equals(on_time.sort("at", "order_id"))


def test_what_is_decided_is_missing_until_it_is_built(lake: Lake) -> None:
    events = [e for e in generate(3, 60, days=1) if e.values["price"] is not None]
    mirror(lake, to_frame(events))
    days = days_of(to_frame(events))
    compact_events(lake, orders, days)
    first = counting(lake).sort("ingested_at").row(5, named=True)
    hold(lake, orders, first["event_date"], counting(lake).filter(order_id=first["order_id"]), "unit", "wrong")
    assert touched_days(lake, orders) == []
    assert complete_to(lake, orders, 2**62) == 2**62
    correct(lake, orders, "unit", None, halve, DECIDER)
    assert touched_days(lake, orders) == [first["event_date"]]
    assert complete_to(lake, orders, 2**62) == to_instant(first["ingested_at"])
    compact_events(lake, orders, touched_days(lake, orders))
    assert complete_to(lake, orders, 2**62) == 2**62
    hold_some(lake, "again", {first["order_id"]})
    correct(lake, orders, "again", None, DROP, DECIDER)
    assert complete_to(lake, orders, 2**62) == to_instant(first["ingested_at"])


def test_an_event_is_held_again_once_it_was_mended_and_is_wrong_still(lake: Lake) -> None:
    events = generate(4, 20, days=0.5)
    mirror(lake, to_frame(events))
    name = str(events[0].values["id"])
    assert hold_some(lake, "unit", {name}) == 1
    correct(lake, orders, "unit", None, lambda rows: rows, DECIDER)
    assert hold_some(lake, "unit", {name}) == 1
    assert held(lake, orders)["revision"].to_list() == [0, 1]
    assert summary(lake, orders).drop("day").rows() == [("check:unit", HELD, 1), ("check:unit", REPLAYED, 1)]
    correct(lake, orders, "unit", None, halve, DECIDER)
    price = events[0].values["price"]
    assert counting(lake).filter(order_id=name)["price"].to_list() == [price / 2]


def test_a_mend_that_is_killed_has_not_happened(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the one commit there is nothing; after it the next compaction does the rest."""
    events = generate(5, 30, days=0.5)
    mirror(lake, to_frame(events))
    days = days_of(to_frame(events))
    compact_events(lake, orders, days)
    before = counting(lake)
    ids = set(before["order_id"].to_list()[:5])
    hold_some(lake, "unit", ids)
    with monkeypatch.context() as patched:
        patched.setattr(mending, "decide", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            correct(lake, orders, "unit", None, halve, DECIDER)
    assert counting(lake).equals(before)
    assert (mended_count(lake, orders), touched_days(lake, orders)) == (0, [])
    correct(lake, orders, "unit", None, DROP, DECIDER)
    with pytest.raises(RequestError, match="check 'unit' holds no events"):
        correct(lake, orders, "unit", None, DROP, DECIDER)
    compact_events(lake, orders, touched_days(lake, orders))
    assert set(counting(lake)["order_id"]) == set(before["order_id"]) - ids


def test_of_two_who_decide_at_once_one_does(lake: Lake) -> None:
    events = generate(6, 60, days=0.5)
    mirror(lake, to_frame(events))
    ids = {str(e.values["id"]) for e in events if e.values["price"] is not None}
    assert hold_some(lake, "unit", ids) == len(ids)

    def mend(part: int) -> mending.Mend:
        return correct(lake, orders, "unit", None, lambda rows: rows.with_columns(price=pl.lit(float(part))), DECIDER)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(mend, part) for part in range(4)]
        done = [future.result() for future in futures if future.exception() is None]
        errors = [future.exception() for future in futures if future.exception() is not None]
    assert all(isinstance(error, RequestError) for error in errors)
    assert sum(one.corrected - one.elsewhere for one in done) == len(ids) == mended_count(lake, orders)
    assert counting(lake).filter(pl.col("order_id").is_in(list(ids)))["price"].n_unique() == 1


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


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        (lambda f: f.lazy(), "must return a polars.DataFrame; got LazyFrame"),
        (lambda f: f.drop("price").with_columns(prize=1.0), "no column 'price'. Did you mean 'prize'"),
        (lambda f: f.with_columns(pl.col("items").cast(pl.Int32)), "column 'items' must be Int64; got Int32"),
        (lambda f: pl.concat([f, f]), "each event may be returned once; got 3 twice"),
        (
            lambda f: f.with_columns(pl.col("at") + pl.duration(seconds=1)),
            "'at' and 'id64' must stay as they are; got 3",
        ),
        (
            lambda f: f.with_columns(order_id=pl.lit("other")),
            "'order_id' must stay as it is; got 3 others, such as 'other'",
        ),
        (lambda f: f.with_columns(items=pl.lit(9999, pl.Int64)), "break the contract\nitems: less_than_or_equal_to"),
    ],
)
def test_a_fix_that_returns_something_else_is_refused(lake: Lake, fix: mending.Fix, words: str) -> None:
    mirror(lake, to_frame(generate(8, 10, days=0.1)))
    hold_some(lake, "unit", set(counting(lake)["order_id"].to_list()[:3]))
    with pytest.raises(RequestError) as error:
        correct(lake, orders, "unit", None, fix, DECIDER)
    assert words in str(error.value)
    assert str(error.value).startswith("fix of source 'orders'")
    assert open_table(lake.decisions("orders")) is None


def test_what_is_not_held_is_refused_by_name(lake: Lake) -> None:
    mirror(lake, to_frame(generate(8, 10, days=0.1)))
    with pytest.raises(RequestError, match=r"check 'unit' holds no events\. There are none"):
        accept(lake, orders, "unit", DAY, DECIDER)
    hold_some(lake, "units", set(counting(lake)["order_id"].to_list()[:3]))
    with pytest.raises(RequestError, match=r"check 'unit' holds no events\. Did you mean 'units'"):
        accept(lake, orders, "unit", DAY, DECIDER)
    with pytest.raises(RequestError, match=f"check 'units' holds no events of 2024-05-01, but of {DAY}"):
        accept(lake, orders, "units", date(2024, 5, 1), DECIDER)
    with pytest.raises(RequestError, match="no events that were refused as 'not_json' are left"):
        release(lake, orders, "not_json", None, None, DECIDER)


def test_a_day_that_is_accepted_is_so_for_one_check(lake: Lake) -> None:
    mirror(lake, to_frame(generate(8, 10, days=0.1)))
    compact_events(lake, orders, [DAY])
    some = set(counting(lake)["order_id"].to_list()[:3])
    hold_some(lake, "unit", some)
    hold_some(lake, "volume", some)
    assert accepted(lake, orders) == set()
    assert accept(lake, orders, "volume", DAY, DECIDER) == 3
    assert accepted(lake, orders) == {(DAY, "volume")}
    assert dict(held(lake, orders).select("reason", "state").rows()) == {"check:unit": HELD, "check:volume": "accepted"}
    assert touched_days(lake, orders) == [DAY]  # built again, and let through now
    assert mended_count(lake, orders) == 0  # no other events count than before


def test_payloads_are_what_the_gate_takes_bit_by_bit(lake: Lake) -> None:
    values = [0.1 + 0.2, 5e-324, -0.0, None, 1e9, 123456.789]
    names = ["x", "ü", 'a"b', "new\nline", "\u2028", "back\\slash"]
    frame = to_frame(generate(9, 6, days=0.1)[:6]).with_columns(shop=pl.Series(names), price=pl.Series(values))
    stamps = frame["ingested_at"].dt.epoch("us").to_list()
    offsets = [f"{n}-0" for n in range(frame.height)]
    gated = Gate(orders)(Entries(0, offsets, stamps, stamps, payloads(orders, frame).to_list()))
    assert gated.good.select(frame.columns).equals(frame)
    assert gated.refused == []


def test_a_table_of_before_reads_with_nulls(lake: Lake, tmp_path: Path) -> None:
    old = pl.DataFrame({"partition": [0], "offset": ["1-0"], "payload": [b"x"], "reason": ["not_json"], "detail": [""]})
    old = old.with_columns(pl.lit(to_datetime(START)).alias("ingested_at"), pl.lit(DAY).alias("ingest_date"))
    old.write_delta(lake.quarantine("orders"), delta_write_options={"partition_by": ["ingest_date"]})
    mirror(lake, to_frame(generate(8, 10, days=0.1)))
    hold_some(lake, "unit", set(counting(lake)["order_id"].to_list()[:3]))
    assert quarantined(lake, orders).select(pl.col("event_date").is_null().sum(), pl.len()).collect().row(0) == (1, 4)
    assert summary(lake, orders)["rows"].to_list() == [3, 1]


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
