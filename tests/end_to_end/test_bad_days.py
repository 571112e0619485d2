"""Three bad days of real flights: a feed that loses values, one that changes its unit, and an hour sent twice.

Each is caught by a check that the example itself asks for, before it reaches `tiles/`, and mended from quarantine; then
every feature is the oracle's answer over the flights as they were.
"""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from examples.flights import data
from rtml.columns import TIMESTAMP
from rtml.instants import MINUTE, to_instant
from rtml.lake import Lake
from rtml_assets.defs.materialize import CompactionError, hasty_sqlite
from rtml_assets.runtime.quarantine import Asked, run_replay
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.land import land
from rtml_assets.tables.quarantine import held, refused, summary
from rtml_assets.testing import LocalPlatform
from streaming.gate import id64
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
    wrong = pl.col("event_time").dt.hour().is_between(19, 20)
    return events.with_columns(pl.when(wrong).then(pl.col("dep_delay") / 60).otherwise("dep_delay").alias("dep_delay"))


def messages_to_minutes(rows):
    bodies = [json.loads(payload) for payload in rows["payload"]]
    fixed = [json.dumps({**body, "dep_delay": body["dep_delay"] / 60}) for body in bodies]
    return rows.with_columns(payload=pl.Series(fixed))
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


CHECKS = ["dep_delay_known", "dep_delay_in_minutes", "take_off_once"]
"""By which check of `examples.flights.features` each of the bad days is caught."""


def caught(error: CompactionError) -> dict[date, str]:
    """Return by which check of `events/` each day was kept from being built."""
    found = re.findall(r"check '(\w+)' of events/departures: (\S+): expect_", str(error))
    assert len(found) == len({day for _, day in found}), error
    return {date.fromisoformat(day): check for check, day in found}


def built(platform: LocalPlatform, table: str) -> list[date]:
    return list(rows_by_day(open_table(f"{platform.lake}/{table}")))


def all_tiles(platform: LocalPlatform) -> list[date]:
    (days,) = {tuple(built(platform, f"tiles/{view}")) for view in platform.registry.views}
    return list(days)


def test_three_bad_days_are_caught_and_mended(tmp_path: Path) -> None:
    features, fixes = tmp_path / "features.py", tmp_path / "fixes.py"
    features.write_text(FEATURES)
    fixes.write_text(FIXES)
    flights = data.departures(GOOD, TWICE + timedelta(days=1))
    with hasty_sqlite(), LocalPlatform(str(features)) as platform:
        lake, source = Lake(platform.lake), platform.registry.source("departures")
        came, midnight = spoiled(flights), datetime(2013, 2, 5, tzinfo=UTC)
        land(lake, platform.client, source, came.filter(pl.col("ingested_at") < midnight), until=midnight)
        platform.send("departures", came.filter(pl.col("ingested_at") >= midnight), ingested_at="ingested_at")
        platform.settle()
        with pytest.raises(CompactionError) as failed:
            platform.compact()
        assert caught(failed.value) == dict(zip([LOST, SECONDS, TWICE], CHECKS, strict=True))
        assert built(platform, "events/departures") == all_tiles(platform) == [GOOD]
        waiting = held(lake, source).with_columns(pl.col("payload").cast(pl.String))
        lost = waiting.filter(reason="check:dep_delay_known")["payload"]
        assert (len(lost), lost.str.json_path_match("$.dep_delay").null_count()) == (135, 135)
        twice = waiting.filter(reason="check:take_off_once")["payload"].str.json_path_match("$.event_id")
        assert (len(twice), twice.str.starts_with("again-").all()) == (47, True)

        told = mend(platform, Asked(check="dep_delay_known", fix=f"{fixes}:as_recorded"))
        assert f"built {LOST} in" in told
        assert f"held by checks still: {SECONDS}, {TWICE}" in told
        assert built(platform, "events/departures") == all_tiles(platform) == [GOOD, LOST]
        mend(platform, Asked(check="dep_delay_in_minutes", day=str(SECONDS), fix=f"{fixes}:to_minutes"))
        assert refused(lake, source)["reason"].unique().to_list() == ["out_of_range"]
        mend(platform, Asked(reason="out_of_range", fix=f"{fixes}:messages_to_minutes"))
        told = mend(platform, Asked(check="take_off_once", drop=True))
        assert "held by checks" not in told
        assert set(summary(lake, source)["state"]) == {"replayed"}
        assert built(platform, "events/departures") == all_tiles(platform) == DAYS
        served(platform, "departures")
        check_all(platform, flights)
        audit = pl.read_delta(f"{platform.lake}/audit")
        assert audit.select("action", "target", "outcome").unique().rows() == [
            ("quarantine.replay", "departures", "done")
        ]
        assert audit.height == 4


def mend(platform: LocalPlatform, asked: Asked) -> str:
    """Run `rtml quarantine replay`, and return what it said."""
    told, source = io.StringIO(), platform.registry.source("departures")
    run_replay(Console(file=told, width=200), platform.settings, platform.registry, source, asked, "")
    return told.getvalue()


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
                    window = oracle.window(events, entity, instant, feature.window, floor, feature.offset)
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
