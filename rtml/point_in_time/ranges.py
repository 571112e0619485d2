"""Ranges of positions `[lo, hi)`: the events of a window, once events are in order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rtml.algebra.family import Array

_PAIRS = 1 << 21
"""How many (range, position) pairs are expanded at a time."""


def expand(lo: Array, hi: Array) -> tuple[Array, Array]:
    """Return the positions of all ranges, one after the other, and where each range begins among them."""
    lengths = hi - lo
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    positions = np.repeat(lo - starts, lengths)
    positions += np.arange(len(positions))
    return positions, starts


def gather(values: Array, lo: Array, hi: Array) -> tuple[Array, Array]:
    """Return the values of all ranges, one range after the other, and where each range begins among them."""
    if np.array_equal(lo[1:], hi[:-1]):
        return values[int(lo[0]) : int(hi[-1])].copy(), lo - lo[0]
    positions, starts = expand(lo, hi)
    return values[positions], starts


def bites(lo: Array, hi: Array) -> list[slice]:
    """Cut many ranges into slices of few enough positions to be expanded at once; a range is never cut."""
    total = np.cumsum(hi - lo, dtype=np.int64)
    if not len(total):
        return []
    if total[-1] <= _PAIRS:
        return [slice(0, len(total))]
    cuts = np.searchsorted(total, np.arange(_PAIRS, int(total[-1]), _PAIRS), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [len(total)]])).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def reduce(ufunc: np.ufunc, values: Array, lo: Array, hi: Array) -> Array:
    """Fold the values of each range, none of them empty; `values` has one element more than any range reaches.

    numpy's `reduceat` folds what lies between two ranges as well. Ranges in the order of their left edges have gaps
    that do not overlap, so that costs one more pass over the values at most.
    """
    if np.any(lo[1:] < lo[:-1]):
        order = np.argsort(lo, kind="stable")
        folded = np.empty(len(lo), dtype=values.dtype)
        folded[order] = reduce(ufunc, values, lo[order], hi[order])
        return folded
    if np.array_equal(lo[1:], hi[:-1]):
        return np.asarray(ufunc.reduceat(values[: int(hi[-1])], lo)) if len(lo) else np.empty(0, dtype=values.dtype)
    edges = np.empty(2 * len(lo), dtype=np.int64)
    edges[0::2], edges[1::2] = lo, hi
    return np.asarray(ufunc.reduceat(values[: int(hi.max()) + 1], edges)[::2])
