"""Entities as rows and as columns, how many there may be, and that each is read once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from rtml import instants
from rtml.errors import RequestError, SettingsError, TooLargeError
from rtml.settings import Settings
from serving.client import FeatureClient
from serving.entities import as_rows
from serving.features import Lookup, Question
from serving.openapi import openapi
from serving.reader import Turns
from tests.serving.conftest import Filled, Serve
from tests.serving.online import REGISTRY, write

SHOPPING = "/v1/features/shopping"


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"user": "u1", "item": ["a", "b"]}, [{"user": "u1", "item": "a"}, {"user": "u1", "item": "b"}]),
        ({"item": ("a", "b"), "user": ["u", "v"]}, [{"item": "a", "user": "u"}, {"item": "b", "user": "v"}]),
        ({"user": "u1", "shop": 7}, [{"user": "u1", "shop": 7}]),
        ({"user": "u1", "item": []}, []),
        ({"user": None, "item": ["a"]}, [{"user": None, "item": "a"}]),
        ({"shop": np.array([1, 2])}, [{"shop": 1}, {"shop": 2}]),
        ({"shop": pl.Series([1, 2]), "user": "u"}, [{"shop": 1, "user": "u"}, {"shop": 2, "user": "u"}]),
        ({"user": np.str_("u1")}, [{"user": "u1"}]),
    ],
)
def test_columns_are_rows(columns: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    found = as_rows(columns, 10)
    assert found == rows
    assert [dict(row) for row in found] == rows
    assert all(type(value) in (str, int, type(None), np.str_) for row in found for value in row.values())


def test_columns_of_unequal_length_are_both_named() -> None:
    with pytest.raises(RequestError, match=r"as many values in each: 'user' has 1, 'item' has 3\. One value without"):
        as_rows({"user": ["u1"], "shop": 7, "item": [1, 2, 3]}, 10)
    with pytest.raises(RequestError, match="must have one for each join key; got none"):
        as_rows({}, 10)


@pytest.mark.parametrize(
    ("entities", "got"),
    [
        (None, "; got NoneType"),
        ("u1", "; got str"),
        (pl.DataFrame({"user": ["u1"]}), "; got DataFrame"),
        ((row for row in [{"user": "u1"}]), "; got generator"),
        ([{"user": "u1"}, "u2"], "; row 1 is of type str"),
    ],
)
def test_what_is_neither_rows_nor_columns_is_refused(feature_redis: Filled, entities: Any, got: str) -> None:
    with FeatureClient(feature_redis.client) as features, pytest.raises(RequestError) as caught:
        features.get("spending", entities, at=feature_redis.present)
    assert str(caught.value).startswith(
        "entities must be a list with a mapping of join keys for each row, or a mapping"
    )
    assert str(caught.value).endswith(got)


@pytest.mark.parametrize("entities", [[{}] * 4, {"user": "u", "item": [1] * 4}])
def test_more_than_allowed_are_refused_in_words(entities: Any) -> None:
    assert len(as_rows(entities, 4)) == 4
    with pytest.raises(TooLargeError, match=r"may name 3 entities \(max_entities, RTML_MAX_ENTITIES\); got 4"):
        as_rows(entities, 3)


def test_a_wrong_entity_of_any_size_is_told_of_briefly_and_at_once(served: Any) -> None:
    wide = {f"column {number}": number for number in range(60_000)}
    for entities, said in [
        ([wide], "is missing. Known: column 0, column 1,"),
        ({**wide, "shop": [7] * 10_000}, "is missing. Known: column 0, column 1,"),
        ([{"user": ["x"] * 100_000}], "must be a string; got ['x', 'x',"),
        ([{"x" * 1_000_000: 1}], "is missing. Known: xxx"),
    ]:
        started = time.monotonic()
        answer = served.http.post(SHOPPING, json={"entities": entities})
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert said in message
        assert len(message) < 1_000
        assert time.monotonic() - started < 10


def test_the_cap_is_a_setting_that_servers_describe(feature_redis: Filled, serve: Serve) -> None:
    with pytest.raises(SettingsError, match=r"max_entities \(RTML_MAX_ENTITIES\) must be 1 or more; got 0"):
        Settings(max_entities=0)
    settings = Settings(redis_url=feature_redis.url, max_entities=2)
    with FeatureClient(settings, background=False) as client, pytest.raises(TooLargeError, match="name 2 entities"):
        client.get("spending", [{"user": "ann"}] * 3)
    served = serve(feature_redis.url, RTML_MAX_ENTITIES="2")
    assert served.http.post(SHOPPING, json={"entities": {"user": "ann", "shop": [7, 8]}}).status_code == 200
    answer = served.http.post(SHOPPING, json={"entities": {"user": "ann", "shop": [7, 8, 9]}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "may name 2 entities (max_entities, RTML_MAX_ENTITIES); got 3" in answer.json()["error"]["message"]
    described = served.http.get("/openapi.json").json()
    rows, columns = described["components"]["schemas"]["FeatureRequest"]["properties"]["entities"]["anyOf"]
    assert rows["maxItems"] == columns["additionalProperties"]["anyOf"][1]["maxItems"] == 2
    assert described == openapi(2)


def test_each_entity_is_read_once_and_each_row_has_its_own_answer(feature_redis: Filled) -> None:
    client, present = feature_redis.client, feature_redis.present
    for shop in range(1, 50):
        write(client, REGISTRY.plans["shop_visits"], [shop], [present - 1] * shop, {})
    users = ["ann", "nobody"]
    entities = [{"user": users[shop % 2], "shop": shop % 60} for shop in range(300)]
    with FeatureClient(feature_redis.url, background=False) as reading:
        vectors = reading.get("shopping", entities, at=present)
        again = reading.get("shopping", {"user": [e["user"] for e in entities], "shop": [e["shop"] for e in entities]})
        assert again.rows == vectors.rows
        question = Question.of(reading.snapshot(), "shopping", present, "wall_clock", 0)
    commands = Lookup(question, Turns(), question.rows(entities)).commands()
    assert [name for name, *_ in commands].count("HMGET") == 2 + 60
    for row in range(300):
        user, shop = users[row % 2], row % 60
        visits = shop if 1 <= shop < 50 else 0
        assert vectors.rows[row] == [3 if user == "ann" else 0, visits]
        assert vectors.status["user_purchases"][row] == ("fresh" if user == "ann" else "missing")
        assert vectors.status["shop_visits"][row] == ("fresh" if visits else "missing")
        assert (vectors.last_ingested["shop_visits"][row] == present - 1) == bool(visits)


def test_a_request_by_columns_over_http(served: Any, feature_redis: Filled) -> None:
    request = {"entities": {"user": "ann", "shop": [7, 0, 7]}, "at": feature_redis.present}
    answer = served.http.post(SHOPPING, json=request).json()
    assert [row[0] for row in answer["rows"]] == [3, 3, 3]
    assert answer["status"]["shop_visits"] == ["fresh", "missing", "fresh"]
    for columns, said in [
        ({"user": ["ann"], "shop": [7, 8]}, "'user' has 1, 'shop' has 2"),
        ({"user": "ann", "shop": [7, "x"]}, "entity 1: key 'shop' of entity 'shop' (view 'shop_visits') must be an"),
        ({"shop": [7, 8]}, "entity 0: key 'user' of entity 'user' (view 'user_purchases') is missing"),
        ({}, "must have one for each join key; got none"),
    ]:
        refused = served.http.post(SHOPPING, json={"entities": columns})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
        assert said in refused.json()["error"]["message"]


def test_an_answer_is_a_frame(feature_redis: Filled) -> None:
    with FeatureClient(feature_redis.url, background=False) as client:
        users = [{"user": "nobody"}, {"user": "bob"}]
        frame = client.get("spending", users, at=feature_redis.present).to_polars()
        nothing = client.get("spending", []).to_polars()
    assert frame["user_purchases__count_3h"].to_list() == [0, 3]
    assert frame["user_purchases__amount_sum_3h"].to_list() == [None, 24.0]
    assert frame["user_purchases__status"].to_list() == ["missing", "fresh"]
    assert frame.schema == nothing.schema
    assert set(frame.dtypes) == {pl.Int64(), pl.Float64(), pl.String()}
    assert frame.width == 7
    assert nothing.height == 0


def test_others_are_answered_while_a_long_request_is_merged(feature_redis: Filled) -> None:
    """A short request that comes after the long one is answered before it."""
    from serving.async_client import AsyncFeatureClient

    entities = {"user": [f"user {number}" for number in range(2_000)]}

    async def ask() -> list[str]:
        done: list[str] = []

        async def one(name: str, entities: Any) -> None:
            await client.get("spending", entities, at=feature_redis.present)
            done.append(name)

        async with AsyncFeatureClient(feature_redis.url, epoch=instants.SECOND) as client:
            await asyncio.gather(one("long", entities), one("short", [{"user": "ann"}]))
        return done

    assert asyncio.run(ask()) == ["short", "long"]
