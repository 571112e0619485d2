"""Tiles: the ladder of aligned intervals, and which of them answer a window.

The ladder is Chronon's `Resolution` with one rule for all sizes; the cover is what a window `[a, b)` needs of an
adaptive tile tree (design §6), where an interval holds either its raw records or a state with finer children.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from rtml.algebra.family import Array
from rtml.errors import DefinitionError
from rtml.instants import DAY, HOUR, MINUTE, SECOND, Duration, Instant, format_duration

if TYPE_CHECKING:
    import polars as pl

LIFETIME: Duration = 1 << 62
"""The length of a window without a left edge: longer than any history, and no instant less it overflows."""

At = TypeVar("At", Instant, Array, "pl.Expr")
"""One instant, many, or a column of them."""


class Tile(NamedTuple):
    """One aligned interval: the `index`-th of its level, counted from the epoch."""

    level: int
    index: int  # type: ignore[assignment]  # a field, not tuple's method


class Window(NamedTuple):
    """What of the past a value covers: its length, whether its left edge is exact, and how far before `at` it ends."""

    length: Duration
    exact: bool
    offset: Duration = 0

    @property
    def lifetime(self) -> bool:
        """Whether it has no left edge."""
        return self.length == LIFETIME

    @property
    def reach(self) -> Duration:
        """How far before the instant it begins, but for the flooring of its edges."""
        return self.length + self.offset

    @property
    def label(self) -> str:
        """How it reads in a feature's name."""
        length = "lifetime" if self.lifetime else format_duration(self.length)
        return f"{length}_offset_{format_duration(self.offset)}" if self.offset else length

    def edges(self, at: At, finest: Duration) -> tuple[At, At]:
        """Return `[a, b)` at an instant.

        `b` is the instant itself, and `a` exact to the microsecond or floored to the finest tile; of an offset window
        both edges are floored. A lifetime window begins before all events.
        """
        start = at - self.reach
        if self.exact:
            return start, at
        return start // finest * finest, (at - self.offset) // finest * finest if self.offset else at


@dataclass(frozen=True)
class Ladder:
    """Tile sizes in microseconds, finest first, each a multiple of the one before, the coarsest dividing a day."""

    sizes: tuple[Duration, ...]

    def __post_init__(self) -> None:
        """Refuse a ladder whose steps do not nest."""
        shown = [format_duration(size) for size in self.sizes]
        if not self.sizes or self.sizes[0] < SECOND:
            raise DefinitionError(f"a ladder needs sizes of at least 1s; got {shown}")
        for finer, coarser in zip(self.sizes, self.sizes[1:], strict=False):
            if coarser % finer or coarser <= finer:
                raise DefinitionError(f"each tile size must be a multiple of the one before; got {shown}")
        if DAY % self.sizes[-1]:
            raise DefinitionError(f"the coarsest tile must divide a day, as partitions do; got {shown}")

    @classmethod
    def default(cls, windows: Iterable[Duration]) -> Ladder:
        """Return the ladder of design §4 for windows of these lengths."""
        lengths = sorted(windows)
        shortest, longest = lengths[0], lengths[-1]
        finest = 10 * SECOND if shortest < 6 * MINUTE else MINUTE if shortest < 30 * MINUTE else 5 * MINUTE
        coarser = [size for size in (5 * MINUTE, HOUR, DAY) if finest < size <= longest]
        if finest == MINUTE:
            coarser = [size for size in coarser if size != 5 * MINUTE]
        return cls((finest, *coarser))

    @property
    def finest(self) -> Duration:
        """The smallest size."""
        return self.sizes[0]

    @property
    def coarsest(self) -> Duration:
        """The largest size."""
        return self.sizes[-1]

    @property
    def top(self) -> int:
        """The coarsest level's number; the finest is 0."""
        return len(self.sizes) - 1

    def tile(self, level: int, instant: Instant) -> Tile:
        """Return the tile of a level that holds an instant."""
        return Tile(level, instant // self.sizes[level])

    def start(self, tile: Tile) -> Instant:
        """Return a tile's first instant."""
        return tile.index * self.sizes[tile.level]

    def end(self, tile: Tile) -> Instant:
        """Return the first instant after a tile."""
        return (tile.index + 1) * self.sizes[tile.level]


class Cover(NamedTuple):
    """What answers a set of windows: tiles to read, and finest tiles whose raw records cross an edge."""

    tiles: tuple[Tile, ...]
    raw: tuple[int, ...]


def tail_cover(ladder: Ladder, spans: Sequence[tuple[Instant, Instant]]) -> Cover:
    """Return the tiles of spans `[a, b)`: all at the top level, then down the left edge of each.

    The tile that `b` cuts is taken whole when nothing in it is as late as `b`; else `head_cover` tells the rest.
    """
    tiles: set[Tile] = set()
    raw: set[int] = set()
    for a, b in spans:
        tiles.update(_between(ladder, ladder.top, a, b))
        for level in range(ladder.top, 0, -1):
            if a % ladder.sizes[level] == 0:
                break
            edge = ladder.end(ladder.tile(level, a))
            tiles.update(_between(ladder, level - 1, a, min(b, edge)))
        if a % ladder.finest:
            raw.add(max(0, a) // ladder.finest)
    return Cover(tuple(sorted(tiles)), tuple(sorted(raw)))


def head_cover(ladder: Ladder, b: Instant) -> Cover:
    """Return the tiles below the top that a span's right edge needs when it cuts a tile with later events."""
    tiles: set[Tile] = set()
    for level in range(ladder.top, 0, -1):
        tiles.update(_between(ladder, level - 1, ladder.start(ladder.tile(level, b)), b))
    raw = (b // ladder.finest,) if b % ladder.finest else ()
    return Cover(tuple(sorted(tiles)), raw)


def _between(ladder: Ladder, level: int, a: Instant, b: Instant) -> Iterable[Tile]:
    size = ladder.sizes[level]
    first = max(0, a // size)  # there are no events before the epoch
    return (Tile(level, index) for index in range(first, -(-b // size)))
