"""Every alert that there can be: how bad it is, what it means in one sentence, and where its runbook is.

`CATALOG[name]` is an `Entry`; `entry(name)` the same with an error that names the nearest one. Whoever raises an alert
takes its name from here, so that each has a runbook, and a rule in `ops/alerts.yml` where Prometheus can see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtml.errors import UnknownNameError

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Entry:
    """One kind of alert. `severity` is how bad it usually is; a condition may say otherwise of itself."""

    name: str
    severity: Severity
    summary: str

    @property
    def runbook(self) -> str:
        """The page that says what to do, from the repository's root."""
        return f"docs/runbooks/{self.name.replace('_', '-')}.md"


_ENTRIES = (
    Entry("redis_unavailable", "critical", "Redis does not answer: nothing is streamed or served."),
    Entry("redis_memory", "critical", "Redis is nearly full, or would evict what is served."),
    Entry("stream_stalled", "critical", "A flow passes nothing on, not even heartbeats."),
    Entry("stream_restarts", "warning", "A flow's process died and was started again."),
    Entry("stream_lag", "critical", "A flow is further behind its stream than was promised."),
    Entry("freshness", "critical", "Events become servable later than was promised."),
    Entry("refused", "warning", "Too many events break their contract and are quarantined."),
    Entry("late", "warning", "Too many events arrive after their source's lateness."),
    Entry("duplicates", "warning", "Too many events arrive more than once."),
    Entry("nulls", "warning", "A column or feature is null too often."),
    Entry("clock_skew", "warning", "Clocks disagree, or events are stamped in the future."),
    Entry("hot_key", "warning", "One entity has most of a source's events."),
    Entry("serving_latency", "warning", "A service answers more slowly than was promised."),
    Entry("serving_unavailable", "critical", "A service does not answer its requests."),
    Entry("error_budget", "critical", "A promise's error budget is being used up too fast."),
    Entry("disk_full", "critical", "A disk that rtml writes to is nearly full."),
    Entry("lake_unwritable", "critical", "Nothing can be written to the lake."),
    Entry("run_failed", "warning", "A Dagster run failed."),
    Entry("delta_conflict", "warning", "A Dagster run failed since somebody else wrote the same Delta partition."),
    Entry("check_failed", "warning", "An asset check failed."),
    Entry("parity_broken", "critical", "Served values and their offline recompute disagree."),
    Entry("drift", "warning", "A feature's distribution has moved away from what its model knows."),
    Entry("dagster_down", "critical", "Dagster's daemon does not run: no schedule, sensor or backfill does."),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""Every alert by its name."""


def entry(name: str) -> Entry:
    """Return an alert's entry.

    Raises:
        UnknownNameError: there is no such alert.
    """
    try:
        return CATALOG[name]
    except KeyError:
        raise UnknownNameError.of("alert", name, CATALOG) from None
