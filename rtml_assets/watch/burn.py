"""Error budgets: how much of what an objective allows is spent, and how fast it burns.

An objective of 0.99 over 30 days allows 1 % of its looks (for availability: of its requests) to be bad. The burn rate
of a window is the share that was bad in it, over the share that is allowed: at 1 the budget is just spent when its
period ends. Minutes that nobody looked at are taken for good, so that a watch that has just begun does not cry at its
first bad look. Two windows must burn at once, as in the Site Reliability Workbook (Google), chapter 5: the long one
says that it matters, the short one that it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtml.instants import DAY, HOUR, MINUTE, Duration, Instant, format_duration

Severity = Literal["critical", "warning"]
Count = tuple[int, int, int]
"""A minute since the epoch, how much was bad in it, how much there was."""


@dataclass(frozen=True)
class Rule:
    """Two windows that burn too fast together."""

    long: Duration
    short: Duration
    rate: float
    severity: Severity


RULES = (
    Rule(HOUR, 5 * MINUTE, 14.4, "critical"),
    Rule(6 * HOUR, 30 * MINUTE, 6.0, "critical"),
    Rule(DAY, 2 * HOUR, 3.0, "warning"),
    Rule(3 * DAY, 6 * HOUR, 1.0, "warning"),
)
"""2 % of a budget of 30 days spent in an hour, 5 % in six, 10 % in a day, and 10 % in three days."""
LONGEST = max(rule.long for rule in RULES)


@dataclass(frozen=True)
class Burn:
    """How an objective's budget stands."""

    left: float
    """The share of the budget that is left; below 0 when more than all is spent."""
    rates: dict[str, float]
    """The burn rate by window, as `1h`."""
    rule: Rule | None
    """The worst rule that is broken."""

    def __str__(self) -> str:
        """Say it in words."""
        worst = self.rule or RULES[0]
        windows = [format_duration(worst.long), format_duration(worst.short)]
        rates = " and ".join(f"{self.rates[window]:.3g}× in {window}" for window in windows)
        return f"{self.left:.1%} of the error budget is left; it burns {rates} (bound {worst.rate:g}×)"


class Minutes:
    """What was counted in each of the last minutes.

    Args:
        length: how many minutes are kept.
        counts: what was counted before.
        now: the present.
    """

    def __init__(self, length: int, counts: Iterable[Count], now: Instant) -> None:
        """Lay out the minutes, the newest last."""
        self._minute = now // MINUTE
        self._bad: NDArray[np.int64] = np.zeros(length, np.int64)
        self._total: NDArray[np.int64] = np.zeros(length, np.int64)
        for at, bad, total in counts:
            place = length - 1 - (self._minute - at)
            if 0 <= place < length:
                self._bad[place], self._total[place] = bad, total

    def add(self, bad: int, total: int, now: Instant) -> None:
        """Count."""
        self.turn(now)
        self._bad[-1] += bad
        self._total[-1] += total

    def turn(self, now: Instant) -> None:
        """Let minutes go by; a clock that went back goes on counting in the newest minute."""
        gone = min(max(0, now // MINUTE - self._minute), self._bad.size)
        self._minute = max(self._minute, now // MINUTE)
        if gone:
            none = np.zeros(gone, np.int64)
            self._bad = np.concatenate([self._bad[gone:], none])
            self._total = np.concatenate([self._total[gone:], none])

    def sums(self, window: Duration) -> tuple[int, int]:
        """Return how much was bad, and how much there was, in the minutes of a window up to now."""
        minutes = window // MINUTE
        return int(self._bad[-minutes:].sum()), int(self._total[-minutes:].sum())


def burn(minutes: Minutes, share: float, budget: Duration, looks: float, rules: Sequence[Rule] = RULES) -> Burn:
    """Judge a series of minutes.

    Args:
        minutes: what was counted.
        share: which share must be good, below 1.
        budget: the period of the budget, in microseconds.
        looks: how many looks a minute has; a minute with fewer is filled up with good ones.
        rules: from the worst to the least.
    """

    def rate(window: Duration) -> float:
        bad, total = minutes.sums(window)
        return bad / max(total, looks * (window // MINUTE), 1) / (1 - share)

    rates = {window: rate(window) for window in sorted({each for rule in rules for each in (rule.long, rule.short)})}
    broken = (rule for rule in rules if min(rates[rule.long], rates[rule.short]) >= rule.rate)
    return Burn(
        1 - rate(budget), {format_duration(window): value for window, value in rates.items()}, next(broken, None)
    )
