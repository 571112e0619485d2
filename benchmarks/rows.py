"""One line of the benchmarks' table."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """What was measured, our figure and a peer's, how they compare, what is aimed at and whether that is met."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    aim: str = ""
    verdict: str = ""


def faster(what: str, ours: float, peer: float, aim: float) -> Row:
    """Compare seconds: how many times ours is faster, at least `aim` times."""
    ratio = peer / ours
    return Row(what, f"{ours:.2f} s", f"{peer:.2f} s", f"{ratio:.1f}×", f"≥ {aim:g}×", verdict(ratio >= aim))


def at_most(what: str, figure: str, ratio: float, aim: float) -> Row:
    """Hold a ratio against an upper bound."""
    return Row(what, figure, "", f"{ratio:.2f}×", f"≤ {aim:g}×", verdict(ratio <= aim))


def verdict(met: bool) -> str:
    """Say whether an aim is met."""
    return "met" if met else "missed"
