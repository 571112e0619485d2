"""Features in this process, straight from Redis."""

import time

import pytest

from rtml.errors import InstantError, OverflowedError, UnavailableError
from rtml.instants import HOUR, MINUTE
from serving.client import FeatureClient
from tests.serving.online import OwnRedis, fill, write_purchases


@pytest.fixture(params=[True, False], ids=["background", "refreshing"])
def client(request, feature_redis):
    with FeatureClient(feature_redis.url, background=request.param) as client:
        yield client


def test_features_of_windows_ending_at_an_instant(client, feature_redis):
    vectors = client.get("spending", [{"user": "ann"}, {"user": "bob"}], at=feature_redis.present)
    assert [name.removeprefix("user_purchases__") for name in vectors.features] == [
        "count_30m", "count_3h", "amount_sum_3h", "amount_mean_3h", "amount_max_3h", "quantity_sum_3h",
    ]  # fmt: skip
    assert vectors.rows == [[1, 3, 12.0, 6.0, 7.0, 6], [1, 3, 24.0, 12.0, 14.0, 6]]
    assert vectors.status == {"user_purchases": ["fresh", "fresh"]}
    assert (vectors.at, vectors.watermark, vectors.age_ms) == (feature_redis.present, feature_redis.present, 0.0)


def test_an_entity_never_seen_has_the_values_of_empty_windows(client):
    vectors = client.get("shopping", [{"user": "nobody", "shop": 7}])
    assert vectors.rows == [[0, 100]]
    assert vectors.status == {"user_purchases": ["missing"], "shop_visits": ["fresh"]}


def test_later_than_freshness_a_value_is_stale(client, feature_redis):
    at = feature_redis.present + MINUTE
    vectors = client.get("spending", [{"user": "ann"}], at=at)
    assert (vectors.status["user_purchases"], vectors.age_ms) == (["stale"], 60_000.0)


def test_an_odd_key_is_a_key(client, feature_redis):
    vectors = client.get("spending", [{"user": "o'hara|{x}"}], at=feature_redis.present)
    assert vectors.rows[0][4] == 21.0


def test_a_sum_beyond_64_bits_is_an_error(client, feature_redis):
    write_purchases(feature_redis.client, "whale", feature_redis.present, [(MINUTE, 1.0, 2**62)] * 3)
    with pytest.raises(OverflowedError, match="'quantity' needs more than 64 bits"):
        client.get("spending", [{"user": "whale"}], at=feature_redis.present)


def test_too_early_an_instant_is_an_error(client, feature_redis):
    with pytest.raises(InstantError, match="can be asked from"):
        client.get("spending", [{"user": "ann"}], at=feature_redis.present - HOUR)


def test_redis_away_is_an_error_at_once():
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        FeatureClient("redis://127.0.0.1:1/0")
    assert time.monotonic() - started < 2


def test_a_given_connection_stays_open(feature_redis):
    with FeatureClient(feature_redis.client, background=False) as client:
        assert client.get("spending", []).rows == []
    assert feature_redis.client.ping()


def test_a_redis_restarted_between_two_requests_goes_unnoticed():
    server = OwnRedis()
    try:
        fill(server.start())
        with FeatureClient(server.url, background=False) as client:
            assert client.get("spending", [{"user": "ann"}]).rows[0][1] == 3
            server.stop()
            fill(server.start())
            assert client.get("spending", [{"user": "ann"}]).rows[0][1] == 3
    finally:
        server.stop()
