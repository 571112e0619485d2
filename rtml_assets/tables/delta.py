"""Delta tables by day: read under a schema, append to, and replace days of at once.

What a day was built from is written in the commit that builds it, as a Delta transaction number of the day: so a day
and the note of what it holds cannot disagree, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from hashlib import blake2b
from typing import Generic, Literal, NamedTuple, TypeVar

import arro3.core
import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from rtml.instants import Instant, now
from rtml.lake import EVENT_DATE
from streaming.delta import Columns, open_table, rows_by_day, scan

__all__ = [
    "SIGNED",
    "Built",
    "append",
    "built_at",
    "built_from",
    "insert_new",
    "meaning_of",
    "open_table",
    "rebuild_days",
    "rows_by_day",
    "scan",
    "tidy",
]

ATTEMPTS = 8
MANY_FILES = 64
SIGNED: dict[type[pl.DataType], pl.DataType] = {pl.UInt8: pl.Int16(), pl.UInt16: pl.Int32(), pl.UInt32: pl.Int64()}
"""Delta has no unsigned integers: they are stored in the next wider signed ones."""

T = TypeVar("T")


class Built(NamedTuple, Generic[T]):
    """Rows, the days that they are all of (each with the number that says what it was built from), and what to tell."""

    rows: pl.DataFrame
    built_from: Mapping[date, int]
    outcome: T


def append(uri: str, rows: pl.DataFrame) -> None:
    """Append rows to the days that they belong to; the first ones make the table, and a new column widens it."""
    write_deltalake(uri, _stored(rows), mode="append", schema_mode="merge", partition_by=[EVENT_DATE])


def tidy(uri: str, days: Collection[date]) -> None:
    """Join the files of days that have very many: a mirror adds one with every epoch. Appends may go on meanwhile."""
    table = open_table(uri)
    if table is None:
        return
    column = f"partition.{EVENT_DATE}"
    files = pl.DataFrame(table.get_add_actions(flatten=True)).group_by(column).len()
    many = files.filter((pl.col("len") > MANY_FILES) & pl.col(column).is_in(list(days)))[column].to_list()
    if many:
        with suppress(CommitFailedError):  # somebody else is at it
            table.optimize.compact(partition_filters=[(EVENT_DATE, "in", [str(day) for day in many])])


def rebuild_days(uri: str, schema: Columns, meaning: str, build: Callable[[], Built[T]]) -> T:
    """Replace days by what `build` returns, and return its outcome; where another writer was faster, build again.

    A table of another meaning is emptied first: rows of two meanings in one table would be a lie.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    for attempt in range(ATTEMPTS):
        table = _table_of(uri, schema, meaning)  # before anything is read: what is committed since is a conflict
        built = build()
        try:
            _replace(table, built)
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return built.outcome
    raise AssertionError


def _replace(table: DeltaTable, built: Built[T]) -> None:
    if not built.built_from:
        return
    days = ", ".join(f"'{day}'" for day in built.built_from)
    notes = [Transaction(_note(table, day), count) for day, count in built.built_from.items()]
    notes += [Transaction(_note(table, f"{day} at"), now()) for day in built.built_from]
    write_deltalake(
        table,
        _stored(built.rows),
        mode="overwrite",
        predicate=f"{EVENT_DATE} IN ({days})",
        commit_properties=CommitProperties(app_transactions=notes),
    )


def insert_new(uri: str, rows: pl.DataFrame, identity: Sequence[str]) -> int:
    """Append the rows that are not there yet, judged by some columns, and return how many those were.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    days = ", ".join(f"'{day}'" for day in rows[EVENT_DATE].unique())
    same = [f"old.{name} = new.{name}" for name in (EVENT_DATE, *identity)]
    return merge_new(uri, _stored(rows), " AND ".join([*same, f"old.{EVENT_DATE} IN ({days})"]))


def merge_new(uri: str, rows: pl.DataFrame, same: str) -> int:
    """Append, in one commit, the rows (`new`) that are no row of the table (`old`) by a condition in SQL; how many.

    Raises:
        CommitFailedError: other writers were faster too often.
    """
    for attempt in range(ATTEMPTS):
        if (table := open_table(uri)) is None:
            write_deltalake(uri, rows.clear(), mode="ignore", partition_by=[EVENT_DATE])
            table = DeltaTable(uri)
        merge = table.merge(rows, same, source_alias="new", target_alias="old")
        try:
            return int(merge.when_not_matched_insert_all().execute()["num_target_rows_inserted"])
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def built_from(table: DeltaTable | None, days: Sequence[date], meaning: str) -> dict[date, int]:
    """Return what those days that the table holds under this meaning were built from."""
    if table is None or table.metadata().description != meaning:
        return {}
    found = {day: table.transaction_version(_note(table, day)) for day in days}
    return {day: int(count) for day, count in found.items() if count is not None}


def built_at(table: DeltaTable | None, days: Iterable[date]) -> dict[date, Instant]:
    """Return when those days that the table holds were last built."""
    if table is None:
        return {}
    found = {day: table.transaction_version(_note(table, f"{day} at")) for day in days}
    return {day: int(instant) for day, instant in found.items() if instant is not None}


def meaning_of(name: str, *parts: object) -> str:
    """Return what a table's description says of the meaning of its rows: a word for people, a hash for the rest."""
    return f"{name} {blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"


def _table_of(uri: str, schema: Columns, meaning: str) -> DeltaTable:
    table = open_table(uri)
    if table is not None and table.metadata().description == meaning:
        return table
    empty = arro3.core.Table.from_arrow(_stored(pl.DataFrame(schema=dict(schema))))
    mode: Literal["ignore", "overwrite"] = "ignore" if table is None else "overwrite"
    columns = Schema.from_arrow(empty.schema)
    return DeltaTable.create(uri, columns, mode=mode, partition_by=[EVENT_DATE], description=meaning)


def _note(table: DeltaTable, day: date | str) -> str:
    """The table's own id is in it: notes outlive the rows when a table is made anew."""
    return f"{table.metadata().id}:{day}"


def _stored(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.cast({name: SIGNED[type(dtype)] for name, dtype in rows.schema.items() if type(dtype) in SIGNED})
