"""Whether a day has about as many rows as the days before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

LOOKED_AT, LEAST = 28, 7
"""Of so many days before, those that have rows; and so many of them there must be to judge by."""
FACTOR = 3.0


@dataclass(frozen=True)
class Volume:
    """A day's number of rows, and what is usual."""

    day: date
    rows: int
    days: int
    """By how many days it is judged."""
    usual: float | None
    """Their median; None where they are too few."""

    @property
    def passed(self) -> bool:
        """Whether the day lies within a factor of what is usual; one that cannot be judged passes."""
        return self.usual is None or self.usual / FACTOR <= self.rows <= self.usual * FACTOR

    def __str__(self) -> str:
        """Say what was found."""
        if self.usual is None:
            return f"{self.day}: {self.rows:,} rows; not judged: {self.days} days before it have rows, it takes {LEAST}"
        bounds = f"{self.usual / FACTOR:,.0f} to {self.usual * FACTOR:,.0f}"
        return f"{self.day}: {self.rows:,} rows; the {self.days} days before it make {bounds} usual"


def volume_of(counts: Mapping[date, int], day: date) -> Volume:
    """Return how a day's rows compare with those of up to 28 days before it; `counts` are rows by day."""
    before = [counts[past] for number in range(1, LOOKED_AT + 1) if counts.get(past := day - timedelta(days=number))]
    usual = float(median(before)) if len(before) >= LEAST else None
    return Volume(day, counts.get(day, 0), len(before), usual)
