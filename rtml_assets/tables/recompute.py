"""Logged vectors beside what an offline recompute gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quality.approximate import judged, reference
from quality.parity import Compared, agreement, allowed, exact, magnitude, or_zero, with_magnitudes
from rtml.algebra.family import Array, Values
from rtml.lake import of_view
from rtml.plan import Plan, PlannedFeature
from rtml.point_in_time.join import point_in_time
from rtml.values import from_series, put_rows, take_rows

SEALED, NEXT_LATE = "__sealed", "__next_late"
"""Of a row of the spine: before when all that was ingested had been seen; and up to when late events had been published
after the next publication."""


@dataclass(frozen=True)
class Vectors:
    """One view's part of logged vectors, and what is needed to compute them anew.

    `events` has `known_at`, `late` and magnitudes; `spine`, row by row as `rows`, what `point_in_time` wants, `SEALED`
    and `NEXT_LATE`.
    """

    plan: Plan
    events: pl.DataFrame
    spine: pl.DataFrame
    rows: pl.DataFrame


def recomputed(given: Vectors) -> list[Compared]:
    """Return every feature as it was logged and as it is computed now."""
    plan, rows = given.plan, given.rows
    truth = point_in_time(with_magnitudes(plan), given.events, given.spine)
    compared = []
    for feature in plan.features:
        expected = truth[feature.name]
        bound = np.zeros(rows.height)
        if not exact(feature):
            size = or_zero(truth[magnitude(feature)])
            bound = allowed(feature.aggregate, feature.kind, or_zero(expected), size, feature.parameters)
        name = of_view(plan.view, feature.name)
        got, judge = _logged(feature, rows[name]), reference(feature)
        near = None if judge is None else judged(feature, [got, expected], truth[judge.name])
        compared.append(Compared(name, got, expected, bound, near))
    return compared


def agreeing(compared: Sequence[Compared]) -> Array:
    """Return the rows of which all features agree."""
    return np.asarray(np.logical_and.reduce([agreement(one) for one in compared]))


def replaced(one: Compared, rows: Array, two: Compared, places: Array) -> Compared:
    """Return a feature with some rows expected as they are elsewhere, at `places`."""
    expected, bound = take_rows(one.expected, np.arange(len(one.allowed))), one.allowed.copy()
    put_rows(expected, rows, take_rows(two.expected, places))
    bound[rows] = two.allowed[places]
    near = None if one.judged is None or two.judged is None else one.judged.copy()
    if near is not None and two.judged is not None:
        near[rows] = two.judged[places]
    return Compared(one.feature, one.got, expected, bound, near)


def _logged(feature: PlannedFeature, column: pl.Series) -> Values:
    return from_series(column, feature.output)
