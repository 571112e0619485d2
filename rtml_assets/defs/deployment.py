"""What the assets are generated from, and where they work: the registry and the settings of one process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rtml.define.views import StreamFeatureView
from rtml.lake import Lake
from rtml.plan import Plan
from rtml.registry import Registry
from rtml.settings import Settings
from streaming.broker import connect

if TYPE_CHECKING:
    from redis import Redis

REDIS_TIMEOUT = 30.0
"""Seconds: a run may wait for Redis longer than a request."""


@dataclass(frozen=True)
class Deployment:
    """A project's definitions, its lake and its Redis."""

    settings: Settings
    registry: Registry

    @cached_property
    def lake(self) -> Lake:
        """The lake."""
        return Lake(self.settings.lake_root)

    def plan(self, view: StreamFeatureView) -> Plan:
        """Return a view's plan."""
        return self.registry.plans[view.name]

    def plans_of(self, source: str) -> list[Plan]:
        """Return the plans of a source's views."""
        return [self.plan(view) for view in self.registry.views_of(source)]

    def redis(self, timeout: float = REDIS_TIMEOUT) -> Redis:
        """Return a new client; use it as a context manager."""
        return connect(self.settings, timeout=timeout)
