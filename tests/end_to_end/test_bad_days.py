"""Three bad days of real flights: a feed that loses values, one that changes its unit, and an hour sent twice.

Each is caught by a check before it reaches `tiles/`, and mended from quarantine; then every feature is the oracle's
answer over the flights as they were.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from rich.console import Console

from examples.flights import data
from rtml.columns import TIMESTAMP
from rtml.instants import MINUTE, to_instant
from rtml.lake import EVENT_DATE, Lake
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.runtime.quarantine import Asked, run_replay
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.events import deduplicate
from rtml_assets.tables.land import land
from rtml_assets.tables.quarantine import hold, refused, summary
from rtml_assets.testing import LocalPlatform
from streaming.gate import id64
from streaming.mended import scan_mirrored
from tests import oracle
from tests.end_to_end.test_quarantine import served
from tests.oracle import Event

GOOD, LOST, SECONDS, TWICE = DAYS = [date(2013, 2, 4) + timedelta(days=number) for number in range(4)]
FEATURES = """
from examples.flights.features import carrier_departures, departures, origin_departures
from rtml import FeatureService

punctual = FeatureService("punctual", features=[origin_departures, carrier_departures], log=1, version=1)
"""
FIXES = """
import json

import polars as pl

from examples.flights import data


def as_recorded(events):
    \"\"\"The delays were lost on the way; the airline's record has them.\"\"\"
    record = data.departures("2013-02-05", "2013-02-06").select("event_id", recorded="dep_delay")
    found = events.join(record, on="event_id", how="left")
    return found.with_columns(dep_delay="recorded").drop("recorded")


def to_minutes(events):
    \"\"\"From 19:00 to 21:00 the feed was in seconds.\"\"\"
    return events.with_columns(pl.col("dep_delay") / 60)


def messages_to_minutes(rows):
    bodies = [json.loads(payload) for payload in rows["payload"]]
    fixed = [json.dumps({**body, "dep_delay": body["dep_delay"] / 60}) for body in bodies]
    return rows.with_columns(payload=pl.Series(fixed))


def once(events):
    \"\"\"The first of each flight is the right one.\"\"\"
    return events.sort("ingested_at").unique("flight", keep="first")
"""


def between(day: date, first: int, last: int) -> pl.Expr:
    start, end = (datetime(day.year, day.month, day.day, hour, tzinfo=UTC) for hour in (first, last))
    return (pl.col("event_time") >= start) & (pl.col("event_time") < end)


def spoiled(flights: pl.DataFrame) -> pl.DataFrame:
    """What came instead."""
    delay = pl.col("dep_delay")
    lost = pl.when(~between(LOST, 15, 18)).then(delay)
    sent = flights.with_columns(lost).with_columns(pl.when(between(SECONDS, 19, 21)).then(delay * 60).otherwise(delay))
    again = flights.filter(between(TWICE, 18, 19)).with_columns(
        pl.format("again-{}", "event_id").alias("event_id"), pl.col("ingested_at") + pl.duration(minutes=1)
    )
    return pl.concat([sent, again])


CHECKS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "took_off_with_a_delay": lambda day: day.filter(~pl.col("cancelled"), pl.col("dep_delay").is_null()),
    "hourly_delay_in_minutes": lambda day: day.filter(
        pl.col("dep_delay").abs().mean().over(pl.col("event_time").dt.truncate("1h")) > 300, ~pl.col("cancelled")
    ),
    "one_event_a_flight": lambda day: day.filter(pl.col("flight").is_duplicated()),
}


def inspect(platform: LocalPlatform) -> dict[date, str]:
    """Hold what the checks refuse, and return the days that may not be built, each with the check's name."""
    lake, source = Lake(platform.lake), platform.registry.source("departures")
    events, _ = deduplicate(source, scan_mirrored(lake, source).collect())
    found: dict[date, str] = {}
    for (day,), rows in events.partition_by(EVENT_DATE, as_dict=True).items():
        for name, check in CHECKS.items():
            if hold(lake, source, day, check(rows), name, f"{name} failed"):
                found[day] = name
    return found


def test_three_bad_days_are_caught_and_mended(tmp_path: Path) -> None:
    features, fixes = tmp_path / "features.py", tmp_path / "fixes.py"
    features.write_text(FEATURES)
    fixes.write_text(FIXES)
    flights = data.departures(GOOD, TWICE + timedelta(days=1))
    with LocalPlatform(str(features)) as platform:
        lake, source = Lake(platform.lake), platform.registry.source("departures")
        came, midnight = spoiled(flights), datetime(2013, 2, 5, tzinfo=UTC)
        land(lake, platform.client, source, came.filter(pl.col("ingested_at") < midnight), until=midnight)
        platform.send("departures", came.filter(pl.col("ingested_at") >= midnight), ingested_at="ingested_at")
        platform.settle()
        caught = inspect(platform)
        assert caught == dict(zip([LOST, SECONDS, TWICE], CHECKS, strict=True))
        materialize_days(platform.settings, platform.registry, [day for day in DAYS if day not in caught])
        for view in platform.registry.views:
            assert list(rows_by_day(open_table(lake.tiles(view)))) == [GOOD]
        mend(platform, Asked(check="took_off_with_a_delay", fix=f"{fixes}:as_recorded"))
        mend(platform, Asked(check="hourly_delay_in_minutes", day=str(SECONDS), fix=f"{fixes}:to_minutes"))
        assert refused(lake, source)["reason"].unique().to_list() == ["out_of_range"]
        mend(platform, Asked(reason="out_of_range", fix=f"{fixes}:messages_to_minutes"))
        mend(platform, Asked(check="one_event_a_flight", fix=f"{fixes}:once"))
        assert inspect(platform) == {}
        assert set(summary(lake, source)["state"]) == {"replayed"}
        served(platform, "departures")
        for view in platform.registry.views:
            assert list(rows_by_day(open_table(lake.tiles(view)))) == DAYS
        check_all(platform, flights)
        audit = pl.read_delta(f"{platform.lake}/audit")
        assert audit.select("action", "target", "outcome").unique().rows() == [
            ("quarantine.replay", "departures", "done")
        ]
        assert audit.height == 4


def mend(platform: LocalPlatform, asked: Asked) -> None:
    source = platform.registry.source("departures")
    run_replay(Console(file=io.StringIO()), platform.settings, platform.registry, source, asked, "")


def check_all(platform: LocalPlatform, flights: pl.DataFrame) -> None:
    """Every feature of every airport and airline, online and offline, against the flights as they were."""
    rows = flights.with_columns(pl.col("event_time", "ingested_at").dt.epoch("us")).to_dicts()
    airlines = flights["carrier"].unique().sort().to_list()
    entities = [{"origin": ["EWR", "JFK", "LGA"][n % 3], "carrier": airline} for n, airline in enumerate(airlines)]
    last = to_instant(flights["ingested_at"].max())
    at = [last, last + 1, last - 10 * MINUTE]
    online = pl.concat([platform.store.get_online_features("punctual", entities, at=instant) for instant in at])
    past = [
        *at,
        to_instant("2013-02-05T17:30:00Z"),
        to_instant("2013-02-06T21:00:00Z"),
        to_instant("2013-02-07T19:00Z"),
    ]
    spine = pl.concat(
        [pl.DataFrame(entities).with_columns(pl.lit(instant).cast(TIMESTAMP).alias("timestamp")) for instant in past]
    )
    offline = platform.historical("punctual", spine, known_at="hindsight")
    for key, view in (("origin", "origin_departures"), ("carrier", "carrier_departures")):
        events = [event_of(row, key) for row in rows]
        for feature in platform.registry.plans[view].features:
            floor = 1 if feature.exact else platform.registry.plans[view].tiles.finest
            for instants, got in ((at, online), (past, offline)):
                for row, value in enumerate(got[f"{view}__{feature.name}"]):
                    instant, entity = instants[row // len(entities)], entities[row % len(entities)][key]
                    window = oracle.window(events, entity, instant, feature.window, floor)
                    expected = oracle.value(feature.aggregate, window, feature.column)
                    agrees = oracle.agree(feature.aggregate, value, expected, window, feature.column)
                    assert agrees, f"{view}__{feature.name} of {entity} at {instant}: got {value}, expected {expected}"


def event_of(row: dict[str, object], key: str) -> Event:
    delay = row["dep_delay"]
    assert delay is None or isinstance(delay, float)
    values = {
        "dep_delay": delay,
        "late": None if delay is None else int(delay > 15),
        "cancelled": int(bool(row["cancelled"])),
    }
    name = json.dumps(row["event_id"]).strip('"')
    time, ingested = int(str(row["event_time"])), int(str(row["ingested_at"]))
    return Event(str(row[key]), time, id64(name), ingested, values)
