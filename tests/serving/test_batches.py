"""Requests that are read together, and what each of them gets of it."""

import asyncio

import pytest

from rtml import instants
from rtml.errors import OverflowedError, RequestError, UnavailableError, UnknownNameError
from rtml.instants import MINUTE
from rtml.lake import Lake
from serving.batches import MOST_AT_ONCE, Batches
from serving.feature_log import FeatureLog
from serving.features import Question
from serving.metrics import Metrics
from serving.redis_io import RedisReader, connect_reader
from serving.state import ServingState
from serving.waiting import MOST_ROWS
from tests.serving.online import write_purchases

COUNT = "user_purchases__count_3h"


class Counting(RedisReader):
    """A reader that keeps count of its round trips."""

    trips = 0

    async def exchange(self, commands, within):
        self.trips += 1
        return await super().exchange(commands, within)


@pytest.fixture
def run(feature_redis):
    """Runs requests (service, entities) together; returns the answers or errors, and the round trips taken."""
    client = connect_reader(feature_redis.url, 1)
    state = ServingState(client)
    state.refresh()

    def run(*requests, url=feature_redis.url, at=feature_redis.present):
        async def ask():
            reader = Counting(url, 5)
            log = FeatureLog(Lake("never written"), instants.SECOND)
            batches = Batches(state, reader, Metrics(lambda: state.snapshot), instants.SECOND, log)
            asked = [batches.get(service, entities, at, "wall_clock") for service, entities in requests]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            await reader.close()
            return answers, reader.trips

        return asyncio.run(ask())

    yield run
    client.close()


def counts(vectors):
    column = vectors.features.index(COUNT)
    return [row[column] for row in vectors.rows]


USERS = ({"user": "ann"}, {"user": "bob"}, {"user": "nobody"})


def test_requests_for_one_service_share_a_round_trip(run):
    answers, trips = run(*[("spending", [USERS[number % 3]] * (number % 4)) for number in range(12)])
    assert trips == 1
    for number, vectors in enumerate(answers):
        assert counts(vectors) == [[3, 3, 0][number % 3]] * (number % 4)
        status = ["fresh", "fresh", "missing"][number % 3]
        assert vectors.status == {"user_purchases": [status] * (number % 4)}


def test_requests_for_different_services_do_not(run):
    (one, two), trips = run(("spending", [USERS[0]]), ("shopping", [{"user": "ann", "shop": 7}]))
    assert (trips, counts(one), two.rows) == (2, [3], [[3, 100]])


def test_all_that_wait_without_an_instant_share_the_present(run, feature_redis):
    before = instants.now()
    (one, two), trips = run(("spending", [USERS[0]]), ("spending", [USERS[1]]), at=None)
    assert trips == 1
    assert before <= one.at == two.at <= instants.now()


def test_a_request_that_does_not_fit_harms_only_itself(run):
    answers, trips = run(
        ("spending", [USERS[0]]), ("spending", [{"usr": "ann"}]), ("spendin", []), ("spending", [{"user": "\ud800"}])
    )
    assert trips == 1
    assert counts(answers[0]) == [3]
    assert [type(answer) for answer in answers[1:]] == [RequestError, UnknownNameError, RequestError]


def test_a_sum_beyond_64_bits_harms_only_its_own_request(run, feature_redis):
    write_purchases(feature_redis.client, "whale", feature_redis.present, [(MINUTE, 1.0, 2**62)] * 3)
    answers, _ = run(("spending", [USERS[0]]), ("spending", [{"user": "whale"}]), ("spending", [USERS[1]]))
    assert [counts(answers[0]), counts(answers[2])] == [[3], [3]]
    assert isinstance(answers[1], OverflowedError)


def test_a_long_request_is_one_round_trip_and_answered_in_order(run):
    entities = [USERS[number % 3] for number in range(3 * MOST_ROWS + 1)]
    (long, short), trips = run(("spending", entities), ("spending", [USERS[0]]))
    assert (trips, counts(short)) == (2, [3])
    assert counts(long) == [[3, 3, 0][number % 3] for number in range(len(entities))]
    assert len(long.status["user_purchases"]) == len(entities)


def test_a_very_long_request_is_read_in_parts_and_answered_as_one(run):
    entities = [USERS[number % 3] for number in range(2 * MOST_AT_ONCE + 1)]
    (long,), trips = run(("spending", entities))
    assert trips == 3
    assert counts(long) == [[3, 3, 0][number % 3] for number in range(len(entities))]
    assert [len(one) for one in (*long.status.values(), *long.last_ingested.values())] == [len(entities)] * 2
    (answer,), _ = run(("spending", [*entities, {"user": 5}]))
    assert f"entity {2 * MOST_AT_ONCE + 1}: key 'user'" in str(answer)


def test_an_error_in_a_long_request_counts_from_its_start(run):
    (answer,), _ = run(("spending", [USERS[0]] * (MOST_ROWS + 5) + [{"user": 5}]))
    assert f"entity {MOST_ROWS + 5}: key 'user'" in str(answer)


def test_more_rows_than_are_read_at_once_make_more_batches(run):
    answers, trips = run(*[("spending", [USERS[0]] * 20)] * 3)
    assert (trips, [len(answer.rows) for answer in answers]) == (3, [20, 20, 20])


def test_redis_away_is_told_to_all_who_wait(run):
    answers, _ = run(("spending", [USERS[0]]), ("spending", [USERS[1]] * 50), url="redis://127.0.0.1:1/0")
    assert [type(answer) for answer in answers] == [UnavailableError] * 2


def test_an_error_that_nobody_foresaw_is_told_too(run, monkeypatch):
    monkeypatch.setattr(Question, "of", lambda *_: 1 // 0)
    answers, _ = run(("spending", [USERS[0]]), ("spending", [USERS[1]]))
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 2
