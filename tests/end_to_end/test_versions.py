"""From edit to promoted and back: a changed definition beside the one that is served, over real streams and history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from rtml.errors import NotReadyError, RequestError
from rtml.instants import DAY, HOUR, to_datetime
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.runtime.diff import diff
from rtml_assets.tables.catch_up import catch_up
from rtml_assets.tables.land import land
from rtml_assets.testing import LocalPlatform
from streaming.services import read_services
from streaming.versions import live_names, version_names
from tests.end_to_end.rides import CITIES, START, check, define, newest, rides


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform(define(tmp_path, 1, ["1h", "6h"])) as platform:
        yield platform


def test_a_changed_view_lives_beside_the_old_one_until_it_is_promoted(platform, tmp_path):
    first = rides(START, 30, 1)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    check(platform, first, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(first))

    platform.redefine(define(tmp_path, 5, ["1h", "12h"], version=2))
    found = diff(platform.client, Lake(platform.lake), platform.registry)
    told = {(one.kind, one.what): (one.old, one.new) for one in found.differences}
    assert told["changed", "version"] == ("1", "2")
    assert told["changed", "demand: where"] == ('[(col("fare")) > (dyn int: 1)]', '[(col("fare")) > (dyn int: 5)]')
    assert told["added", "demand: count_12h"][1].startswith("count over 12h")
    assert told["removed", "demand: count_6h"][0].startswith("count over 6h")
    assert len(found.costs["demand"].days) == 2
    with pytest.raises(
        NotReadyError, match=r"(?s)cannot be promoted.*tiles/demand: 2 days are not built.*rtml backfill"
    ):
        platform.promote("pricing")

    # What is served goes on, for events that come after the change, too.
    second = rides(START + 32 * HOUR, 6, 2)
    platform.send("rides", second, ingested_at="ingested_at")
    platform.settle()
    both = pl.concat([first, second])
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(first))

    platform.compact()
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
    before = read_services(platform.client)["pricing"]
    refuses_what_is_not_proven(platform)
    assert platform.promote("pricing").before == before
    check(platform, both, {"1h": HOUR, "12h": 12 * HOUR}, 5, newest(both))
    assert diff(platform.client, Lake(platform.lake), platform.registry).differences == []
    assert not platform.promote("pricing").changed

    third = rides(START + 40 * HOUR, 6, 3)
    platform.send("rides", third, ingested_at="ingested_at")
    platform.settle()
    assert platform.rollback("pricing").service == before
    everything = pl.concat([both, third])
    check(platform, everything, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
    platform.promote("pricing")
    check(platform, everything, {"1h": HOUR, "12h": 12 * HOUR}, 5, newest(both))


def refuses_what_is_not_proven(platform: LocalPlatform) -> None:
    """A fault in the new version alone, which nobody reads yet, is found and named."""
    fingerprint = platform.registry.plans["demand"].fingerprint
    version = live_names(platform.client, "demand")[fingerprint]
    key = next(iter(platform.client.scan_iter(f"rtml:{{*}}:demand@{version}")))
    stored = platform.client.dump(key)
    assert stored is not None
    platform.client.delete(key)
    with pytest.raises(
        NotReadyError, match=r"view 'demand': .* is not what the lake says: .*demand__count_12h of city"
    ):
        platform.promote("pricing")
    platform.client.restore(key, 0, stored)


def test_a_view_over_landed_history_is_exact_within_one_run(platform, tmp_path):
    """What followed the boundary comes from the lake, what is new from the stream; a second change does the same."""
    history = rides(START, 50, 4)
    until = newest(history) - 5 * HOUR
    lake = Lake(platform.lake)
    landed = history.filter(pl.col("ingested_at") < to_datetime(until))
    platform.redefine(define(tmp_path, 2, ["1h"], version=3))
    source = platform.registry.source("rides")
    land(lake, platform.client, source, landed, until=to_datetime(until))
    platform.redefine(define(tmp_path, 2, ["1h", "12h"], version=3))
    rest = history.filter(pl.col("ingested_at") >= to_datetime(until))
    platform.send("rides", rest, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    eventually_live(platform, lambda: platform.promote("pricing"))
    check(platform, history, {"1h": HOUR, "12h": 12 * HOUR}, 2, newest(history))


def eventually_live(platform: LocalPlatform, what: Any) -> None:
    """The flow adopts what publish has made, and catches up, within seconds."""
    platform._wait_for(lambda: not platform.client.exists(keys.rewinding("rides")), "the rewind's end")
    what()


def test_versions_that_nobody_reads_are_pruned(platform, tmp_path):
    first = rides(START, 10, 5)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    (old,) = version_names(platform.client, "demand")
    with pytest.raises(RequestError, match="was never promoted over anything"):
        platform.rollback("pricing")
    platform.redefine(define(tmp_path, 5, ["1h"], version=2))
    platform.settle()
    platform.compact()
    platform.promote("pricing")
    platform.compact()
    assert old in version_names(platform.client, "demand")
    platform.settings = msgspec.structs.replace(platform.settings, version_grace="1us")
    platform.redefine(define(tmp_path, 5, ["1h"], version=2))
    platform.compact()
    assert old not in version_names(platform.client, "demand")
    assert old not in live_names(platform.client, "demand").values()
    assert not list(platform.client.scan_iter(f"rtml:{{*}}:demand@{old}*"))
    with pytest.raises(NotReadyError, match="is written no longer: its grace"):
        platform.rollback("pricing")
    check(platform, first, {"1h": HOUR}, 5, newest(first) + DAY)


def test_a_redis_that_lost_everything_is_filled_from_the_lake(platform, tmp_path):
    first = rides(START, 30, 6)
    platform.send("rides", first, ingested_at="ingested_at")
    platform.settle()
    platform._supervisor.stop()
    platform.client.flushall()
    platform.redefine(define(tmp_path, 1, ["1h", "6h"]))
    with pytest.raises(NotReadyError, match="serves nothing yet"):
        platform.online("pricing", CITIES)
    second = rides(START + 33 * HOUR, 5, 7)
    platform.send("rides", second, ingested_at="ingested_at")
    platform.settle()
    platform.compact()
    eventually_live(platform, lambda: None)
    both = pl.concat([first, second])
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))


def test_a_flow_that_starts_anew_while_a_version_is_caught_up_leaves_no_hole(platform, tmp_path, monkeypatch):
    """It has to go back for the version once it may write it, whatever it went back for before."""
    history, live = rides(START, 30, 8), rides(START + 33 * HOUR, 5, 9)
    platform._supervisor.stop()
    platform.client.flushall()
    land(Lake(platform.lake), platform.client, platform.registry.source("rides"), history)
    platform.redefine(define(tmp_path, 1, ["1h", "6h"]))
    platform.send("rides", live[:10], ingested_at="ingested_at")
    platform.settle()
    restarted = []

    def slow(*args: Any) -> int:
        platform.send("rides", live[10:], ingested_at="ingested_at")
        platform.settle()
        platform.crash()
        platform._wait_for(lambda: not platform.client.exists(keys.rewinding("rides")), "the rewind's end")
        restarted.append(True)
        return catch_up(*args)

    monkeypatch.setattr("rtml_assets.tables.publish.catch_up", slow)
    platform.compact()
    fingerprint = platform.registry.plans["demand"].fingerprint
    platform._wait_for(lambda: live_names(platform.client, "demand").get(fingerprint), "the version")
    platform.compact()
    assert restarted == [True]
    both = pl.concat([history, live])
    check(platform, both, {"1h": HOUR, "6h": 6 * HOUR}, 1, newest(both))
