"""rtml: write a feature once; stream it, serve it, backfill it, and prove that all agree.

The names below are what definitions need; they are loaded on first use, so that a server that only reads plans does
not pay for the definition language.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtml.define.contract import Event, Field, Timestamp
    from rtml.define.custom import CustomAggregate
    from rtml.define.drift import Drift
    from rtml.define.entity import Entity
    from rtml.define.expectation import Expect
    from rtml.define.feature import (
        ApproxCountDistinct,
        ApproxPercentile,
        ApproxPercentiles,
        ApproxTopK,
        Count,
        CountDistinct,
        DecayedCount,
        DecayedMean,
        DecayedSum,
        First,
        FirstN,
        Histogram,
        Kurtosis,
        Last,
        LastDistinctN,
        LastN,
        Max,
        Mean,
        Min,
        Rate,
        Share,
        Skew,
        Stddev,
        Sum,
        SumRate,
        Variance,
        Window,
    )
    from rtml.define.label import LabelSource
    from rtml.define.service import FeatureService
    from rtml.define.sla import SLA
    from rtml.define.source import EventSource
    from rtml.define.spine import Spine
    from rtml.define.stream import RedisStream
    from rtml.define.views import StreamFeatureView
    from rtml.errors import LeftOutWarning, NotBuiltWarning, RtmlError
    from rtml.laws import check_laws

_HOME = {
    **dict.fromkeys(("Event", "Field", "Timestamp"), "rtml.define.contract"),
    **dict.fromkeys(
        (
            "Count",
            "DecayedCount",
            "DecayedMean",
            "DecayedSum",
            "First",
            "FirstN",
            "Kurtosis",
            "Last",
            "LastDistinctN",
            "LastN",
            "Max",
            "Mean",
            "Min",
            "Rate",
            "Share",
            "Skew",
            "Stddev",
            "Sum",
            "SumRate",
            "Variance",
            "Window",
        ),
        "rtml.define.feature",
    ),
    **dict.fromkeys(
        ("ApproxCountDistinct", "ApproxPercentile", "ApproxPercentiles", "ApproxTopK", "CountDistinct", "Histogram"),
        "rtml.define.feature",
    ),
    "EventSource": "rtml.define.source",
    "RedisStream": "rtml.define.stream",
    "CustomAggregate": "rtml.define.custom",
    "Drift": "rtml.define.drift",
    "Entity": "rtml.define.entity",
    "Expect": "rtml.define.expectation",
    "FeatureService": "rtml.define.service",
    "SLA": "rtml.define.sla",
    "LabelSource": "rtml.define.label",
    **dict.fromkeys(("LeftOutWarning", "NotBuiltWarning", "RtmlError"), "rtml.errors"),
    "check_laws": "rtml.laws",
    "Spine": "rtml.define.spine",
    "StreamFeatureView": "rtml.define.views",
}

__all__ = [
    "SLA",
    "ApproxCountDistinct",
    "ApproxPercentile",
    "ApproxPercentiles",
    "ApproxTopK",
    "Count",
    "CountDistinct",
    "CustomAggregate",
    "DecayedCount",
    "DecayedMean",
    "DecayedSum",
    "Drift",
    "Entity",
    "Event",
    "EventSource",
    "Expect",
    "FeatureService",
    "Field",
    "First",
    "FirstN",
    "Histogram",
    "Kurtosis",
    "LabelSource",
    "Last",
    "LastDistinctN",
    "LastN",
    "LeftOutWarning",
    "Max",
    "Mean",
    "Min",
    "NotBuiltWarning",
    "Rate",
    "RedisStream",
    "RtmlError",
    "Share",
    "Skew",
    "Spine",
    "Stddev",
    "StreamFeatureView",
    "Sum",
    "SumRate",
    "Timestamp",
    "Variance",
    "Window",
    "check_laws",
]


def __getattr__(name: str) -> Any:
    """Load a name of the definition language from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'rtml' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
