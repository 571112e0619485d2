"""A day's profile as Dagster shows it: a table of all columns, and a few numbers that are plotted over the days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from quality.profiles import QUANTILES, ColumnProfile

PLOTTED = 12
"""Of so many numbers a page of plots can still be read."""


def profile_figures(profile: Sequence[ColumnProfile]) -> dict[str, Any]:
    """Return a profile as metadata: `nulls/<column>` of what may be null first, then `mean/<column>`."""
    if not profile:
        return {}
    nulls = {f"nulls/{one.column}": one.nulls for one in profile if one.nullable}
    means = {f"mean/{one.column}": one.mean for one in profile if one.mean is not None}
    plotted = dict(list({**nulls, **means}.items())[:PLOTTED])
    return {**plotted, "profile": dg.MetadataValue.md(_table(profile))}


def _table(profile: Iterable[ColumnProfile]) -> str:
    names = ["column", "null", "distinct", "mean", "least", *(f"{quantile:.0%}" for quantile in QUANTILES), "greatest"]
    rows = [_row(one) for one in profile]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])


def _row(one: ColumnProfile) -> list[str]:
    quantiles = one.quantiles or (None,) * len(QUANTILES)
    distinct = "" if one.distinct is None else f"{one.distinct:,}"
    numbers = [one.mean, one.least, *quantiles, one.greatest]
    return [
        f"`{one.column}`",
        f"{one.nulls:.1%}",
        distinct,
        *("" if value is None else f"{value:.5g}" for value in numbers),
    ]
