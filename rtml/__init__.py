"""rtml: write a feature once; stream it, serve it, backfill it, and prove that all agree.

The names below are what definitions need; they are loaded on first use, so that a server that only reads plans does
not pay for the definition language.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtml.define.contract import Event, Field, Timestamp
    from rtml.define.drift import Drift
    from rtml.define.entity import Entity
    from rtml.define.expectation import Expect
    from rtml.define.feature import Count, First, Last, Max, Mean, Min, Stddev, Sum, Variance, Window
    from rtml.define.label import LabelSource
    from rtml.define.service import FeatureService
    from rtml.define.sla import SLA
    from rtml.define.source import EventSource
    from rtml.define.spine import Spine
    from rtml.define.stream import RedisStream
    from rtml.define.views import StreamFeatureView
    from rtml.errors import LeftOutWarning, NotBuiltWarning, RtmlError

_HOME = {
    **dict.fromkeys(("Event", "Field", "Timestamp"), "rtml.define.contract"),
    **dict.fromkeys(
        ("Count", "First", "Last", "Max", "Mean", "Min", "Stddev", "Sum", "Variance", "Window"), "rtml.define.feature"
    ),
    "EventSource": "rtml.define.source",
    "RedisStream": "rtml.define.stream",
    "Drift": "rtml.define.drift",
    "Entity": "rtml.define.entity",
    "Expect": "rtml.define.expectation",
    "FeatureService": "rtml.define.service",
    "SLA": "rtml.define.sla",
    "LabelSource": "rtml.define.label",
    **dict.fromkeys(("LeftOutWarning", "NotBuiltWarning", "RtmlError"), "rtml.errors"),
    "Spine": "rtml.define.spine",
    "StreamFeatureView": "rtml.define.views",
}

__all__ = [
    "SLA",
    "Count",
    "Drift",
    "Entity",
    "Event",
    "EventSource",
    "Expect",
    "FeatureService",
    "Field",
    "First",
    "LabelSource",
    "Last",
    "LeftOutWarning",
    "Max",
    "Mean",
    "Min",
    "NotBuiltWarning",
    "RedisStream",
    "RtmlError",
    "Spine",
    "Stddev",
    "StreamFeatureView",
    "Sum",
    "Timestamp",
    "Variance",
    "Window",
]


def __getattr__(name: str) -> Any:
    """Load a name of the definition language from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'rtml' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
