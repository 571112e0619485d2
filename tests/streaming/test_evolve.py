"""The lake follows a contract: columns widen in one commit, and what others append meanwhile stays."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from rtml.lake import EVENT_DATE
from streaming import evolve
from streaming.delta import open_table, rows_by_day, scan
from streaming.evolve import follow

NARROW: dict[str, pl.DataType] = {"n": pl.Int16(), "x": pl.Float32(), "word": pl.String(), EVENT_DATE: pl.Date()}
WIDE: dict[str, pl.DataType] = {"n": pl.Int64(), "x": pl.Float64(), "more": pl.String(), EVENT_DATE: pl.Date()}


def rows(first: int, count: int = 4) -> pl.DataFrame:
    numbers = range(first, first + count)
    days = [date(2024, 3, 1 + number % 2) for number in numbers]
    columns = {"n": list(numbers), "x": [number + 0.5 for number in numbers], "word": ["w"] * count, EVENT_DATE: days}
    return pl.DataFrame(columns, schema=NARROW)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    table = str(tmp_path / "raw")
    write_deltalake(table, rows(0), mode="append", partition_by=[EVENT_DATE])
    return table


def read(uri: str) -> list[tuple[object, ...]]:
    schema = {name: dtype for name, dtype in WIDE.items() if name != EVENT_DATE}
    return sorted(scan(open_table(uri), schema).select("n", "x", "more").collect().rows())


def test_types_widen_once_and_nothing_else_changes(uri: str) -> None:
    counts = rows_by_day(open_table(uri))
    assert follow(uri, WIDE)
    assert not follow(uri, WIDE)
    assert not follow(uri, NARROW)  # they never narrow again
    table = DeltaTable(uri)
    assert table.version() == 1
    types = dict(pl.scan_delta(table).collect_schema())
    assert types == {"n": pl.Int64(), "x": pl.Float64(), "word": pl.String(), EVENT_DATE: pl.Date()}
    assert rows_by_day(table) == counts
    assert table.metadata().partition_columns == [EVENT_DATE]
    assert read(uri) == [(number, number + 0.5, None) for number in range(4)]


def test_a_table_that_is_not_there_needs_nothing(tmp_path: Path) -> None:
    assert not follow(str(tmp_path / "none"), WIDE)


def test_what_is_appended_while_it_widens_stays(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = evolve._rewrite

    def slowly(table: DeltaTable, schema: dict[str, pl.DataType]) -> None:
        write_deltalake(uri, rows(4), mode="append", partition_by=[EVENT_DATE])
        rewrite(table, schema)

    monkeypatch.setattr(evolve, "_rewrite", slowly)
    assert follow(uri, WIDE)
    assert read(uri) == [(number, number + 0.5, None) for number in range(8)]


def test_files_that_are_joined_while_it_widens_count_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_deltalake(uri, rows(4), mode="append", partition_by=[EVENT_DATE])
    rewrite = evolve._rewrite
    done: list[int] = []

    def slowly(table: DeltaTable, schema: dict[str, pl.DataType]) -> None:
        if not done:
            done.append(1)
            assert DeltaTable(uri).optimize.compact()["numFilesRemoved"]
        rewrite(table, schema)

    monkeypatch.setattr(evolve, "_rewrite", slowly)
    assert follow(uri, WIDE)
    assert read(uri) == [(number, number + 0.5, None) for number in range(8)]
