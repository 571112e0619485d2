"""The canary over a whole platform: what was served at any moment agrees, and a tile that is wrong is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from deltalake import write_deltalake

from quality.parity import Parity
from rtml.errors import LeftOutWarning
from rtml.instants import DAY, HOUR, MINUTE, SECOND, to_datetime
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.parity_checks import canary_result
from rtml_assets.tables.canary import Canary, canary
from rtml_assets.testing import LocalPlatform
from streaming.versions import live_version
from tests.end_to_end.test_platform import World, frame, generate
from tests.oracle import Event

DEFINITIONS = str(Path(__file__).parent / "trades.py")


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform(DEFINITIONS) as platform:
        yield platform


def check(platform: LocalPlatform, **given: Any) -> Canary:
    registry = platform.registry
    return canary(Lake(platform.lake), platform.client, registry.service("risk"), registry.plans, **given)


def entities_of(events: list[Event]) -> list[dict[str, Any]]:
    found = dict.fromkeys((event.key, event.values["desk"]) for event in events)
    return [{"account": account, "desk": desk} for account, desk in [*found, ("never seen", 0)]]


def ask(platform: LocalPlatform, rng: random.Random, events: list[Event]) -> None:
    """Ask at instants that may be asked, around where the stream has come."""
    watermark = platform.store.watermark("risk")
    offsets = [0, 1, SECOND, HOUR, -rng.randrange(15 * MINUTE)]
    for at in [max(watermark, 0) + rng.choice(offsets), World.now + rng.choice([1, MINUTE])]:
        platform.online("risk", rng.sample(entities_of(events), k=2), at=to_datetime(at))


def close(platform: LocalPlatform) -> None:
    """Let another event arrive, so that all before it is known to be complete, and build what was touched."""
    World.now += MINUTE
    last = Event(
        "the last", World.now, World.now, World.now, {"price": 1.0, "lots": 1, "desk": 0, "id": f"{World.now}"}
    )
    platform.send("trades", frame([last]), ingested_at="stamp")
    platform.settle()
    platform.compact()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_was_served_agrees(platform: LocalPlatform, seed: int) -> None:
    rng = random.Random(seed)
    events = generate(rng)
    while len(events) < 100:
        events = generate(rng)
    rows = frame(events)
    for start in range(0, len(events), 50):
        platform.send("trades", rows[start : start + 50], ingested_at="stamp")
        if rng.random() < 0.3:
            ask(platform, rng, events)  # amid the stream
        if rng.random() < 0.6:
            platform.settle()
            ask(platform, rng, events)
        if rng.random() < 0.15:
            platform.settle()
            platform.compact()
            ask(platform, rng, events)
    close(platform)
    found = check(platform)
    print(
        seed,
        found.parity.total("compared"),
        {name: getattr(found, name) for name in ("vectors", "other_version", "incomplete", "publishing", "unseen")},
        found.parity.total("unsettled"),
    )
    assert found.parity.agrees, str(found.parity)
    assert found.vectors > 10
    assert found.other_version == 0
    assert found.parity.total("compared") == found.vectors * len(platform.registry.service("risk").columns)
    assert found.parity.total("unsettled") <= 0.2 * found.parity.total("compared")


def run_canary(platform: LocalPlatform) -> dg.AssetCheckEvaluation:
    """The check as Dagster runs it."""
    deployment = Deployment(platform.settings, platform.registry)
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions_of(deployment).resolve_job_def("canary_risk").execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_a_tile_that_is_wrong_is_found_and_named(platform: LocalPlatform) -> None:
    """An account's coarsest tile is lost in Redis, and then served."""
    World.now += 9 * DAY
    values: dict[str, Any] = {"price": 2.0, "lots": 3, "desk": 1}
    events = [
        Event(account, World.now - n * SECOND, n, World.now, {**values, "id": f"f{account}{n}"})
        for n in range(1, 9)
        for account in ("right", "wrong")
    ]
    platform.send("trades", frame(events), ingested_at="stamp")
    platform.settle()
    at = to_datetime(World.now)
    entities = [{"account": account, "desk": 1} for account in ("right", "wrong")]
    assert platform.online("risk", entities, at=at)["account_trades__count_24h"].to_list() == [8, 8]
    close(platform)
    before = run_canary(platform)
    assert before.passed, before.description
    fingerprint = platform.registry.plans["account_trades"].fingerprint
    version = live_version(platform.client, "account_trades", fingerprint)
    assert version is not None
    key = keys.entity_tag("account", ["wrong"]) + keys.versioned("account_trades", version.version)
    tiles = {name: value for name, value in platform.client.hgetall(key).items() if len(name) == 5}
    platform.client.hdel(key, *tiles)
    platform.online("risk", entities, at=to_datetime(World.now))
    close(platform)
    after = run_canary(platform)
    assert not after.passed
    assert after.asset_key == dg.AssetKey(["served", "risk"])
    assert after.severity == dg.AssetCheckSeverity.ERROR
    assert "account_trades__count_24h (1 differ of" in (after.description or "")
    assert "account wrong" in (after.description or "")
    assert str(at.date()) in (after.description or "")
    assert "right" not in (after.description or "")
    figures: dict[str, Any] = {name: value.value for name, value in after.metadata.items()}
    assert figures["differing"] >= 3
    assert figures["missing"] >= 3
    assert figures["largest_difference"] == 8.0
    assert figures["largest_relative_difference"] == 1.0
    records = [record.data for record in figures["worst"].records]
    assert {record["account"] for record in records} == {"wrong"}
    assert "`account_trades__count_24h` ✗" in figures["features"]
    assert check(platform, days=[at.date()]).parity.total("differing") == figures["differing"]


def test_an_entity_that_the_stream_lost_is_found_and_named(platform: LocalPlatform) -> None:
    """All of an entity's keys are gone: nothing of what it says itself tells that there was something."""
    World.now += 9 * DAY
    values: dict[str, Any] = {"price": 2.0, "lots": 3, "desk": 1}
    events = [
        Event(account, World.now - n * SECOND, n, World.now, {**values, "id": f"g{account}{n}"})
        for n in range(1, 9)
        for account in ("kept", "gone")
    ]
    platform.send("trades", frame(events), ingested_at="stamp")
    platform.settle()
    close(platform)
    lost = [
        *platform.client.scan_iter("rtml:{account|gone}*"),
        *platform.client.scan_iter("rtml:{desk_account|1|gone}*"),
    ]
    assert len(lost) >= 2
    platform.client.delete(*lost)
    entities = [{"account": account, "desk": 1} for account in ("kept", "gone")]
    served = platform.online("risk", entities, at=to_datetime(World.now))
    assert served["account_trades__count_24h"].to_list() == [8, 0]
    close(platform)
    found = check(platform, days=[to_datetime(World.now - MINUTE).date()])
    assert not found.parity.agrees
    assert set(found.parity.worst["account"]) == {"gone"}
    wrong = {one.feature for one in found.parity.features if not one.agrees}
    assert {"account_trades__count_24h", "desk_trades__count_3h"} < wrong
    assert found.parity.total("unsettled") == 0


@pytest.fixture
def served(platform: LocalPlatform) -> Iterator[Any]:
    """A way to write `served/` anew with columns changed, of the newest day alone; it is put back in the end."""
    World.now += 9 * DAY
    values: dict[str, Any] = {"price": 2.0, "lots": 3, "desk": 1}
    account = f"logged {World.now}"
    events = [
        Event(account, World.now - n * SECOND, n, World.now - n * SECOND // 2, {**values, "id": f"l{World.now}{n}"})
        for n in range(8, 0, -1)
    ]
    platform.send("trades", frame(events), ingested_at="stamp")
    platform.settle()
    platform.online("risk", [{"account": account, "desk": 1}], at=to_datetime(World.now))
    close(platform)
    day = to_datetime(World.now - MINUTE).date()
    uri = Lake(platform.lake).served("risk")
    logged = pl.read_delta(uri).filter(pl.col("event_date") == day)
    assert logged["account_trades__count_24h"].to_list() == [8]

    def rewrite(**changes: pl.Expr) -> Canary:
        write_deltalake(uri, logged.with_columns(**changes), mode="overwrite", predicate=f"event_date = '{day}'")
        return check(platform, days=[day])

    yield rewrite
    rewrite()


ONE_MORE = {"account_trades__count_24h": pl.col("account_trades__count_24h") + 1}


def test_what_was_certainly_seen_must_agree(served: Any) -> None:
    assert served().parity.agrees
    found = served(**ONE_MORE)
    assert (found.parity.total("differing"), found.parity.total("unsettled")) == (1, 0)
    assert "account_trades__count_24h" in str(found.parity)


def test_what_was_ingested_before_the_watermark_must_have_been_seen(served: Any) -> None:
    """Whatever the entity's own header says: it may be what was lost."""
    lost = {name: pl.lit(None, dtype=pl.Datetime("us", "UTC")) for name in ("account_trades__last_ingested",)}
    later = pl.col("watermark") + pl.duration(microseconds=1)
    assert served(**lost, watermark=later).parity.agrees, "all eight events"
    found = served(**lost)
    assert "account_trades__count_24h" in {one.feature for one in found.parity.features if not one.agrees}
    assert found.unseen == 1, "the last event was ingested at the watermark: it need not have been seen"


def test_what_no_cut_through_the_events_explains_differs(served: Any) -> None:
    """Another partition may have been further, the watermark does not tell: but of eight events no nine were seen."""
    unknown = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    earlier = pl.col("account_trades__last_ingested") - pl.duration(microseconds=1)
    for watermark in (unknown, pl.col("account_trades__last_ingested"), earlier):
        found = served(**ONE_MORE, watermark=watermark)
        assert (found.parity.total("differing"), found.parity.total("unsettled")) == (1, 0)
    assert served(watermark=unknown).parity.agrees


def test_a_damaged_row_is_wrong(served: Any) -> None:
    found = served(account_trades__status=pl.lit("damaged"))
    assert found.parity.total("differing") == sum(
        feature.feature.startswith("account_trades__") for feature in found.parity.features
    )


def test_what_was_given_instead_of_old_values_is_not_compared(served: Any) -> None:
    instead = {**ONE_MORE, "account_trades__replaced": pl.lit(value=True)}
    found = served(**instead)
    assert found.parity.agrees
    assert found.replaced == 1
    assert {feature.feature.split("__")[0] for feature in found.parity.features} == {"desk_trades"}
    nothing = canary_result(served(**instead, desk_trades__replaced=pl.lit(value=True)))
    assert nothing.passed
    assert "all 2 values of a view that were logged were too old" in (nothing.description or "")
    before = pl.lit(None, dtype=pl.Boolean)
    assert not served(**ONE_MORE, account_trades__replaced=before).parity.agrees, "a log of before tells nothing"


def test_a_vector_that_had_seen_less_is_compared_with_less(served: Any) -> None:
    """What came after `last_ingested` is freshness, and no disagreement."""
    seen = pl.col("account_trades__last_ingested") - pl.duration(seconds=1)
    fewer = {name: pl.lit(6 if "count" in name else 18, dtype=pl.Int64) for name in ("account_trades__count_24h",)}
    found = served(account_trades__last_ingested=seen, watermark=seen, **fewer)
    wrong = {feature.feature for feature in found.parity.features if not feature.agrees}
    assert "account_trades__count_24h" not in wrong
    assert {"account_trades__count_30m", "account_trades__lots_sum_24h"} < wrong
    assert found.unseen == 2


def test_other_meanings_and_vectors_ahead_of_the_lake_are_left_out(platform: LocalPlatform, served: Any) -> None:
    assert served(account_trades__version=pl.lit("000000000000.1")).other_version == 1
    gone = served(account_trades__version=pl.col("account_trades__version") + "9")
    assert gone.other_version == 1, "a build that Redis knows no more"
    assert {feature.feature.split("__")[0] for feature in gone.parity.features} == {"desk_trades"}
    assert served(service_version=pl.lit(2, dtype=pl.Int64)).other_version == 1
    ahead = served(desk_trades__last_ingested=pl.col("desk_trades__last_ingested") + pl.duration(days=1))
    assert (ahead.incomplete, ahead.vectors, ahead.parity.features) == (1, 0, ())
    beyond = served(watermark=pl.col("watermark") + pl.duration(days=1))
    assert (beyond.incomplete, beyond.vectors) == (1, 0)


def test_a_canary_that_compared_nothing_warns_unless_nothing_was_logged(served: Any) -> None:
    ahead = canary_result(served(desk_trades__last_ingested=pl.col("served_at") + pl.duration(days=999)))
    assert not ahead.passed
    assert ahead.severity == dg.AssetCheckSeverity.WARN
    assert "for 1 the lake does not hold yet all that the server had seen" in (ahead.description or "")
    assert ahead.metadata["incomplete"].value == 1
    other = canary_result(served(service_version=pl.lit(2, dtype=pl.Int64)))
    assert not other.passed
    assert "1 are of another meaning or of a version that is gone" in (other.description or "")
    gone = pl.lit("0.0")
    assert not canary_result(served(account_trades__version=gone, desk_trades__version=gone)).passed
    nothing = canary_result(Canary(Parity(), vectors=0, other_version=0, incomplete=0, publishing=0, unseen=0))
    assert nothing.passed
    assert nothing.description == "nothing was compared: no vector was logged yet"
    assert canary_result(served()).passed


def test_vectors_amid_a_publication_agree_with_what_it_published(platform: LocalPlatform) -> None:
    World.now += 9 * DAY
    account = f"late {World.now}"
    values: dict[str, Any] = {"price": 2.0, "lots": 3, "desk": 1}
    first = Event(account, World.now, 1, World.now, {**values, "id": f"p{World.now}"})
    platform.send("trades", frame([first]), ingested_at="stamp")
    platform.settle()
    close(platform)
    World.now += HOUR
    late = Event(account, first.time + 1, 2, World.now, {**values, "id": f"q{World.now}"})
    platform.send("trades", frame([late]), ingested_at="stamp")
    platform.settle()
    fingerprint = platform.registry.plans["account_trades"].fingerprint
    version = live_version(platform.client, "account_trades", fingerprint)
    assert version is not None
    close(platform)
    # As it is while late events are written: they are servable, and the meta does not say so yet.
    meta = keys.meta(version.view, version.version)
    published = platform.client.hget(meta, "published_to")
    platform.client.hset(meta, "published_to", version.published_to)
    row = platform.online("risk", [{"account": account, "desk": 1}], at=to_datetime(World.now))
    assert row["account_trades__count_24h"].to_list() == [2]
    platform.client.hset(meta, "published_to", published)
    close(platform)
    found = check(platform, days=[to_datetime(World.now - 2 * MINUTE).date()])
    assert found.parity.agrees, str(found.parity)
    assert found.publishing >= 1


def test_what_arrived_after_a_past_instant_is_not_trained_on(platform: LocalPlatform) -> None:
    """An event that arrives after the instant is served for it, and not known at it."""
    World.now += 9 * DAY
    account = f"slow {World.now}"
    values: dict[str, Any] = {"price": 2.0, "lots": 3, "desk": 1}
    happened, arrived = World.now, World.now + 10 * MINUTE
    event = Event(account, happened, 1, arrived, {**values, "id": f"s{World.now}"})
    platform.send("trades", frame([event]), ingested_at="stamp")
    platform.settle()
    World.now = arrived
    entity = [{"account": account, "desk": 1}]
    for at in (happened + MINUTE, arrived):
        assert platform.online("risk", entity, at=to_datetime(at))["account_trades__count_24h"].to_list() == [1]
    close(platform)
    name = "account_trades__count_24h"
    mine = pl.col("account") == account
    kept = platform.store.get_logged_features("risk", start=happened, past=True).filter(mine)
    assert kept.select("timestamp", name).rows() == [(to_datetime(happened + MINUTE), 1), (to_datetime(arrived), 1)]
    with pytest.warns(LeftOutWarning, match="answer for instants that were past"):
        known = platform.store.get_logged_features("risk", start=happened).filter(mine)
    assert known["timestamp"].to_list() == [to_datetime(arrived)]
    computed = platform.historical("risk", kept.select("account", "desk", "timestamp"))
    assert computed[name].to_list() == [0, 1]
