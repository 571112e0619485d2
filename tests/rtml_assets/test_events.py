"""`raw/` → `events/`, against plain Python."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from rtml.instants import to_datetime
from rtml.lake import Lake, raw_schema
from rtml_assets.tables import delta
from rtml_assets.tables.events import compact_events, deduplicate, in_chunks, load_events
from rtml_assets.tables.touched import complete_to, touched_days
from streaming.gate import id64
from tests import oracle
from tests.rtml_assets.orders import LATENESS, generate, orders, to_frame


def to_raw(frame: pl.DataFrame) -> pl.DataFrame:
    """What the mirror or `land` would have written."""
    ids = pl.Series("id64", [id64(name) for name in frame["order_id"]], dtype=pl.UInt64)
    day = pl.col("at").dt.date().alias("event_date")
    return frame.with_columns(ids.reinterpret(signed=True), day).select(*raw_schema(orders))


def mirror(lake: Lake, frame: pl.DataFrame) -> None:
    delta.append(lake.raw("orders"), to_raw(frame))


def days_of(frame: pl.DataFrame) -> list[date]:
    return sorted(frame["at"].dt.date().unique().to_list())


def test_each_event_once_the_first_to_arrive_in_order(lake):
    events = generate(1)
    mirror(lake, to_frame(events))
    days = days_of(to_frame(events))
    compacted = compact_events(lake, orders, days)
    expected = sorted(oracle.counted(events, LATENESS, late_too=True), key=lambda e: (e.time, e.id64))
    got = load_events(lake, orders, days).sort("at", "id64").collect()
    assert got["order_id"].to_list() == [e.values["id"] for e in expected]
    assert got["ingested_at"].dt.epoch("us").to_list() == [e.ingested for e in expected]
    for figures in compacted.days:
        of_day = [e for e in expected if to_datetime(e.time).date() == figures.day]
        raw = [e for e in events if to_datetime(e.time).date() == figures.day]
        assert (figures.rows, figures.duplicates) == (len(of_day), len(raw) - len(of_day))
        assert figures.late == sum(e.ingested - e.time > LATENESS for e in of_day)
        assert figures.conflicting == 0
    assert compacted.refused == {}
    assert compacted.checked == len(expected)


def test_rows_lie_sorted_on_disk_by_time_and_unsigned_id64(lake):
    events = generate(2)
    mirror(lake, to_frame(events))
    (day, *_) = days_of(to_frame(events))
    compact_events(lake, orders, [day])
    table = delta.open_table(lake.events("orders"))
    assert table is not None
    (file,) = table.file_uris()
    stored = pl.read_parquet(file, hive_partitioning=False).with_columns(pl.col("id64").reinterpret(signed=False))
    assert stored.equals(stored.sort("at", "id64"))
    assert (stored["id64"] > 2**63).any()


@given_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_order_of_raw_rows_does_not_matter(seed):
    frame = to_raw(to_frame(generate(seed, 60, days=0.1)))
    conflicting = frame.head(5).with_columns(pl.col("items") + 1)
    both = pl.concat([frame, conflicting])
    shuffled = both.sample(fraction=1, shuffle=True, seed=seed)
    events, repeated = deduplicate(orders, both)
    again, repeated_again = deduplicate(orders, shuffled)
    assert events.equals(again)
    assert repeated.height == repeated_again.height


def test_payloads_that_differ_under_one_id_are_counted_and_the_first_to_arrive_counts(lake):
    frame = to_frame(generate(3, 20, days=0.01)).unique("order_id", keep="first", maintain_order=True)
    later = frame.head(2).with_columns(pl.col("items") + 1, pl.col("ingested_at") + timedelta(seconds=1))
    tie = frame[2:3].with_columns(pl.col("items") - 7)  # arrived in the same microsecond: the least payload counts
    mirror(lake, pl.concat([later, frame, tie]))
    day = days_of(frame)[0]
    (figures,) = compact_events(lake, orders, [day]).days
    assert (figures.conflicting, figures.duplicates) == (3, 3)
    got = load_events(lake, orders, [day]).collect().sort("at", "id64")
    expected = {**dict(frame.select("order_id", "items").rows()), **dict(tie.select("order_id", "items").rows())}
    assert dict(got.select("order_id", "items").rows()) == expected


def test_a_day_that_breaks_the_contract_stays_as_it_was_and_others_are_built(lake):
    frame = to_frame(generate(4, 200, days=2))
    mirror(lake, frame)
    first, second, *_ = days_of(frame)
    compact_events(lake, orders, days_of(frame))
    before = load_events(lake, orders, [first]).collect()
    broken = frame.filter(pl.col("at").dt.date() == first).head(1)
    mirror(lake, broken.with_columns(pl.lit("new").alias("order_id"), pl.lit(5_000).cast(pl.Int64).alias("items")))
    more = frame.filter(pl.col("at").dt.date() == second).head(1).with_columns(pl.lit("more").alias("order_id"))
    mirror(lake, more)
    assert touched_days(lake, orders) == [first, second]
    compacted = compact_events(lake, orders, [first, second])
    assert list(compacted.refused) == [first]
    assert "items: less_than_or_equal_to(1000): 1 rows, such as 5000" in str(compacted.refused[first])
    assert load_events(lake, orders, [first]).collect().equals(before)
    assert [day.day for day in compacted.days] == [second]
    assert touched_days(lake, orders) == [first]


def test_where_every_day_breaks_the_contract_the_verdicts_are_what_is_told(lake):
    frame = to_frame(generate(6, 40, days=2)).with_columns(pl.lit(5000).alias("items"))
    mirror(lake, frame)
    compacted = compact_events(lake, orders, days_of(frame))
    assert compacted.days == []
    assert list(compacted.refused) == days_of(frame)
    assert all("items: less_than_or_equal_to(1000)" in str(verdict) for verdict in compacted.refused.values())


def test_late_arrivals_touch_just_their_day(lake):
    frame = to_frame(generate(5, 300, days=3))
    mirror(lake, frame)
    days = days_of(frame)
    assert touched_days(lake, orders) == days
    compact_events(lake, orders, days)
    assert touched_days(lake, orders) == []
    late = frame.filter(pl.col("at").dt.date() == days[1]).head(1).with_columns(pl.lit("late").alias("order_id"))
    mirror(lake, late)
    assert touched_days(lake, orders) == [days[1]]
    mirror(lake, late.with_columns(pl.lit(date(2031, 1, 1)).cast(pl.Datetime("us", "UTC")).alias("at")))
    assert touched_days(lake, orders) == [days[1]]  # the other one is outside the source's history


def test_completeness_ends_where_the_first_missing_row_was_ingested(lake):
    frame = to_frame(generate(6, 200, days=1))
    mirror(lake, frame)
    compact_events(lake, orders, days_of(frame))
    end = 2**60
    assert complete_to(lake, orders, end) == end
    mirror(lake, frame.tail(1))  # a repetition is not missing
    assert complete_to(lake, orders, end) == end
    new = frame.tail(1).with_columns(pl.lit("new").alias("order_id"))
    mirror(lake, new)
    assert complete_to(lake, orders, end) == new["ingested_at"].dt.epoch("us")[0]
    earlier = frame.filter(~pl.struct("order_id").is_duplicated()).tail(1)
    mirror(lake, earlier.with_columns(pl.col("ingested_at") - timedelta(seconds=5)))  # arrived first, mirrored last
    stamp = earlier["ingested_at"].dt.epoch("us")[0] - 5_000_000
    assert complete_to(lake, orders, end) == min(stamp, new["ingested_at"].dt.epoch("us")[0])


def test_building_twice_gives_the_same_table(lake):
    frame = to_frame(generate(7))
    mirror(lake, frame.sample(fraction=1, shuffle=True, seed=1))
    days = days_of(frame)
    compact_events(lake, orders, days)
    before = load_events(lake, orders, days).collect()
    compact_events(lake, orders, list(reversed(days)))
    assert load_events(lake, orders, days).collect().sort("at", "id64").equals(before.sort("at", "id64"))


def test_days_are_built_in_chunks_of_about_so_many_rows():
    days = [date(2024, 3, 1) + timedelta(days=number) for number in range(6)]
    counts = dict(zip(days, [5, 5, 11, 1, 0, 9], strict=True))
    chunks = list(in_chunks(counts, limit=10))
    assert [list(chunk.values()) for chunk in chunks] == [[5, 5], [11], [1, 0, 9]]
    assert list(in_chunks({})) == []
