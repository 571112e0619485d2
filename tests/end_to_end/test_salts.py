"""Salts on all roads: a view that is served is spread over partial states, is published, made late, and proven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rtml.instants import HOUR, MINUTE, to_datetime
from rtml.lake import Lake
from rtml.online import keys
from rtml.online.salts import partial_tags
from rtml_assets.runtime.diff import diff
from rtml_assets.tables.canary import canary
from rtml_assets.testing import LocalPlatform
from streaming.versions import live_version
from tests.end_to_end.rides import CITIES, START, check, define, newest, rides

WINDOWS, SIZES = ["1h", "6h", "lifetime"], {"1h": HOUR, "6h": 6 * HOUR, "lifetime": START}
SALTS = 3


def spread(folder: Path, salts: int, version: int) -> str:
    """The definitions of rides, all of which are logged, with so many salts."""
    path = Path(define(folder, 1, WINDOWS, version))
    text = path.read_text().replace("where=", f"salts={salts}, where=").replace("version=", "log=1.0, version=")
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("salts")


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform(spread(folder, 1, 1)) as platform:
        yield platform


def send(platform: LocalPlatform, frame: pl.DataFrame) -> None:
    platform.send("rides", frame, ingested_at="ingested_at")
    platform.settle()


def test_a_view_is_spread_published_and_proven(platform: LocalPlatform, folder: Path) -> None:
    first = rides(START, 54, 1)
    send(platform, first)
    platform.compact()
    check(platform, first, SIZES, 1, newest(first))

    platform.redefine(spread(folder, SALTS, 2))
    told = {(one.kind, one.what): one.new for one in diff(platform.client, Lake(platform.lake), platform.registry)[0]}
    assert told == {("changed", "version"): "2", ("added", "demand: salts"): str(SALTS)}
    platform.compact()
    platform.promote("pricing")
    check(platform, first, SIZES, 1, newest(first))

    second = rides(START + 60 * HOUR, 8, 2)
    send(platform, second[:20])
    platform.crash()
    send(platform, second[20:])
    both = pl.concat([first, second])
    check(platform, both, SIZES, 1, newest(first))
    for number in range(3):
        platform.online("pricing", CITIES, at=to_datetime(newest(both) - number * MINUTE))
    platform.compact()
    check(platform, both, SIZES, 1, newest(both))

    plan = platform.registry.plans["demand"]
    version = live_version(platform.client, "demand", plan.fingerprint)
    assert version is not None
    late: Any = platform.client.smembers(keys.late_entities("demand", version.version))
    names = [tag + keys.versioned("demand", version.version) for city in "ab" for tag in partial_tags(plan, [city])]
    assert {name.decode() for name in late} <= {*names}
    assert len(late) > 2, "late events are spread, too"
    for name in names:
        found = platform.client.hgetall(name)
        assert {b"h", b"base"} <= found.keys()
        assert (b"late" in found) == (name.encode() in late)
    assert not platform.client.exists(keys.entity_tag("city", ["a"]) + keys.versioned("demand", version.version))

    figures = canary(
        Lake(platform.lake), platform.client, platform.registry.service("pricing"), platform.registry.plans
    )
    assert figures.parity.agrees, str(figures.parity)
    assert figures.parity.total("compared") >= 8 * 6
