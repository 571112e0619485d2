"""Quarantine, end to end: after a mend, online and offline are what the oracle says of the mended events."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash
from rich.console import Console

from rtml.columns import TIMESTAMP
from rtml.instants import HOUR, MINUTE, SECOND, to_datetime
from rtml.lake import Lake
from rtml_assets.defs.materialize import hasty_sqlite
from rtml_assets.runtime.quarantine import Asked, load_fix, run_replay
from rtml_assets.tables.canary import canary
from rtml_assets.tables.events import deduplicate
from rtml_assets.tables.mending import Decider, correct
from rtml_assets.tables.quarantine import HELD, REPLAYED, hold, summary
from rtml_assets.testing import LocalPlatform
from streaming.mended import mended_count, scan_mirrored
from streaming.versions import live_version
from tests import oracle
from tests.end_to_end.test_platform import DEFINITIONS, LATENESS, World, compare, desk_events, frame, generate
from tests.oracle import Event

FIXES = '''
import json

import polars as pl


def in_units(events):
    """The unit was wrong, and what has `d` in front of its id was sent twice."""
    return events.filter(~pl.col("trade_id").str.starts_with("d")).with_columns(pl.col("price") / 64)


def fewer_lots(rows):
    """Only those of desk 1 can be mended."""
    messages = [json.loads(payload) for payload in rows["payload"]]
    mended = [json.dumps({**message, "lots": message["lots"] - 5000}) for message in messages]
    keep = [message["desk"] == 1 for message in messages]
    return rows.with_columns(pl.Series("payload", mended)).filter(pl.Series(keep))
'''


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with hasty_sqlite(), LocalPlatform(DEFINITIONS) as platform:
        yield platform


@pytest.fixture
def fixes(tmp_path: Path) -> str:
    file = tmp_path / "fixes.py"
    file.write_text(FIXES)
    return str(file)


def replay(platform: LocalPlatform, **asked: object) -> str:
    """Run `rtml quarantine replay trades`, wait until what it built is served, and return what it said."""
    told = io.StringIO()
    source = platform.registry.source("trades")
    console = Console(file=told, width=200)
    run_replay(console, platform.settings, platform.registry, source, Asked(**asked), "")  # type: ignore[arg-type]
    served(platform, "trades")
    return told.getvalue()


def served(platform: LocalPlatform, source: str) -> None:
    """Return when versions are served that were made with all decisions."""
    count = mended_count(Lake(platform.lake), platform.registry.source(source))

    def live() -> bool:
        versions = [live_version(platform.client, p.view, p.fingerprint) for p in platform.registry.plans.values()]
        return all(version is not None and version.mended == count for version in versions)

    platform._wait_for(live, "versions with all decisions")
    platform.settle("60s")


def many(rng: random.Random) -> list[Event]:
    events: list[Event] = []
    while len(events) < 120:
        events = generate(rng)
    return events


def offline(platform: LocalPlatform, events: list[Event], instants: list[int]) -> int:
    """Compare the training set in hindsight with the oracle, feature by feature."""
    accounts = list(dict.fromkeys((e.key, e.values["desk"]) for e in events))
    rows = [(account, desk, at) for account, desk in accounts for at in instants]
    spine = pl.DataFrame(rows, schema=["account", "desk", "timestamp"], orient="row")
    got = platform.historical("risk", spine.with_columns(pl.col("timestamp").cast(TIMESTAMP)), known_at="hindsight")
    counted = oracle.counted(events, LATENESS, late_too=True)
    truth = {"account_trades": counted, "desk_trades": desk_events(counted)}
    for name, plan in platform.registry.plans.items():
        for feature in plan.features:
            for row, (account, desk, at) in enumerate(rows):
                key = account if name == "account_trades" else f"{desk}/{account}"
                floor = 1 if feature.exact else plan.tiles.finest
                window = oracle.window(truth[name], key, at, feature.window, floor, feature.offset)
                expected = oracle.value(feature.aggregate, window, feature.column)
                value = got[f"{name}__{feature.name}"][row]
                assert oracle.agree(feature.aggregate, value, expected, window, feature.column), (name, feature, row)
    return len(rows)


def test_what_a_check_holds_is_mended_everywhere(platform: LocalPlatform, fixes: str) -> None:
    """A wrong unit, and events sent twice under other ids, found after their days were built and served."""
    rng = random.Random(2)
    good = many(rng)
    cut = rng.randrange(len(good) // 2)
    wrong = [good[0]] if not cut else [e for e in good[cut:] if e.values["price"] is not None]
    chosen = {(e.time, e.id64) for e in rng.sample(wrong, max(1, len(wrong) // 2))}
    sent, held = [], set()
    for event in good:
        bad = (event.time, event.id64) in chosen
        scaled = {**event.values, "price": event.values["price"] * 64} if bad else event.values
        sent.append(replace(event, values=scaled))
        if bad and rng.random() < 0.3:
            twin = f"d{event.values['id']}"
            sent.append(replace(event, values={**scaled, "id": twin}, id64=xxhash.xxh64_intdigest(twin.encode())))
            held.add(twin)
        if bad:
            held.add(str(event.values["id"]))
    platform.send("trades", frame(sent), ingested_at="stamp")
    platform.settle()
    assert compare(platform, sent, World.now, late_too=False) > 100
    platform.compact()
    lake, source = Lake(platform.lake), platform.registry.source("trades")
    rows, _ = deduplicate(source, scan_mirrored(lake, source).collect())
    rows = rows.filter(pl.col("trade_id").is_in(list(held)))
    for (day,), part in rows.partition_by("event_date", as_dict=True).items():
        assert hold(lake, source, day, part, "unit", "prices in 64ths") == part.height
        assert hold(lake, source, day, part, "unit", "prices in 64ths") == 0
    # Killed as soon as it has decided: the next compaction does the rest.
    done = correct(lake, source, "unit", None, load_fix(f"{fixes}:in_units"), Decider(World.now, "", ""))
    platform.compact()
    served(platform, "trades")
    twins = sum(name.startswith("d") for name in rows["trade_id"])
    assert (done.corrected, done.dropped) == (rows.height - twins, twins)
    instants = [World.now, World.now + 1, World.now + HOUR, World.now - rng.randrange(LATENESS)]
    for at in instants:
        compare(platform, good, at, late_too=True)
    assert offline(platform, good, [*instants, rng.choice(good).time + 1]) > 10
    # What is sent after the mend joins it, and a copy of what was mended changes nothing.
    World.now += MINUTE
    again = [replace(e, ingested=World.now) for e in rng.sample(sent, 10) if not str(e.values["id"]).startswith("d")]
    platform.send("trades", frame(again), ingested_at="stamp")
    platform.crash()
    platform.settle()
    compare(platform, good, World.now, late_too=True)
    platform.compact()
    compare(platform, good, World.now, late_too=True)
    # What was served before is left out by the canary; what is served now agrees.
    service = platform.registry.service("risk")
    seen = canary(lake, platform.client, service, platform.registry.plans)
    assert seen.parity.agrees, seen.parity
    assert 0 < seen.other_version < seen.vectors * len(service.views)


def test_what_the_gate_refused_counts_once_when_it_is_mended(platform: LocalPlatform, fixes: str) -> None:
    rng = random.Random(5)
    good = many(rng)
    good = [replace(e, values={**e.values, "lots": min(e.values["lots"], 4)}) for e in good]
    broken = {(e.time, e.id64) for e in good if rng.random() < 0.3}
    payloads: dict[int, list[bytes]] = {}
    rows = frame(good)
    for event, row in zip(good, rows.drop("stamp").with_columns(pl.col("at").dt.epoch("us")).to_dicts(), strict=True):
        lots = row["lots"] + (5000 if (event.time, event.id64) in broken else 0)
        payloads.setdefault(event.ingested, []).append(json.dumps({**row, "lots": lots}).encode())
    for stamp, messages in payloads.items():
        platform.send_bytes("trades", messages, ingested_at=to_datetime(stamp), partition=stamp % 2)
    platform.settle()
    passed = [e for e in good if (e.time, e.id64) not in broken]
    compare(platform, passed, World.now, late_too=False)
    lake, source = Lake(platform.lake), platform.registry.source("trades")
    told = replay(platform, reason="out_of_range", fix=f"{fixes}:fewer_lots")
    assert "released" in told
    mended = [e for e in good if (e.time, e.id64) not in broken or e.values["desk"] == 1]
    for at in (World.now, World.now + SECOND, World.now + HOUR):
        compare(platform, mended, at, late_too=True)
    assert offline(platform, mended, [World.now, rng.choice(mended).time + 1]) > 3
    states = dict(
        summary(lake, source).filter(reason="out_of_range").group_by("state").agg(pl.col("rows").sum()).rows()
    )
    assert set(states) == {HELD, REPLAYED}
    before = np.array([mended_count(lake, source)])
    with pytest.raises(Exception, match="no events that were refused as 'wrong_type' are left"):
        replay(platform, reason="wrong_type")
    told = replay(platform, reason="out_of_range")
    assert f"{states[HELD]} stay, refused again as out_of_range" in " ".join(told.split())
    assert mended_count(lake, source) == before[0]
    compare(platform, mended, World.now, late_too=True)
