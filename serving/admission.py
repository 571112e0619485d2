"""Which feature requests a server takes on: no more than it can answer soon.

A server that takes all that comes answers ever later, and in the end too late for everybody. This one measures how long
requests wait before they are read for. While even the luckiest of them have waited longer than the target, for a whole
interval, it is overloaded (the sign that CoDel goes by: a burst passes, a standing queue does not). Then it takes only
so many at once: as many fewer as their wait was too long, and again a few more with every interval in which it was not.
It has recovered after an interval in which nobody was refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter

from rtml.errors import RtmlError
from serving.budget import Budget

INTERVAL_SECONDS = 0.1
"""How long waits are watched before anything is concluded."""
QUIET_SECONDS = 1.0
"""After so long without a request, nothing is concluded from those before."""
LEAST_IN_FLIGHT = 32
"""So many are always taken: what is read in one round trip."""
MOST_CUT, LEAST_CUT, RAISE = 0.5, 0.95, 1.05
"""What the bound is multiplied by after an interval: at the least, at the most, and when waits were short enough."""


class OverloadedError(RtmlError):
    """A request that was not taken on, since the server has more to do than it can."""


class Admission:
    """Counts the feature requests of one server, and refuses those that it cannot answer soon.

    Args:
        target: the seconds that requests may wait before they are read for; 0 for any time.
        most: the most requests in the works; 0 for any number.
        clock: seconds that never go back.
    """

    def __init__(self, target: float, most: int, clock: Callable[[], float] = perf_counter) -> None:
        """Start with nothing to do."""
        self._target, self._clock = target, clock
        self._most: float = most or inf
        self.limit: float = self._most
        """How many requests are taken at once now."""
        self.is_overloaded = False
        self.in_flight = 0
        self._ends = clock() + INTERVAL_SECONDS
        self._least, self._peak, self._refused = inf, 0, 0
        self._expected = 0.0

    def is_full(self) -> bool:
        """Whether a request that comes now is refused, before anything is done for it."""
        self._look()
        if self.in_flight < self.limit:
            return False
        self._refused += 1
        return True

    def enter(self, budget: Budget) -> None:
        """Take on a request that is there as a whole; `leave` must follow.

        Raises:
            OverloadedError: there are enough in the works, or it would only be read for after its time is up.
        """
        if self.is_full():
            raise OverloadedError(f"the server has {self.in_flight} requests in the works, and takes no more for now")
        if self.is_overloaded and self.in_flight and self._clock() + self._expected > budget.until:
            self._refused += 1
            raise OverloadedError(
                f"requests wait {self._expected * 1_000:.0f} ms at present; this one has {budget.seconds * 1_000:g} ms"
            )
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def leave(self) -> None:
        """Let go of a request, answered or not."""
        self.in_flight -= 1

    def began(self, waited: float) -> None:
        """Hear how many seconds a request has waited that is now read for."""
        self._least = min(self._least, waited)

    def _look(self) -> None:
        """Judge an interval, once it is over."""
        now = self._clock()
        if now < self._ends:
            return
        if not self.in_flight and now >= self._ends + QUIET_SECONDS:
            self._least, self._refused = inf, 0  # of another hour: nobody waits now
        least, peak, refused = self._least, self._peak, self._refused
        self._ends = now + INTERVAL_SECONDS
        self._least, self._peak, self._refused = inf, self.in_flight, 0
        self._expected = 0.0 if least == inf else least
        if not self._target or least == inf:
            # Nothing was begun: nothing is known of waits, and nobody has waited in vain but for Redis.
            self._recover(refused)
        elif least > self._target:
            self.is_overloaded = True
            cut = min(max(self._target / least, MOST_CUT), LEAST_CUT)
            self.limit = min(self._most, max(LEAST_IN_FLIGHT, min(self.limit, peak) * cut))
        elif self.is_overloaded:
            self.limit = min(self._most, self.limit * RAISE)
            self._recover(refused)

    def _recover(self, refused: int) -> None:
        if self.is_overloaded and not refused:
            self.is_overloaded, self.limit = False, self._most
