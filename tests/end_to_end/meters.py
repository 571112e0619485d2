"""Definitions for the test of the catalog: what is neither count nor sum, and a custom aggregate."""

import numpy as np
import polars as pl

import rtml
from rtml import (
    ApproxTopK,
    CountDistinct,
    DecayedCount,
    DecayedMean,
    DecayedSum,
    Drift,
    Entity,
    EventSource,
    Expect,
    FeatureService,
    First,
    FirstN,
    Kurtosis,
    LastDistinctN,
    LastN,
    Rate,
    RedisStream,
    Share,
    Skew,
    Spine,
    StreamFeatureView,
    SumRate,
)


class Reading(rtml.Event):
    reading_id: str
    at: rtml.Timestamp
    meter: str
    watts: float = rtml.Field(gt=0, le=1e6, nullable=True)
    phase: int = rtml.Field(ge=0, le=3)
    mode: str = rtml.Field(nullable=True)


readings = EventSource(
    name="readings",
    schema=Reading,
    timestamp="at",
    event_id="reading_id",
    stream=RedisStream("readings"),
    lateness="15m",
    starts="2024-01-01",
    ends="2024-12-31",
)


def _geometric(states):
    valid = states["n"] > 0
    return np.exp(states["log_sum"] / np.where(valid, states["n"], 1)), valid


geometric_mean = rtml.CustomAggregate(
    name="geometric_mean",
    state={"log_sum": float, "n": int},
    lower=lambda value: {"log_sum": value.log().sum(), "n": value.count()},
    finalize=_geometric,
)

WINDOWS = ["1m", "3h", "7d"]

meter_load = StreamFeatureView(
    name="meter_load",
    source=readings,
    entity=Entity("meter", join_keys=["meter"]),
    derive={"high": pl.col("watts") > 1000},
    features=[
        Skew("watts", windows=WINDOWS),
        Kurtosis("watts", windows=WINDOWS),
        FirstN("watts", n=3, windows=WINDOWS),
        LastN("phase", n=20, windows=WINDOWS),
        LastDistinctN("phase", n=3, windows=WINDOWS),
        Rate(windows=WINDOWS),
        SumRate("watts", windows=WINDOWS),
        Share("high", windows=WINDOWS),
        DecayedCount(half_life="10m", windows=WINDOWS),
        DecayedSum("watts", half_life="1h", windows=WINDOWS),
        DecayedSum("high", half_life="1h", windows=WINDOWS),
        DecayedMean("watts", half_life="1m", windows=WINDOWS),
        First("mode", windows=WINDOWS),
        LastN("mode", n=3, windows=WINDOWS),
        ApproxTopK("mode", k=2, windows=WINDOWS),
        CountDistinct("mode", windows=WINDOWS),
    ],
    quality=[Expect("expect_column_values_to_not_be_null", "phase_last_20_7d")],
)
meter_geometry = StreamFeatureView(
    name="meter_geometry",
    source=readings,
    entity=Entity("meter", join_keys=["meter"]),
    features=[geometric_mean("watts", windows=WINDOWS)],
)
load = FeatureService(
    "load", features=[meter_load], training=Spine(readings), drift=Drift(minimum=30), log=1, version=1
)
geometry = FeatureService("geometry", features=[meter_geometry], log=1, version=1)
