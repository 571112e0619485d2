"""How states come from ordered events: fast for families known here, by `lift` and `combine` for all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rtml.algebra.binned import Bins
from rtml.algebra.extremes import Extreme
from rtml.algebra.family import EVENT_TIME, ID64, Array, Events, Lane, States
from rtml.algebra.states import StateSchema
from rtml.point_in_time.blocks import Fold
from rtml.point_in_time.ranges import bites, expand, gather, reduce

_BLOCK = 16
_N, _MEAN, _M2, _SUM = "n", "mean", "m2", "sum"


class SumFold(Fold):
    """Sums of floats."""

    block = 2 * _BLOCK

    def __init__(self, padded: Array) -> None:
        self.padded = padded

    def empties(self, count: int) -> dict[str, Array]:
        """Nothing."""
        return {_SUM: np.zeros(count)}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Add up."""
        return {_SUM: reduce(np.add, self.padded, lo, hi)}

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Add."""
        return {_SUM: earlier[_SUM] + later[_SUM]}


class ExtremeFold(Fold):
    """Least or greatest values."""

    block = 2 * _BLOCK

    def __init__(self, family: Extreme, padded: Array) -> None:
        (self.name, self.dtype), *_ = family.columns.items()
        self.identity = family.empty[self.name]
        self.best: np.ufunc = np.minimum if family.code == "min" else np.maximum
        self.padded = padded

    def empties(self, count: int) -> dict[str, Array]:
        """What every value beats."""
        return {self.name: np.full(count, self.identity, dtype=self.dtype)}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Keep the best."""
        return {self.name: reduce(self.best, self.padded, lo, hi)}

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Keep the better."""
        return {self.name: self.best(earlier[self.name], later[self.name])}


class SpreadFold(Fold):
    """Means and sums of powers of the distances from them, with their weights, up to the `highest` power.

    Two passes over few events; above, Chan's merge, and Pébay's for the higher moments.
    """

    block = _BLOCK

    def __init__(self, padded: Array, highest: int = 2) -> None:
        self.padded = padded.astype(np.float64, copy=False)
        self.moments = [f"m{power}" for power in range(2, highest + 1)]

    def empties(self, count: int) -> dict[str, Array]:
        """Weightless."""
        return {name: np.zeros(count) for name in (_N, _MEAN, *self.moments)}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Measure from each range's first value, then from its mean."""
        states = {name: np.empty(len(lo)) for name in (_N, _MEAN, *self.moments)}
        states[_N][:] = hi - lo
        for some in bites(lo, hi):
            lengths, weight = hi[some] - lo[some], states[_N][some]
            values, starts = gather(self.padded, lo[some], hi[some])
            origin = values[starts]
            values -= np.repeat(origin, lengths)
            shift = np.add.reduceat(values, starts) / weight
            values -= np.repeat(shift, lengths)
            states[_MEAN][some] = origin + shift
            power = values
            for name in self.moments:
                power = power * values
                states[name][some] = np.add.reduceat(power, starts)
        return states

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Move both sides to the common mean."""
        weight = earlier[_N] + later[_N]
        share = later[_N] / np.maximum(weight, 1.0)
        apart = later[_MEAN] - earlier[_MEAN]
        # Where one side is empty its mean is 0 and its share 0 or 1: the product below is nothing, however far apart.
        between = apart * (apart * (earlier[_N] * share))
        mean = np.where(earlier[_N] >= later[_N], earlier[_MEAN] + apart * share, later[_MEAN] - apart * (1.0 - share))
        merged = {_N: weight, _MEAN: mean, _M2: earlier[_M2] + later[_M2] + between}
        if len(self.moments) > 1:
            sides = (_moved(earlier, -apart * share, self.moments), _moved(later, apart * (1 - share), self.moments))
            merged |= {name: sides[0][name] + sides[1][name] for name in self.moments[1:]}
        return merged


def _moved(states: States, by: Array, moments: Sequence[str]) -> dict[str, Array]:
    """Return the moments above the second, around what lies so far below the means."""
    weight, m2 = states[_N], states[_M2]
    by = np.where(weight > 0, by, 0.0)
    moved = {"m3": states["m3"] + by * (3 * m2 + weight * by**2)}
    if "m4" in moments:
        moved["m4"] = states["m4"] + by * (4 * states["m3"] + by * (6 * m2 + weight * by**2))
    return moved


class BinsFold(Fold):
    """Numbers of values between edges."""

    def __init__(self, family: Bins, padded: Array) -> None:
        self.names = family.names
        self.bins = family.places(padded).astype(np.uint8)
        self.block = max(_BLOCK, 1 << (2 * len(self.names)).bit_length())  # the tree: no more than 8 bytes a value

    def empties(self, count: int) -> dict[str, Array]:
        """None."""
        return {name: np.zeros(count, dtype=np.int64) for name in self.names}

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Count."""
        states, width = self.empties(len(lo)), len(self.names)
        for some in bites(lo, hi):
            bins, starts = gather(self.bins, lo[some], hi[some])
            cells = np.repeat(np.arange(len(starts)) * width, hi[some] - lo[some]) + bins
            counts = np.bincount(cells, minlength=len(starts) * width).reshape(-1, width)
            for place, name in enumerate(self.names):
                states[name][some] = counts[:, place]
        return states

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Add."""
        return {name: earlier[name] + later[name] for name in self.names}


class AnyFold(Fold):
    """The states of any families, by their own `lift` and `combine`."""

    def __init__(self, schema: StateSchema, events: pl.DataFrame, order: Array) -> None:
        self.schema = schema
        self.order = order
        self.time, self.id64 = events[EVENT_TIME].to_numpy(), events[ID64].to_numpy()
        self.lanes = {
            name: Lane(events[name].fill_null(0).to_numpy(), events[name].is_not_null().to_numpy())
            for name in {family.column for family in schema.families if family.column}
        }
        # Wide states, such as sketches, in larger blocks, so that the tree is no larger than the events.
        self.block = max(_BLOCK, 1 << (schema.size // 4).bit_length())

    def empties(self, count: int) -> dict[str, Array]:
        """Identities."""
        return self.schema.empties(count)

    def direct(self, lo: Array, hi: Array) -> dict[str, Array]:
        """Lift each event, and combine."""
        states = self.schema.empties(len(lo))
        for some in bites(lo, hi):
            places, starts = expand(lo[some], hi[some])
            rows = self.order[places]
            lanes = {name: Lane(lane.values[rows], lane.valid[rows]) for name, lane in self.lanes.items()}
            lifted = self.schema.lift(Events(self.time[rows], self.id64[rows], lanes))
            for name, column in self.schema.combine(lifted, starts).items():
                states[name][some] = column
        return states

    def merge(self, earlier: States, later: States) -> dict[str, Array]:
        """Combine in pairs."""
        return merge_pairs(self.schema, earlier, later)


def merge_pairs(schema: StateSchema, earlier: States, later: States) -> dict[str, Array]:
    """Combine states row by row."""
    count = len(earlier[schema.names[0]])
    if not count:
        return schema.empties(0)
    pairs = schema.empties(2 * count)
    for name, column in pairs.items():
        column[0::2], column[1::2] = earlier[name], later[name]
    return schema.combine(pairs, np.arange(0, 2 * count, 2))
