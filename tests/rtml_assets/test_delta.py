"""Delta by day: the empty table, replacing, what a day was built from, and writers that meet."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from rtml_assets.tables import delta
from rtml_assets.tables.delta import Built

SCHEMA: dict[str, pl.DataType] = {"x": pl.Int64(), "u": pl.UInt32(), "event_date": pl.Date()}
FIRST, SECOND = date(2024, 3, 1), date(2024, 3, 2)


def rows(day: date, *values: int) -> pl.DataFrame:
    return pl.DataFrame([{"x": value, "u": 4_000_000_000, "event_date": day} for value in values], schema=SCHEMA)


def rebuild(uri: str, built: Built[str], meaning: str = "m 1", schema: dict[str, pl.DataType] = SCHEMA) -> str:
    return delta.rebuild_days(uri, schema, meaning, lambda: built)


def content(uri: str) -> list[tuple[object, ...]]:
    return delta.scan(delta.open_table(uri), SCHEMA).sort("event_date", "x").collect().rows()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def test_a_table_that_is_not_there_is_empty_under_its_schema(uri):
    table = delta.open_table(uri)
    assert table is None
    assert delta.scan(table, SCHEMA).collect().schema == SCHEMA
    assert delta.rows_by_day(table) == {}
    assert delta.built_from(table, [FIRST], "m 1") == {}


def test_unsigned_columns_come_back_as_they_were(uri):
    delta.append(uri, rows(FIRST, 1))
    assert content(uri) == [(1, 4_000_000_000, FIRST)]


def test_a_column_that_the_table_does_not_have_is_null(uri):
    delta.append(uri, rows(FIRST, 1))
    wider = {**SCHEMA, "new": pl.Float64()}
    assert delta.scan(delta.open_table(uri), wider).collect()["new"].to_list() == [None]


def test_only_the_named_days_are_replaced(uri):
    both = pl.concat([rows(FIRST, 1, 2), rows(SECOND, 3)])
    assert rebuild(uri, Built(both, {FIRST: 20, SECOND: 30}, "outcome")) == "outcome"
    rebuild(uri, Built(rows(FIRST, 9), {FIRST: 21}, ""))
    assert [row[0] for row in content(uri)] == [9, 3]
    table = delta.open_table(uri)
    assert delta.rows_by_day(table) == {FIRST: 1, SECOND: 1}
    assert delta.built_from(table, [FIRST, SECOND], "m 1") == {FIRST: 21, SECOND: 30}
    assert [row[0] for row in delta.scan(table, SCHEMA, [SECOND]).collect().rows()] == [3]


def test_a_day_may_become_empty(uri):
    rebuild(uri, Built(rows(FIRST, 1), {FIRST: 1}, ""))
    rebuild(uri, Built(rows(FIRST), {FIRST: 0}, ""))
    assert content(uri) == []
    assert delta.rows_by_day(delta.open_table(uri)) == {}
    assert delta.built_from(delta.open_table(uri), [FIRST], "m 1") == {FIRST: 0}


def test_nothing_to_build_writes_nothing(uri):
    rebuild(uri, Built(rows(FIRST, 1), {FIRST: 1}, ""))
    before = delta.open_table(uri)
    rebuild(uri, Built(rows(FIRST), {}, ""))
    after = delta.open_table(uri)
    assert before is not None
    assert after is not None
    assert before.version() == after.version()


def test_another_meaning_empties_the_table_and_forgets_what_days_were_built_from(uri):
    rebuild(uri, Built(rows(FIRST, 1), {FIRST: 5}, ""))
    other: dict[str, pl.DataType] = {"y": pl.String(), "event_date": pl.Date()}
    rebuild(uri, Built(pl.DataFrame({"y": ["a"], "event_date": [SECOND]}), {SECOND: 1}, ""), "m 2", other)
    table = delta.open_table(uri)
    assert delta.scan(table, other).collect().rows() == [("a", SECOND)]
    assert delta.built_from(table, [FIRST, SECOND], "m 2") == {SECOND: 1}
    assert delta.built_from(table, [FIRST], "m 1") == {}
    rebuild(uri, Built(rows(SECOND, 7), {SECOND: 2}, ""))  # and back: the first day is not there, whatever was noted
    assert delta.built_from(delta.open_table(uri), [FIRST, SECOND], "m 1") == {SECOND: 2}


def test_a_writer_that_was_overtaken_builds_again(uri):
    rebuild(uri, Built(rows(FIRST, 1), {FIRST: 1}, ""))
    calls: list[int] = []

    def build() -> Built[None]:
        calls.append(len(calls))
        if len(calls) == 1:
            rebuild(uri, Built(rows(FIRST, 2), {FIRST: 2}, ""))
        return Built(rows(FIRST, 10 + len(calls)), {FIRST: 10 + len(calls)}, None)

    delta.rebuild_days(uri, SCHEMA, "m 1", build)
    assert calls == [0, 1]
    assert [row[0] for row in content(uri)] == [12]


def test_a_writer_that_is_always_overtaken_gives_up(uri):
    rebuild(uri, Built(rows(FIRST, 1), {FIRST: 1}, ""))

    def build() -> Built[None]:
        rebuild(uri, Built(rows(FIRST, 2), {FIRST: 2}, ""))
        return Built(rows(FIRST, 3), {FIRST: 3}, None)

    with pytest.raises(Exception, match="concurrent"):
        delta.rebuild_days(uri, SCHEMA, "m 1", build)


def test_what_is_there_is_not_inserted_again(uri):
    assert delta.insert_new(uri, rows(FIRST, 1, 2), ["x"]) == 2
    assert delta.insert_new(uri, pl.concat([rows(FIRST, 2, 3), rows(SECOND, 2)]), ["x"]) == 2
    assert delta.insert_new(uri, rows(FIRST, 3), ["x"]) == 0
    assert [(row[0], row[2]) for row in content(uri)] == [(1, FIRST), (2, FIRST), (3, FIRST), (2, SECOND)]


def test_days_of_many_files_are_joined_and_others_left_alone(uri, monkeypatch):
    monkeypatch.setattr(delta, "MANY_FILES", 3)
    delta.tidy(uri, [FIRST])  # nothing is there yet
    for number in range(4):
        delta.append(uri, pl.concat([rows(FIRST, number), rows(SECOND, number)]))
    before = content(uri)
    delta.tidy(uri, [FIRST])
    table = delta.open_table(uri)
    assert table is not None
    assert len(table.file_uris()) == 5
    assert content(uri) == before
    assert delta.rows_by_day(table) == {FIRST: 4, SECOND: 4}


def test_an_insert_that_is_always_overtaken_gives_up(uri, monkeypatch):
    delta.insert_new(uri, rows(FIRST, 1), ["x"])
    newest, stale = delta.open_table, delta.open_table(uri)
    delta.append(uri, rows(FIRST, 2))
    monkeypatch.setattr(delta, "open_table", lambda _: stale)
    with pytest.raises(Exception, match="concurrent"):
        delta.insert_new(uri, rows(FIRST, 2), ["x"])
    monkeypatch.setattr(delta, "open_table", newest)
    assert delta.insert_new(uri, rows(FIRST, 2), ["x"]) == 0
