"""`rtml stream SOURCE --from INSTANT`: going back in time, which by I1 changes nothing that counted already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtml.define.source import EventSource
from rtml.errors import RequestError
from rtml.instants import BEGINNING, SECOND, now, to_instant, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import Registry
from rtml.settings import Settings
from streaming.adoption import Adoption
from streaming.rewind import oldest, request_rewind
from streaming.table_replay import replay_table

if TYPE_CHECKING:
    from redis import Redis

QUIET_AFTER = 5 * SECOND
"""A flow renews its figures every second."""


def rewind(client: Redis, settings: Settings, registry: Registry, source: EventSource, start: str) -> str:
    """Go back to an instant, and say in words what was done.

    What the stream holds no longer is applied from the lake now; the rest is read again by the flow that starts next.

    Raises:
        InstantError: the instant is none.
        RequestError: a tiles flow of the source runs: the two would take each other's entities.
    """
    since = to_instant(start)
    updated = client.hget(keys.figures(source.name, "tiles"), "updated_at")
    if updated is not None and now() - int(float(updated)) < QUIET_AFTER:
        raise RequestError(f"the tiles flow of {source.name!r} runs: stop it, then start it with --from {start}")
    begins = [oldest(client, source, partition) for partition in range(source.stream.partitions)]
    held_from = max((begin for begin in begins if begin is not None), default=BEGINNING)
    applied = ""
    if held_from > since:
        views = Adoption(client, registry, source, settings.version_grace_us).views
        count = replay_table(client, Lake(settings.lake_root), source, views, start=since, end=held_from)
        applied = f"{count:,} events from the lake, since the stream begins at {to_text(held_from)}; then "
    request_rewind(client, source, since)
    return f"{source.name} goes back to {to_text(since)}: {applied}what the stream holds from there on"
