"""The demo's events: what is history when it starts, and what is still to come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import polars as pl

from examples.flights import data
from rtml.define.source import EventSource
from rtml.errors import SettingsError
from rtml.projection import INGESTED_AT

BOUNDARY = datetime(2013, 3, 1, tzinfo=UTC)
"""Published history ends here: what was ingested later follows from the lake or the stream."""
END = datetime(2013, 4, 1, tzinfo=UTC)
ONE_DAY = timedelta(days=1)
_READ: dict[str, Callable[..., pl.DataFrame]] = {"departures": data.departures, "arrivals": data.arrivals}


class Flights(NamedTuple):
    """A source's events, by when they were ingested."""

    history: pl.DataFrame
    until: datetime
    """History holds all that was ingested before this instant."""
    coming: pl.DataFrame


def read_flights(source: EventSource, end: datetime) -> Flights:
    """Return a source's events that were ingested before an instant.

    Raises:
        SettingsError: the package with the flights is not installed.
    """
    stamp = pl.col(INGESTED_AT)
    try:
        events = _READ[source.name](end=end).filter(stamp < end)
    except ModuleNotFoundError as error:
        raise SettingsError(str(error)) from None
    until = BOUNDARY + timedelta(microseconds=source.lateness_us)
    return Flights(
        history=events.filter(stamp < until),
        until=until,
        coming=events.filter(stamp >= until),
    )
