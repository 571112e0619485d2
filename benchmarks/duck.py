"""The peer of the offline benchmarks: DuckDB, on tables of its own in memory and with all cores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import polars as pl

from rtml.plan import Plan

_WINDOWED = {
    "count": "count(amount)",
    "sum": "sum(amount)",
    "mean": "avg(amount)",
    "stddev": "stddev_samp(amount)",
    "min": "min(amount)",
    "max": "max(amount)",
    "first": "first_value(amount IGNORE NULLS)",
    "last": "last_value(amount IGNORE NULLS)",
}
_JOINED = _WINDOWED | {"first": "arg_min(amount, e.t)", "last": "arg_max(amount, e.t)"}
TILE = "count(*), sum(amount), avg(amount), min(amount), max(amount), stddev_samp(amount)"


class Duck:
    """A database that holds tables of numpy columns."""

    def __init__(self, **tables: Mapping[str, np.ndarray]) -> None:
        """Copy the tables."""
        self.connection = duckdb.connect()
        self.connection.execute("SET preserve_insertion_order = false")
        for name, columns in tables.items():
            self.connection.register("given", dict(columns))
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
            self.connection.unregister("given")

    def timed(self, query: str) -> float:
        """Return the seconds that a query takes which makes table `made`."""
        started = time.perf_counter()
        self.connection.execute(f"CREATE OR REPLACE TABLE made AS {query}")
        return time.perf_counter() - started

    def made(self) -> dict[str, np.ma.MaskedArray[Any, Any]]:
        """Return what the last query made, by its first column; nulls are masked."""
        columns = self.connection.execute("SELECT * FROM made ORDER BY 1").fetchnumpy()
        return {name: np.ma.asarray(column) for name, column in columns.items()}

    def count(self) -> int:
        """Return how many rows the last query made."""
        [(rows,)] = self.connection.execute("SELECT count(*) FROM made").fetchall()
        return int(rows)


def events_and_spine(events: pl.DataFrame, spine: pl.DataFrame) -> Duck:
    """Return a database of these events and instants."""
    return Duck(
        events={"card": events["card"].to_numpy(), "t": times(events), "amount": events["amount"].to_numpy()},
        spine={"n": np.arange(spine.height), "card": spine["card"].to_numpy(), "t": spine["at"].to_numpy()},
    )


def times(events: pl.DataFrame) -> np.ndarray:
    """Return event times as integers."""
    return np.asarray(events["at"].dt.epoch("us").to_numpy())


def windowed(plan: Plan) -> str:
    """Return a plan's features by `RANGE BETWEEN` windows over the union of events and spine."""
    names = {window.length: f"w{number}" for number, window in enumerate(plan.windows)}
    columns = [f"{_WINDOWED[f.aggregate]} OVER {names[f.window]} AS {f.name}" for f in plan.features]
    windows = [
        f"{name} AS (PARTITION BY card ORDER BY t RANGE BETWEEN {length} PRECEDING AND 1 PRECEDING)"
        for length, name in names.items()
    ]
    together = (
        "SELECT NULL::BIGINT AS n, card, t, amount FROM events UNION ALL SELECT n, card, t, NULL::DOUBLE FROM spine"
    )
    answered = f"SELECT n, {', '.join(columns)} FROM ({together}) WINDOW {', '.join(windows)}"
    return f"SELECT * FROM ({answered}) WHERE n IS NOT NULL"


def joined(plan: Plan) -> str:
    """Return the same by a join of each instant with the events of its longest window."""
    columns = [f"{_JOINED[f.aggregate]} FILTER (WHERE e.t >= s.t - {f.window}) AS {f.name}" for f in plan.features]
    near = f"e.card = s.card AND e.t < s.t AND e.t >= s.t - {plan.longest}"
    return f"SELECT s.n, {', '.join(columns)} FROM spine s LEFT JOIN events e ON {near} GROUP BY s.n"


def tiled(plan: Plan) -> str:
    """Return states at every level of a plan's ladder."""
    levels = [f"SELECT card, t // {size} AS tile, {TILE} FROM events GROUP BY 1, 2" for size in plan.ladder]
    return " UNION ALL ".join(levels)
