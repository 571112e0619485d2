"""What becomes of values that are too old, as each service wants it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from rtml.errors import StaleError
from rtml.instants import DAY, HOUR, MINUTE, SECOND, Instant
from rtml.lake import Lake
from rtml.online import keys
from serving.client import FeatureClient
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge
from streaming.positions import Position, raise_position
from streaming.services import read_services, write_services
from streaming.versions import read_version, save_version
from tests.serving.conftest import Filled, Served
from tests.serving.online import REGISTRY, services, write_purchases

NAME = "user_purchases__{}".format
DEFAULTS = {NAME("amount_mean_3h"): 9.5, NAME("count_3h"): None}
DEFAULT_ROW = [0, None, None, 9.5, None, None]
"""The defaults, and the values of empty windows."""
USERS = [{"user": "ann"}, {"user": "old"}, {"user": "nobody"}]


@pytest.fixture(scope="module")
def filled(feature_redis: Filled) -> Filled:
    """`ann` is up to date; `old` had her last event before the view's ttl of a day, and a window cannot reach it."""
    spending = next(service for service in services() if service.name == "spending")
    for way in ("serve", "refuse", "default"):
        defaults = DEFAULTS if way == "default" else {}
        record = msgspec.structs.replace(spending, name=way, on_stale=way, defaults=defaults, log=1.0)
        write_services(feature_redis.client, [record])
    write_purchases(feature_redis.client, "old", feature_redis.present, [(30 * HOUR, 5.0, 1)])
    return feature_redis


@pytest.fixture
def log(tmp_path: Path) -> FeatureLog:
    return FeatureLog(Lake(str(tmp_path)), HOUR)


@pytest.fixture
def client(filled: Filled, log: FeatureLog) -> Iterator[FeatureClient]:
    with FeatureClient(filled.url, background=False, log=log) as client:
        yield client


def ask(client: FeatureClient, way: str, at: Instant) -> FeatureVectors:
    return client.get(way, USERS, at=at)


def test_served_old_values_say_so(client: FeatureClient, filled: Filled) -> None:
    now = ask(client, "serve", filled.present)
    assert now.status == {"user_purchases": ["fresh", "expired", "missing"]}
    later = ask(client, "serve", filled.present + MINUTE)
    assert later.status == {"user_purchases": ["stale", "expired", "stale"]}, "whom nobody knows may have come since"
    assert [row[1] for row in later.rows] == [3, 0, 0]
    assert (now.replaced_rows, later.replaced_rows) == (0, 0)


def test_a_refused_entity_has_no_values_and_the_others_have(client: FeatureClient, filled: Filled) -> None:
    vectors = ask(client, "refuse", filled.present)
    assert vectors.status == {"user_purchases": ["fresh", "expired", "missing"]}
    assert [row[1] for row in vectors.rows] == [3, None, 0]
    assert vectors.rows[1] == [None] * 6
    assert (vectors.replaced("user_purchases"), vectors.replaced_rows) == ([False, True, False], 1)


def test_a_stale_view_is_refused_by_name_with_its_age_and_bound(client: FeatureClient, filled: Filled) -> None:
    said = r"view 'user_purchases' is stale, .* refuses that: 60\.000 s behind; its freshness is 5 s, and 1 s for an"
    with pytest.raises(StaleError, match=said):
        ask(client, "refuse", filled.present + MINUTE)
    assert ask(client, "refuse", filled.present + 6 * SECOND).status["user_purchases"][0] == "fresh"
    with pytest.raises(StaleError):
        ask(client, "refuse", filled.present + 6 * SECOND + 1)


def test_defaults_are_given_for_what_is_old_and_its_status_stays(client: FeatureClient, filled: Filled) -> None:
    now = ask(client, "default", filled.present)
    assert now.rows == [[1, 3, 12.0, 6.0, 7.0, 6], DEFAULT_ROW, [0, 0, None, None, None, None]]
    assert now.status == {"user_purchases": ["fresh", "expired", "missing"]}
    later = ask(client, "default", filled.present + MINUTE)
    assert later.rows == [DEFAULT_ROW] * 3
    assert later.status == {"user_purchases": ["stale", "expired", "stale"]}
    assert later.replaced_rows == 3


def test_the_log_tells_what_was_given_instead(client: FeatureClient, filled: Filled, log: FeatureLog) -> None:
    for way, at in itertools.product(("serve", "default"), (filled.present, filled.present + MINUTE)):
        ask(client, way, at)
    log.flush()
    replaced = {way: pl.read_delta(log._lake.served(way))["user_purchases__replaced"] for way in ("serve", "default")}
    assert replaced["serve"].to_list() == [False] * 6
    assert replaced["default"].to_list() == [False, True, False, True, True, True]


@pytest.mark.parametrize("way", ["serve", "refuse", "default"])
def test_no_combination_of_ages_is_fresh_beyond_a_bound(filled: Filled, client: FeatureClient, way: str) -> None:
    """The stream's age, the entity's, ttl, freshness and history, all through Redis and back."""
    plan = REGISTRY.plans["user_purchases"]
    name = f"{plan.fingerprint}.1"
    version = read_version(filled.client, plan.view, name)
    assert version is not None
    ages: dict[str, int] = {"young": MINUTE, "middle": 2 * HOUR, "aged": 20 * DAY}
    for user, ago in ages.items():
        write_purchases(filled.client, user, filled.present, [(ago, 1.0, 1)])
    seen = set()
    try:
        for ttl, freshness, partial in itertools.product((None, HOUR, DAY), (5 * SECOND, HOUR), (False, True)):
            bounds = msgspec.structs.replace(version.plan, ttl=ttl, freshness=freshness)
            since = filled.present - HOUR if partial else version.history_from
            save_version(filled.client, msgspec.structs.replace(version, plan=bounds, history_from=since))
            for ahead in (0, MINUTE, 2 * HOUR):
                try:
                    vectors = client.get(way, [{"user": user} for user in [*ages, "nobody"]], at=filled.present + ahead)
                except StaleError:
                    assert way == "refuse"
                    assert ahead > freshness + SECOND
                    continue
                for age, status in zip([*ages.values(), None], vectors.status["user_purchases"], strict=True):
                    old = ttl is not None and age is not None and age + ahead > ttl
                    stale = ahead > freshness + SECOND
                    if old or stale or partial:
                        assert status not in ("fresh", "missing"), (ttl, freshness, partial, ahead)
                    assert (status == "expired") == old
                    seen.add(status)
    finally:
        save_version(filled.client, version)
    assert seen == {"fresh", "stale", "expired", "partial", "missing"} - ({"stale"} if way == "refuse" else set())


def post(served: Served, way: str, at: Instant) -> tuple[int, Any, Mapping[str, str]]:
    answer = served.http.post(f"/v1/features/{way}", json={"entities": USERS, "at": at})
    return answer.status_code, answer.json(), answer.headers


def figures(served: Served, names: Sequence[str]) -> list[float]:
    lines = served.http.get("/metrics").text.splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return [float(found.get(name, "0")) for name in names]


def test_over_http_a_stale_view_is_a_503_and_all_is_counted(served: Served, filled: Filled) -> None:
    names = ['rtml_rows_refused_total{service="refuse"}', 'rtml_rows_defaulted_total{service="default"}']
    status, body, _ = post(served, "refuse", filled.present)
    assert (status, body["rows"][1]) == (200, [None] * 6)
    assert body["status"] == {"user_purchases": ["fresh", "expired", "missing"]}
    assert figures(served, names) == [1, 0]
    status, body, headers = post(served, "refuse", filled.present + MINUTE)
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "stale", "1")
    assert "view 'user_purchases' is stale" in body["error"]["message"]
    assert post(served, "default", filled.present + MINUTE)[1]["rows"] == [DEFAULT_ROW] * 3
    assert figures(served, names) == [4, 3]
    listed = {service["name"]: service for service in served.http.get("/v1/services").json()["services"]}
    assert [listed[way]["on_stale"] for way in ("serve", "refuse", "default")] == ["serve", "refuse", "default"]
    assert listed["default"]["defaults"] == DEFAULTS


def test_a_record_of_before_serves_old_values(filled: Filled) -> None:
    """A server reads what a former release wrote, which said nothing of staleness."""
    text: Any = filled.client.hget(keys.SERVICES, "serve")
    older = msgspec.json.decode(text)
    for name in ("on_stale", "defaults"):
        del older[name]
    filled.client.hset(keys.SERVICES, "serve", msgspec.json.encode(older))
    assert read_services(filled.client)["serve"].on_stale == "serve"


def test_a_source_that_brought_nothing_is_stale_and_refused(client: FeatureClient, filled: Filled) -> None:
    """Which of its entities there are, nobody knows yet."""
    position = keys.position("purchases")
    edge: LeadingEdge = "wall_clock"
    filled.client.delete(position)
    try:
        assert client.get("serve", USERS, leading_edge=edge).status["user_purchases"] == ["stale", "expired", "stale"]
        with pytest.raises(StaleError, match="nothing is servable yet"):
            client.get("refuse", USERS)
    finally:
        raise_position(filled.client, position, 0, Position("5-0", filled.present))
