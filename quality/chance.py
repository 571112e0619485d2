"""Distances between two samples, and how likely chance alone makes them so large: SciPy's own functions, typed.

SciPy's statistics take a second and a half to import: they are loaded when something is compared.
"""

# ruff: noqa: PLC0415
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def ks(now: NDArray[Any], then: NDArray[Any]) -> tuple[float, float]:
    """Return the two-sample Kolmogorov-Smirnov distance D, and its p-value in the limit of large samples.

    Each of the samples has at least two values.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(now, then, method="asymp")
    return float(found.statistic), float(found.pvalue)


def js_distance(now: Counts, then: Counts) -> float:
    """Return the Jensen-Shannon distance of two histograms over the same bins: 0 where equal, 1 where disjoint."""
    from scipy.spatial.distance import jensenshannon

    if np.array_equal(now * int(then.sum()), then * int(now.sum())):
        return 0.0  # exactly: the root of a rounding error is 1e-8
    return float(min(1.0, max(0.0, jensenshannon(now, then, base=2))))


def alike(now: Counts, then: Counts) -> float:
    """Return the p-value of Pearson's chi-squared test that two histograms are of one distribution."""
    from scipy.stats import chi2_contingency

    table = np.stack([now, then])
    table = table[:, table.any(axis=0)]
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def as_many(found: int, of: int, share: float) -> float:
    """Return how likely chance alone finds so many, or more, where each is found with a probability."""
    from scipy.stats import binom

    return float(binom.sf(found - 1, of, share))
