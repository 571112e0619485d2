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


def sooner(what: str, ours: float, peer: float, aim: float) -> Row:
    """Compare latencies in seconds, shown in milliseconds: how many times ours is shorter, at least `aim` times."""
    ratio = peer / ours
    return Row(what, milliseconds(ours), milliseconds(peer), f"{ratio:.2f}×", f"≥ {aim:g}×", verdict(ratio >= aim))


def more(what: str, unit: str, ours: float, peer: float, aim: float) -> Row:
    """Compare rates: how many times ours is higher, at least `aim` times."""
    ratio = ours / peer
    figures = (f"{ours:,.0f} {unit}", f"{peer:,.0f} {unit}")
    return Row(what, *figures, f"{ratio:.2f}×", f"≥ {aim:g}×", verdict(ratio >= aim))


def within(what: str, ours: float, aim: float, peer: str = "") -> Row:
    """Hold seconds, shown in milliseconds, against an upper bound of theirs."""
    return Row(what, milliseconds(ours), peer, "", f"≤ {milliseconds(aim)}", verdict(ours <= aim))


def at_most(what: str, figure: str, ratio: float, aim: float, peer: str = "") -> Row:
    """Hold a ratio against an upper bound."""
    return Row(what, figure, peer, f"{ratio:.2f}×", f"≤ {aim:g}×", verdict(ratio <= aim))


def alone(what: str, ours: str, aim: str, reason: object) -> Row:
    """Show a figure that has no peer's beside it, and why."""
    return Row(what, ours, aim=aim, verdict=f"not compared: {reason}")


def verdict(met: bool) -> str:
    """Say whether an aim is met."""
    return "met" if met else "missed"


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, to three digits."""
    value = seconds * 1_000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
