"""The time that one request has, and what it goes by for: its stages.

A deadline counts from when the request came, and bounds all of it: the wait for its body, for the server, for Redis,
and the merge; work for a request whose time is up is not begun. Who sets no deadline waits as long as the server waits
for Redis, first for its turn and then for Redis: a long merge is answered, however long.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from rtml.errors import RtmlError, UnavailableError

if TYPE_CHECKING:
    from serving.tracing import Trace

STAGES = ("queue", "decode", "redis", "merge", "encode")
"""The parts of a feature request. `queue`: from its arrival until work on it begins, but for `decode`. `merge`: working
out what is to be read, and the values from what was read."""
LEAST_MS, MOST_MS = 1, 60_000
"""What `timeout_ms` may be."""


class DeadlineError(RtmlError):
    """A request whose time was up before it was answered."""


class Budget:
    """One request's time, by `perf_counter`; seconds.

    Args:
        arrived: when the request came.
        seconds: how long it may take.
        is_own: whether its caller has set that.
        trace: hears of the stages, too.
    """

    __slots__ = ("arrived", "is_own", "seconds", "spent", "trace", "until")

    def __init__(self, arrived: float, seconds: float, *, is_own: bool = False, trace: Trace | None = None) -> None:
        """Start with nothing spent."""
        self.arrived, self.seconds, self.is_own, self.trace = arrived, seconds, is_own, trace
        self.until = arrived + seconds
        self.spent: dict[str, float] = {}
        """Seconds by stage."""

    def spend(
        self, stage: str, start: float, end: float, shared: int = 1, error: str | None = None, before: float = 0.0
    ) -> None:
        """Note a stage, which `shared` requests had together; `before` are seconds of it that came earlier."""
        self.spent[stage] = self.spent.get(stage, 0.0) + end - start + before
        if self.trace is not None:
            self.trace.add(stage, start, end, shared, error)

    @property
    def has_begun(self) -> bool:
        """Whether it is not in the queue any more."""
        return "queue" in self.spent

    def begin(self, since: float, now: float) -> float:
        """End the queue, in which the decoded request was `since`; return how long it was in all."""
        if self.trace is not None:
            self.trace.add("queue", since, now)
        waited = self.spent["queue"] = max(0.0, now - self.arrived - self.spent.get("decode", 0.0))
        return waited

    def read(self, now: float) -> None:
        """Begin to wait for Redis."""
        if not self.is_own:
            self.until = now + self.seconds

    def is_over(self, now: float, stage: str) -> bool:
        """Whether its time is up, in a stage."""
        return now >= self.until and (self.is_own or stage != "merge")

    def error(self, stage: str, start: float, now: float) -> RtmlError:
        """Return what a request hears whose time was up in a stage that began at `start`.

        One that left it to the server how long to wait for Redis hears that Redis does not answer.
        """
        if stage == "redis" and not self.is_own:
            return UnavailableError(f"Redis did not answer within {self.seconds * 1_000:g} ms")
        spent = {**self.spent, stage: now - start}
        said = ", ".join(f"{name} {spent[name] * 1_000:.1f} ms" for name in STAGES if name in spent)
        return DeadlineError(f"the request had {self.seconds * 1_000:g} ms, which were over in stage {stage!r}: {said}")

    def timings(self) -> dict[str, float]:
        """Return the milliseconds of each stage, so far."""
        return {name: round(self.spent[name] * 1_000, 3) for name in STAGES if name in self.spent}


def budget_of(seconds: float) -> Budget:
    """Return that of a request that comes now."""
    return Budget(perf_counter(), seconds)


def server_timing(timings: dict[str, float]) -> tuple[str, str]:
    """Return the header that browsers and proxies read the stages from (W3C Server Timing)."""
    return "server-timing", ", ".join(f"{stage};dur={spent:g}" for stage, spent in timings.items())
