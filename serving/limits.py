"""Token buckets: how many requests one caller may make, with bounded memory for any number of callers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from math import ceil

MOST_BUCKETS = 10_000
"""Beyond them the callers that were quiet the longest are forgotten: their buckets were full, or nearly."""


class Buckets:
    """A bucket for every caller; each holds `burst` tokens and gains `rate` of them a second.

    Args:
        rate: tokens per second; 0 for no limit.
        burst: how many requests may come at once; by default those of one second.
        clock: seconds that never go back.
    """

    def __init__(self, rate: float, burst: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with full buckets."""
        self._rate = rate
        self._burst = max(1.0, rate if burst is None else burst)
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many callers are remembered."""
        return len(self._held)

    def take(self, caller: str) -> int:
        """Take a token for a request, and return 0; or the whole seconds after which there is one again."""
        if not self._rate:
            return 0
        now = self._clock()
        tokens, at = self._held.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        allowed = tokens >= 1
        self._held[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._held) > MOST_BUCKETS:
            self._held.popitem(last=False)
        return 0 if allowed else max(1, ceil((1 - tokens) / self._rate))
