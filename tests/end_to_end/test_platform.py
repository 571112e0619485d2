"""Random events through the whole platform, every feature against the oracle: streamed, crashed, compacted."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import redis
import xxhash
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rtml.columns import TIMESTAMP
from rtml.errors import InstantError, RequestError, UnavailableError, UnknownNameError
from rtml.instants import DAY, HOUR, MINUTE, SECOND, to_datetime, to_instant
from rtml.online import keys
from rtml_assets.testing import LocalPlatform
from tests import oracle
from tests.oracle import Event

DEFINITIONS = str(Path(__file__).parent / "trades.py")
LATENESS = 15 * MINUTE
ODD = ["plain", "", "a|b", "{x}", "per%cent", "späce y", "x" * 200, "🛫", "a:b@c"]


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform(DEFINITIONS) as platform:
        yield platform


class World:
    """What has been sent so far; stamps go on from example to example, since they may not go back."""

    now = to_instant("2024-02-01T00:00:00Z")
    examples = 0


def generate(rng: random.Random) -> list[Event]:
    """Events in the order of their stamps, of accounts of this example only."""
    World.examples += 1
    accounts = [f"{World.examples}{name}" for name in rng.sample(ODD, 3)]
    unit = rng.choice([200_000, 2 * SECOND, 5 * MINUTE, 6 * HOUR])
    events: list[Event] = []
    for number in range(rng.choice([1, 10, 150, 400])):
        World.now += int(rng.expovariate(1 / unit))
        if events and rng.random() < 0.1:
            again = rng.choice(events[-20:])
            events.append(Event(again.key, again.time, again.id64, World.now, again.values))
            continue
        delay = rng.choice(
            [
                rng.randrange(0, LATENESS),
                0,
                LATENESS,
                LATENESS + 1,
                -MINUTE,
                rng.randrange(0, 2 * DAY) if number % 5 == 0 else 3,
            ]
        )
        time = World.now - delay
        if rng.random() < 0.3:
            time = time // (5 * MINUTE) * (5 * MINUTE)  # the very edges of tiles and windows, and ties
        values = {
            "price": None if rng.random() < 0.1 else round(rng.gauss(1e6, 3), 4),
            "lots": rng.randrange(-5, 6),
            "desk": rng.randrange(2),
            "id": f"t{World.examples}-{number}",
        }
        id64 = xxhash.xxh64_intdigest(str(values["id"]).encode())
        events.append(Event(rng.choice(accounts), time, id64, World.now, values))
    return events


def frame(events: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "trade_id": [str(e.values["id"]) for e in events],
            "at": pl.Series([e.time for e in events], dtype=pl.Int64).cast(TIMESTAMP),
            "account": [e.key for e in events],
            "desk": pl.Series([e.values["desk"] for e in events], dtype=pl.Int64),
            "price": pl.Series([e.values["price"] for e in events], dtype=pl.Float64),
            "lots": pl.Series([e.values["lots"] for e in events], dtype=pl.Int64),
            "stamp": pl.Series([e.ingested for e in events], dtype=pl.Int64).cast(TIMESTAMP),
        }
    )


def desk_events(events: list[Event]) -> list[Event]:
    """What `where` and `derive` of the second view make of the events."""
    kept = []
    for event in events:
        lots, price = event.values["lots"], event.values["price"]
        if lots:
            values = {"bought": int(lots > 0), "value": None if price is None else price * lots}
            kept.append(Event(f"{event.values['desk']}/{event.key}", event.time, event.id64, event.ingested, values))
    return kept


def compare(platform: LocalPlatform, events: list[Event], at: int, *, late_too: bool) -> int:
    """Compare every feature of every entity of these events; return how many."""
    accounts = [*dict.fromkeys((e.key, e.values["desk"]) for e in events), ("never seen", 0)]
    entities = [{"account": account, "desk": desk} for account, desk in accounts]
    got = platform.store.get_online_features("risk", entities, at=at)
    truth = {"account_trades": oracle.counted(events, LATENESS, late_too=late_too)}
    truth["desk_trades"] = oracle.counted(desk_events(events), LATENESS, late_too=late_too)
    compared = 0
    for name, plan in platform.registry.plans.items():
        for feature in plan.features:
            for row, (account, desk) in enumerate(accounts):
                key = account if name == "account_trades" else f"{desk}/{account}"
                floor = 1 if feature.exact else plan.tiles.finest
                window = oracle.window(truth[name], key, at, feature.window, floor, feature.offset)
                expected = oracle.value(feature.aggregate, window, feature.column)
                value = got[f"{name}__{feature.name}"][row]
                assert oracle.agree(feature.aggregate, value, expected, window, feature.column), (
                    f"{name}__{feature.name} of {account!r}/{desk} at {at}: got {value}, expected {expected}"
                )
                compared += 1
    return compared


@settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_every_feature_is_the_oracles(platform: LocalPlatform, seed: int) -> None:
    rng = random.Random(seed)
    events = generate(rng)
    rows = frame(events)
    cut = rng.randrange(len(events) + 1)
    platform.send("trades", rows[:cut], ingested_at="stamp")
    crashed = rng.random() < 0.5
    if crashed:
        platform.crash()
    platform.send("trades", rows[cut:], ingested_at="stamp")
    platform.settle()
    instants = [World.now, World.now + 1, World.now + HOUR, World.now - rng.randrange(LATENESS)]
    instants.append(rng.choice(events).time + 1)
    askable = [at for at in instants if at >= World.now - LATENESS]
    for at in askable:
        compare(platform, events, at, late_too=False)
    platform.compact()
    for at in askable:
        compare(platform, events, at, late_too=True)


def test_the_stream_may_die_again_and_again(platform: LocalPlatform) -> None:
    """Kills while events flow, from both partitions."""
    rng = random.Random(7)
    events = generate(rng)
    while len(events) < 300:
        events = generate(rng)
    rows = frame(events)
    for start in range(0, len(events), 60):
        platform.send("trades", rows[start : start + 60], ingested_at="stamp")
        platform.crash()
    platform.settle()
    assert compare(platform, events, World.now, late_too=False) > 100


def test_redis_may_die_and_come_back(platform: LocalPlatform) -> None:
    """SIGKILL amid the stream: its append-only file has all that it answered, and the flows begin anew from there."""
    rng = random.Random(11)
    events = generate(rng)
    while len(events) < 150:
        events = generate(rng)
    rows = frame(events)
    platform.send("trades", rows[:100], ingested_at="stamp")
    died = platform.redis_pid
    os.kill(died, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not _answers(platform, died):
        assert time.monotonic() < deadline, "Redis did not come back"
    platform.send("trades", rows[100:], ingested_at="stamp")
    platform.settle("60s")
    assert compare(platform, events, World.now, late_too=False) > 100


def _answers(platform: LocalPlatform, died: int) -> bool:
    try:
        return bool(platform.client.ping()) and platform.redis_pid != died
    except (redis.RedisError, UnavailableError):
        return False


def test_a_bad_message_is_quarantined_and_the_rest_of_its_batch_is_servable(platform: LocalPlatform) -> None:
    World.now += HOUR
    stamp = to_datetime(World.now)

    def message(**changes: object) -> bytes:
        good = {"trade_id": "g", "at": World.now - SECOND, "account": "quarantine", "desk": 1, "price": 2.5, "lots": 3}
        return json.dumps({**good, **changes}).encode()

    bad = {
        b"not json": "not_json",
        message(account=None): "null_value",
        b'{"trade_id": "1"}': "missing_field",
        message(lots="three"): "wrong_type",
        message(lots=1001): "out_of_range",
        message(price=float("nan")): "not_finite",
        message(at=World.now + MINUTE + 1): "future",
    }
    before = platform.client.hgetall(keys.figures("trades", "mirror")).get(b"refused", b"0")
    payloads = [message(trade_id="g0"), *bad, message(trade_id="g1")]
    platform.send_bytes("trades", payloads, ingested_at=stamp)
    platform.settle()
    got = platform.online("risk", [{"account": "quarantine", "desk": 1}])
    assert got["account_trades__count_30m"].to_list() == [2]
    assert got["desk_trades__value_sum_3h"].to_list() == [15.0]
    quarantine = pl.read_delta(f"{platform.lake}/quarantine/trades").filter(pl.col("ingested_at") == stamp)
    assert dict(quarantine.select("payload", "reason").rows()) == bad
    shown = platform.client.lrange(keys.dead("trades"), 0, len(bad) - 1)
    assert len(shown) == len(bad)
    deadline = time.monotonic() + 10
    while int(platform.client.hgetall(keys.figures("trades", "mirror")).get(b"refused", b"0")) < int(before) + len(bad):
        assert time.monotonic() < deadline, "the refused events were not counted"


def test_statuses_and_errors_are_a_users(platform: LocalPlatform) -> None:
    World.now += HOUR
    row = Event("known", World.now, 1, World.now, {"price": 1.0, "lots": 1, "desk": 0, "id": f"s{World.now}"})
    platform.send("trades", frame([row]), ingested_at="stamp")
    platform.settle()
    entities = pl.DataFrame({"account": ["known", "unknown"], "desk": [0, 0]})
    status = platform.status("risk", entities)
    assert status.columns == platform.online("risk", entities).columns
    assert status["account_trades__count_24h"].to_list() == ["fresh", "missing"]
    online = platform.online("risk", entities)
    assert online["account"].to_list() == ["known", "unknown"]
    # The stream's present is the event's own instant, and an event stamped exactly then is not counted.
    assert online["account_trades__count_24h"].to_list() == [0, 0]
    later = to_datetime(World.now + 1)
    assert platform.online("risk", entities, at=later)["account_trades__count_24h"].to_list() == [1, 0]
    with pytest.raises(InstantError, match="can be asked from"):
        platform.online("risk", entities, at=to_datetime(World.now - HOUR))
    with pytest.raises(UnknownNameError, match=r"no service 'rsik'\. Did you mean 'risk'\?"):
        platform.online("rsik", entities)
    with pytest.raises(RequestError, match=r"key 'desk' of entity 'desk_account' .* is missing"):
        platform.online("risk", [{"account": "known"}])
