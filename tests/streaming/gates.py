"""A source of four partitions and one of one; with GATES_MORE the first one has one more view."""

import os

import numpy as np
import polars as pl

import rtml

WINDOWS = ["1m", "30m", "24h"]


total = rtml.CustomAggregate(
    name="total",
    state={"of": float, "n": int},
    lower=lambda value: {"of": value.sum(), "n": value.count()},
    lift=lambda values: {"of": values, "n": np.ones(len(values), dtype=np.int64)},
    finalize=lambda states: (states["of"], states["n"] > 0),
)
"""A sum, by functions that every process must find."""


class Pass(rtml.Event):
    pass_id: str
    at: rtml.Timestamp
    gate: str
    fare: float = rtml.Field(ge=-1e6, le=1e6, nullable=True)


def source(name: str, partitions: int) -> rtml.EventSource:
    """Return a source of passes."""
    stream = rtml.RedisStream(name, partitions)
    return rtml.EventSource(
        name=name, schema=Pass, timestamp="at", event_id="pass_id", stream=stream, lateness="15m", skew="1m"
    )


def view(name: str, of: rtml.EventSource, windows: list[str]) -> rtml.StreamFeatureView:
    """Return a view over a source."""
    return rtml.StreamFeatureView(
        name=name,
        source=of,
        entity=rtml.Entity("gate"),
        derive={"paid": pl.col("fare") > 0},
        features=[
            rtml.Count(windows=windows),
            rtml.Sum("fare", windows=windows),
            total("fare", windows=windows),
            rtml.Max("fare", windows=windows),
            rtml.Last("fare", windows=windows),
            rtml.Mean("paid", windows=windows, name="paid_share"),
        ],
    )


passes = source("busy", 4)
busy = rtml.FeatureService("busy", features=[view("busy_fares", passes, WINDOWS)])
quiet = rtml.FeatureService("quiet", features=[view("quiet_fares", source("quiet", 1), WINDOWS)])
if os.environ.get("GATES_MORE"):
    more = rtml.FeatureService("more", features=[view("more_fares", passes, ["3h", "7d"])])
