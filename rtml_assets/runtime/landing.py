"""`rtml land`: history that did not come through the stream."""

from __future__ import annotations

import polars as pl
from rich.console import Console

from rtml import instants
from rtml.define.source import EventSource
from rtml.errors import RequestError
from rtml.lake import Lake
from rtml.settings import Settings
from rtml_assets.cli_common import connected
from rtml_assets.runtime.progress import progress_bar
from rtml_assets.tables.land import land


def land_history(
    console: Console, settings: Settings, source: EventSource, events: pl.DataFrame, until: str | None
) -> None:
    """Append events to `raw/`, with a progress bar; `until` says before when all that arrived is among them.

    Raises:
        RequestError: there are none.
        SendError: they are no history of this source.
    """
    if events.is_empty():
        raise RequestError(f"there are no events of {source.name!r} to land")
    end = None if until is None else instants.to_instant(until)
    with connected(settings) as client, progress_bar(console) as bars:
        bar = bars.add_task(f"landing {source.name}", total=events.height, detail="")
        lake = Lake(settings.lake_root)
        count = land(lake, client, source, events, until=end, progress=lambda done, _: bars.update(bar, completed=done))
    views = "`rtml backfill VIEW`, or the next compaction, builds on them"
    console.print(f"{count:,} events of {source.name} landed: {views}", highlight=False)
