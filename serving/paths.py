"""Paths that name something. The guard and the routes read them here, so that both see the same in every spelling."""

from __future__ import annotations

FEATURES, EVENTS, HEARTBEATS = "/v1/features/", "/v1/events/", "/v1/heartbeats/"


def named(prefix: str, path: str) -> str | None:
    """Return the name behind a prefix, if a path is that and nothing more.

    The server has decoded the path, once: what is still percent-escaped is part of the name.
    """
    if not path.startswith(prefix):
        return None
    name = path[len(prefix) :]
    return None if "/" in name else name
