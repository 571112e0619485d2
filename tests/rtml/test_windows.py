"""Windows as they are written: offsets, lifetimes, their names, their edges in words and at an instant."""

from __future__ import annotations

from typing import Any

import pytest

from rtml import Count, Rate, Sum, Window, tiles
from rtml.compile import compile_view
from rtml.edges import Edges, bound_of, edges_of
from rtml.errors import DefinitionError
from rtml.instants import DAY, HOUR, MINUTE, to_instant
from rtml.plan import Plan, describe_window
from tests.rtml.test_definitions import view


def test_windows_may_end_before_the_instant_or_have_no_left_edge() -> None:
    made = view(
        features=[
            Count(windows=["lifetime", "3h", Window("3h", offset="24h")]),
            Sum("items", windows=[Window.lifetime(), Window("7d", offset="1d", tail="tile")]),
        ]
    )
    assert {name: feature.window for name, feature in made.resolved.items()} == {
        "count_lifetime": tiles.Window(tiles.LIFETIME, exact=True),
        "count_3h": tiles.Window(3 * HOUR, exact=True),
        "count_3h_offset_24h": tiles.Window(3 * HOUR, exact=False, offset=DAY),
        "items_sum_lifetime": tiles.Window(tiles.LIFETIME, exact=True),
        "items_sum_7d_offset_1d": tiles.Window(7 * DAY, exact=False, offset=DAY),
    }
    plan = compile_view(made)
    assert (plan.longest, plan.longest_exact, plan.reach, plan.lifetime) == (8 * DAY, 3 * HOUR, tiles.LIFETIME, True)
    assert plan.ladder == (5 * MINUTE, HOUR, DAY)
    assert [describe_window(feature.span, plan.tiles) for feature in plan.features] == [
        "lifetime, all that is on record before the instant",
        "3h, exact to the microsecond",
        "3h ending 1d before, both edges floored to 5m",
        "lifetime, all that is on record before the instant",
        "7d ending 1d before, both edges floored to 5m",
    ]
    assert Plan.decode(plan.encode()) == plan


@pytest.mark.parametrize(
    ("window", "tail", "said"),
    [
        (
            Window("3h", tail="exact", offset="24h"),
            None,
            "tail='tile' for '3h_offset_24h': an offset window floors both",
        ),
        (Window("3h", offset="24h"), "exact", "tail='tile' for '3h_offset_24h': an offset window floors both"),
        (Window("3h", offset="7m"), None, r"an offset must be a multiple of the finest tile \(5m\); got '7m'"),
        (Window("31m", offset="1h"), None, r"a window with tail='tile' must be a multiple of the finest tile \(5m\)"),
        (Window("3h", offset="soon"), None, "windows: offset: a duration must look like"),
        (Window("lifetime", offset="1h"), None, "a lifetime window without offset= and tail="),
        (Window("lifetime", tail="exact"), None, "a lifetime window without offset= and tail="),
        ("lifetimes", None, "a duration must look like"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window: str | Window, tail: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        view(features=[Count(windows=[window])], tail=tail)


def test_a_rate_needs_a_length() -> None:
    with pytest.raises(
        DefinitionError, match="rate: windows must be windows with a left edge for 'rate'; got 'lifetime'"
    ):
        view(features=[Rate(windows=["1h", "lifetime"])])


def test_what_an_answer_covers_is_told_for_its_instant() -> None:
    made = view(features=[Count(windows=["3h", "7d", "lifetime", Window("3h", offset="24h")])])
    plan = compile_view(made)
    at = to_instant("2024-03-09T12:02:30Z")
    told = {f.name: edges_of(f, plan.tiles.finest, at) for f in plan.features}
    assert told == {
        "count_3h": Edges(at - 3 * HOUR, at, exact=True, bound=None),
        "count_7d": Edges(to_instant("2024-03-02T12:00:00Z"), at, False, "the window counts up to 5m more"),
        "count_lifetime": Edges(None, at, exact=True, bound=None),
        "count_3h_offset_24h": Edges(
            to_instant("2024-03-08T09:00:00Z"),
            to_instant("2024-03-08T12:00:00Z"),
            False,
            "the window lies up to 5m earlier",
        ),
    }
    aligned = {f.name: edges_of(f, plan.tiles.finest, to_instant("2024-03-09T12:05:00Z")) for f in plan.features}
    assert all(edges.exact and edges.bound is None for edges in aligned.values())
    assert bound_of(plan.feature("count_7d"), plan.tiles.finest) == "the window counts up to 5m more"
