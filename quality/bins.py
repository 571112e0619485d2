"""Two samples counted over the same bins: those that are compared, and those that people look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quality.chance import Counts

BINS = 10
"""So many bins hold a like share of the reference each, where its values do not repeat."""
FEW = 20
"""Numbers of at most so many different values are categories."""
_LARGE = 1e307
BARS = 24
"""A histogram has so many bars at most."""

Values = NDArray[Any]
"""Numbers without nulls, NaNs or infinities; or text."""


@dataclass(frozen=True)
class Histogram:
    """Two samples as bars: the share of each that falls there, and what the bars are."""

    labels: tuple[str, ...]
    """The values, where each bar is one; else the two ends of the axis."""
    now: tuple[float, ...]
    then: tuple[float, ...]

    @property
    def is_of_values(self) -> bool:
        """Whether each bar is one value."""
        return len(self.labels) == len(self.now)


NOTHING = Histogram((), (), ())


@dataclass(frozen=True)
class Bins:
    """Bins that a reference sets.

    Its deciles cut the bins, each closed on the right. A value that is a tenth of the reference or more, and each one
    of at most 20 different values, has a bin of its own, so that ties move nothing; what lies between two such values,
    or outside all, has bins as well, which the reference leaves empty.
    """

    cuts: Values
    own: NDArray[np.bool_]
    """Whether what equals a cut has a bin of its own."""

    @classmethod
    def of(cls, then: Values) -> Bins:
        """Return the bins of a reference."""
        values, counts = np.unique(then, return_counts=True)
        if len(values) <= FEW:
            return cls(values, np.ones(len(values), dtype=bool))
        if then.dtype.kind in "US":
            cuts = np.sort(values[np.argsort(-counts, kind="stable")[:FEW]])
            return cls(cuts, np.ones(len(cuts), dtype=bool))
        cuts = np.unique(np.quantile(then, np.arange(1, BINS) / BINS, method="inverted_cdf"))
        return cls(cuts, counts[np.searchsorted(values, cuts)] * BINS >= len(then))

    @property
    def size(self) -> int:
        """How many places there are."""
        return 2 * len(self.cuts) + 1

    def places(self, sample: Values) -> NDArray[np.int64]:
        """Return each value's bin: 2i+1 for what equals the cut i and has a bin of its own, else the 2i before it."""
        left, right = np.searchsorted(self.cuts, sample, "left"), np.searchsorted(self.cuts, sample, "right")
        places = (left + right).astype(np.int64)
        at_cut = right > left
        places[at_cut] -= ~self.own[left[at_cut]]
        return places


def counted(now: Values, then: Values) -> tuple[Counts, Counts]:
    """Count both samples over the bins that the reference sets."""
    bins = Bins.of(then)
    return _counts(bins, now), _counts(bins, then)


def _counts(bins: Bins, sample: Values) -> Counts:
    return np.bincount(bins.places(sample), minlength=bins.size).astype(np.int64)


def psi(now: Counts, then: Counts) -> float:
    """Return the population stability index of two histograms over the same bins.

    An empty bin of one of them counts as half an observation, so that the index is finite; empty bins of both do not
    count at all.
    """
    some = (now > 0) | (then > 0)
    p, q = (np.maximum(side[some], 0.5) / side.sum() for side in (now, then))
    return float(np.sum((p - q) * np.log(p / q)))


def histogram(now: Values, then: Values) -> Histogram:
    """Return bars for people: one a value where there are few, else of equal width between the outermost percents."""
    values = np.unique(np.concatenate([now, then]))
    if len(values) <= FEW or values.dtype.kind in "US":
        return _of_values(now, then, values)
    both = np.concatenate([now, then])
    unit = 1.0 if np.abs(both).max() < _LARGE else 0.25  # of the largest numbers there are, differences are not finite
    low, high = (float(end) for end in np.quantile(both * unit, [0.01, 0.99]))
    if low == high:
        low, high = float(values[0]) * unit, float(values[-1]) * unit
    edges = np.linspace(low, high, BARS + 1)
    bars = [_shares(np.histogram(np.clip(side * unit, low, high), edges)[0]) for side in (now, then)]
    low, high = low / unit, high / unit
    return Histogram((f"{low:.4g}", f"{high:.4g}"), *bars)


def _of_values(now: Values, then: Values, values: Values) -> Histogram:
    """Return a bar for each value; of very many those that are most."""
    sides = [np.bincount(np.searchsorted(values, side), minlength=len(values)) for side in (now, then)]
    most = np.sort(np.argsort(-np.maximum(*sides), kind="stable")[:BARS])
    labels = tuple(str(value) if values.dtype.kind in "US" else f"{float(value):.6g}" for value in values[most])
    return Histogram(labels, *(_shares(side, most) for side in sides))


def _shares(counts: NDArray[Any], chosen: NDArray[Any] | slice = slice(None)) -> tuple[float, ...]:
    return tuple(float(share) for share in counts[chosen] / max(counts.sum(), 1))
