"""What is examined: a project's settings and definitions, its Redis and lake, and two looks at it as it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtml.instants import Instant
from rtml.lake import Lake
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.watch.report import Report

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class Subject:
    """A project; `first` and `second` are looks some seconds apart, and `now` is the instant of the second."""

    settings: Settings
    registry: Registry
    client: Redis
    lake: Lake
    first: Report
    second: Report
    now: Instant
