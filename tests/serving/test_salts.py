"""Entities that are spread over partial states: what a server says of one is what they say together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from rtml import FeatureService
from rtml.instants import HOUR, MINUTE, SECOND
from rtml.online import keys
from rtml.online.salts import partial_tags
from rtml.registry import Registry
from serving.client import FeatureClient
from serving.features import FeatureVectors
from streaming.services import Service, write_services
from streaming.versions import create_version, go_live
from tests.serving.conftest import Filled
from tests.serving.definitions import user_purchases
from tests.serving.online import AMOUNTS, version_of, write

SALTS = 4
VIEW = dataclasses.replace(user_purchases, name="spread", salts=SALTS)
REGISTRY = Registry.of([VIEW, FeatureService("spread", features=[VIEW])])
PLAN = REGISTRY.plans["spread"]
HOT, COLD = 300, 10
USERS = [{"user": user} for user in ("ann", "hot", "old", "mixed", "nobody", "ann")]


def hash_of(user: str, salt: int) -> str:
    """The key of one of a user's partial states."""
    return partial_tags(PLAN, [user])[salt] + keys.versioned(PLAN.view, f"{PLAN.fingerprint}.1")


@pytest.fixture(scope="module")
def filled(feature_redis: Filled) -> Filled:
    """All purchases of `old` are older than the ttl, and all but the last of `mixed`; `hot` had very many at once."""
    client, present = feature_redis.client, feature_redis.present
    go_live(client, create_version(client, version_of(PLAN)))
    service = Service.of(REGISTRY.services["spread"], REGISTRY.plans)
    write_services(client, [service, msgspec.structs.replace(service, name="instead", on_stale="default")])
    ages = {
        "ann": [age for age, *_ in AMOUNTS],
        "old": [30 * HOUR + number * SECOND for number in range(8)],
        "mixed": [MINUTE, *[30 * HOUR] * 7],
        "hot": [3 * HOUR - SECOND] * HOT + [3 * HOUR + SECOND] * HOT + [MINUTE] * COLD,
    }
    for user, found in ages.items():
        lanes: dict[str, Sequence[float | int | None]] = {
            "amount": [float(number) for number in range(len(found))],
            "quantity": [1] * len(found),
        }
        write(client, PLAN, [user], [present - age for age in found], lanes)
    return feature_redis


@pytest.fixture
def client(filled: Filled) -> Iterator[FeatureClient]:
    with FeatureClient(filled.url, background=False) as client:
        yield client


def ask(client: FeatureClient, filled: Filled) -> FeatureVectors:
    return client.get("spread", USERS, at=filled.present)


def test_partial_states_are_merged_and_judged_together(client: FeatureClient, filled: Filled) -> None:
    vectors = ask(client, filled)
    assert vectors.status == {"spread": ["fresh", "fresh", "expired", "fresh", "missing", "fresh"]}
    column = vectors.features.index("spread__count_3h")
    assert [row[column] for row in vectors.rows] == [3, HOT + COLD, 0, 1, 0, 3]
    greatest = vectors.features.index("spread__amount_max_3h")
    assert [row[greatest] for row in vectors.rows] == [2.0, 2 * HOT + COLD - 1.0, None, 0.0, None, 2.0]
    newest = [filled.present - age for age in (10 * MINUTE, MINUTE, 30 * HOUR, MINUTE)]
    assert vectors.last_ingested["spread"][:4] == newest
    assert all(filled.client.hlen(hash_of("hot", salt)) for salt in range(SALTS))


def test_one_damaged_partial_state_damages_the_entity_and_no_other(client: FeatureClient, filled: Filled) -> None:
    kept = {name: filled.client.get(name) for name in filled.client.scan_iter(hash_of("hot", 2) + ":r*")}
    filled.client.delete(*kept)
    vectors = ask(client, filled)
    assert vectors.status == {"spread": ["fresh", "damaged", "expired", "fresh", "missing", "fresh"]}
    assert vectors.rows[1] == [None] * len(vectors.features)
    filled.client.mset(kept)  # type: ignore[arg-type]
    assert ask(client, filled).status["spread"][1] == "fresh"


def test_what_is_given_instead_of_old_values_is_of_an_empty_entity(client: FeatureClient, filled: Filled) -> None:
    vectors = client.get("instead", USERS, at=filled.present)
    assert vectors.status["spread"][2] == "expired"
    assert vectors.rows[2] == vectors.rows[4]
