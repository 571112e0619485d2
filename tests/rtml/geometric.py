"""A custom aggregate, as a user would write it: the geometric mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

import rtml
from rtml.algebra.family import Array, States

POSITIVE = (0.5, 1.0, 2.0, 100.0, 1e-6)


def lower(value: pl.Expr) -> Mapping[str, pl.Expr]:
    return {"log_sum": value.log().sum(), "n": value.count()}


def lift(values: Array) -> Mapping[str, Array]:
    return {"log_sum": np.log(values), "n": np.ones(len(values), dtype=np.int64)}


def finalize(states: States) -> tuple[Array, Array]:
    valid = states["n"] > 0
    return np.exp(states["log_sum"] / np.where(valid, states["n"], 1)), valid


geometric_mean = rtml.CustomAggregate(
    name="geometric_mean",
    state={"log_sum": float, "n": int},
    lower=lower,
    lift=lift,
    finalize=finalize,
)
