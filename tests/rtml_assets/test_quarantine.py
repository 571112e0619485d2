"""Quarantine in the lake: what is held, what was decided, and the events that count by then; against plain Python."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

import rtml
from rtml.errors import RequestError
from rtml.instants import to_datetime, to_instant
from rtml.lake import Lake, raw_schema
from rtml_assets.tables import mending
from rtml_assets.tables.delta import open_table
from rtml_assets.tables.events import compact_events, deduplicate, load_events
from rtml_assets.tables.mending import DROP, Decider, accept, correct, release
from rtml_assets.tables.quarantine import HELD, REPLAYED, accepted, held, hold, payloads, quarantined, summary
from rtml_assets.tables.touched import blocked_days, complete_to, touched_days
from streaming.entries import Entries
from streaming.gate import Gate
from streaming.mended import mended_count, mirrored_by_day, scan_mirrored
from streaming.sources.table import Stretch, read_raw
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import LATENESS, START, generate, orders, to_frame
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


def test_what_breaks_a_narrower_contract_is_held_and_can_be_mended(lake: Lake) -> None:
    """As after a contract was forced: nulls where there may be none, too many items."""
    frame = to_frame(generate(8, 40, days=0.3)).with_columns(items=pl.lit(3, pl.Int64))
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) % 2 == 0).then(1.0).alias("price"))
    frame = frame.with_columns(items=pl.when(pl.int_range(pl.len()) == 1).then(9).otherwise("items"))
    mirror(lake, frame)
    fields = {"price": rtml.Field(le=2), "items": rtml.Field(le=5)}
    model = type("Narrow", (orders.schema,), {"__annotations__": {"price": float, "items": int}, **fields})
    narrow = replace(orders, schema=model)
    broken = counting(lake).filter(pl.col("price").is_null() | (pl.col("items") > 5))
    assert 0 < broken.height < counting(lake).height
    assert list(compact_events(lake, narrow, [DAY]).refused) == [DAY]
    waiting = held(lake, narrow)
    assert set(waiting["id64"]) == set(broken["id64"])
    assert waiting["reason"].unique().to_list() == ["check:contract"]
    assert blocked_days(lake, narrow) == {DAY}
    with pytest.raises(RequestError, match="no day is built that breaks the contract"):
        accept(lake, narrow, "contract", DAY, DECIDER)

    def fix(events: pl.DataFrame) -> pl.DataFrame:
        return events.filter(items=3).with_columns(price=pl.lit(2.0))

    done = correct(lake, narrow, "contract", None, fix, DECIDER)
    assert (done.corrected, done.dropped) == (broken.filter(items=3).height, broken.filter(items=9).height)
    assert compact_events(lake, narrow, [DAY]).refused == {}
    built = load_events(lake, narrow, [DAY]).collect()
    assert built.filter(price=2.0).height == done.corrected
    assert blocked_days(lake, narrow) == set()
