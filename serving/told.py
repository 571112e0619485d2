"""The edges of windows as they travel over HTTP, for those who ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from rtml.edges import Edges
from rtml.instants import to_text


class ToldEdges(msgspec.Struct):
    """What one feature's values of this answer cover, and by how much they may be off."""

    start: Annotated[str | None, Meta(description="The first instant of the window, RFC 3339; null: all on record.")]
    end: Annotated[str, Meta(description="The first instant after the window, RFC 3339.")]
    exact: Annotated[bool, Meta(description="Whether these are the edges that the feature's name says, to the µs.")]
    bound: Annotated[str | None, Meta(description="By how much the values may be off where they are not exact.")]


def told(edges: Mapping[str, Edges]) -> dict[str, ToldEdges]:
    """Return the features' edges as they travel."""
    return {
        name: ToldEdges(None if one.start is None else to_text(one.start), to_text(one.end), one.exact, one.bound)
        for name, one in edges.items()
    }
