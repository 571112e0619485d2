"""How far the days of a reference lie from each other: what is usual, and so no drift.

Rows of one day are not independent: they are of the same entities, in the same weather. No test that takes them to be
can tell an ordinary Monday from drift; the other days can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quality.bins import Bins, Values, psi
from quality.chance import Counts, js_distance

FEWEST_DAYS = 4
"""Of fewer days nothing is usual."""

Days = NDArray[np.int64]
"""The number of each row's or value's day, from 0."""


def usual(values: Values, days: Days, rows: Counts, least: int) -> dict[str, float]:
    """Return the largest distance of any day from all others together, by measure.

    Args:
        values: the reference's, without nulls.
        days: of which day each value is.
        rows: how many rows each day has, with those that are null.
        least: a day of fewer rows does not count: chance moves it.
    """
    kept = np.bincount(days, minlength=len(rows))
    chosen = np.flatnonzero(rows >= least)
    if len(chosen) < FEWEST_DAYS:
        return {}
    nulls = rows - kept
    others = (nulls.sum() - nulls[chosen]) / (rows.sum() - rows[chosen])
    found = {"nulls": float(np.max(np.abs(nulls[chosen] / rows[chosen] - others)))}
    chosen = np.flatnonzero(kept >= least)
    if len(chosen) < FEWEST_DAYS:
        return found
    return {**found, **_binned(values, days, chosen), **_told_by_values(values, days, chosen)}


def _binned(values: Values, days: Days, chosen: Days) -> dict[str, float]:
    bins = Bins.of(values)
    table = _table(days, bins.places(values), bins.size)
    pairs = [(table[day], table.sum(axis=0) - table[day]) for day in chosen]
    return {"psi": max(psi(*pair) for pair in pairs), "js": max(js_distance(*pair) for pair in pairs)}


def _told_by_values(values: Values, days: Days, chosen: Days) -> dict[str, float]:
    """Return what takes each single value: the largest step between the distributions, and what one day alone has."""
    each, places = np.unique(values, return_inverse=True)
    table = _table(days, places, len(each))
    total = table.sum(axis=0)
    found = {"unseen": 0.0, "ks": 0.0}
    for day in chosen:
        mine, rest = table[day], total - table[day]
        alone = float(mine[rest == 0].sum() / mine.sum() - np.count_nonzero(rest == 1) / rest.sum())
        step = float(np.max(np.abs(np.cumsum(mine) / mine.sum() - np.cumsum(rest) / rest.sum())))
        found = {"unseen": max(found["unseen"], alone), "ks": max(found["ks"], step)}
    return found


def _table(days: Days, places: NDArray[Any], size: int) -> Counts:
    """Count by day and place."""
    count = int(days.max()) + 1
    return np.bincount(days * size + places, minlength=count * size).reshape(count, size).astype(np.int64)
