"""How long a request may take, and what took how long."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import pytest

from rtml import instants
from rtml.errors import UnavailableError
from rtml.lake import Lake
from serving.batches import Batches
from serving.budget import STAGES, Budget, DeadlineError
from serving.feature_log import FeatureLog
from serving.metrics import Metrics
from serving.redis_io import RedisReader, connect_reader
from serving.state import ServingState
from serving.waiting import MOST_ROWS
from tests.serving.online import OwnRedis, eventually, fill

SPENDING = "/v1/features/spending"
ANN, BOB = {"user": "ann"}, {"user": "bob"}


class Watched(RedisReader):
    """A reader that keeps count of its round trips, and does something after each."""

    trips = 0

    def after(self):
        """Do nothing."""

    async def exchange(self, commands, within):
        self.trips += 1
        replies = await super().exchange(commands, within)
        self.after()
        return replies


@pytest.fixture(scope="module")
def own_redis():
    server = OwnRedis()
    client = server.start()
    fill(client)
    client.close()
    yield server
    server.thaw()
    server.stop()


@pytest.fixture
def parts(own_redis):
    """What answers requests, in this process."""
    client = connect_reader(own_redis.url, 5)
    state = ServingState(client)
    state.refresh()
    reader = Watched(own_redis.url, 5)
    metrics = Metrics(lambda: state.snapshot)
    log = FeatureLog(Lake("never written"), instants.SECOND)
    yield Batches(state, reader, metrics, instants.SECOND, log), reader, metrics
    client.close()


def run(parts, *asked, meanwhile=None):
    """Ask for (entities, budget) together; return the answers or errors, each with the seconds it took."""
    batches, reader, _ = parts

    async def timed(entities, budget):
        begun = perf_counter()
        try:
            return await batches.get("spending", entities, None, "wall_clock", budget), perf_counter() - begun
        except Exception as error:  # noqa: BLE001
            return error, perf_counter() - begun

    async def all_of_them():
        work = [asyncio.ensure_future(timed(*one)) for one in asked]
        if meanwhile is not None:
            await meanwhile()
        answers = await asyncio.gather(*work)
        await reader.close()
        return answers

    return asyncio.run(all_of_them())


def own(seconds, ago=0.0):
    return Budget(perf_counter() - ago, seconds, is_own=True)


def test_each_of_those_who_are_read_for_together_has_its_own_time(parts, own_redis):
    async def thaw_later():
        await asyncio.sleep(1.0)
        own_redis.thaw()

    own_redis.freeze()
    answers = run(
        parts,
        ([ANN], own(0.2)),
        ([BOB], own(30)),
        ([ANN], Budget(perf_counter(), 0.4)),
        ([ANN] * (MOST_ROWS + 1), own(0.3)),
        meanwhile=thaw_later,
    )
    (short, after), (rest, took), (patient, _), (long, after_long) = answers
    assert isinstance(short, DeadlineError)
    assert str(short).startswith("the request had 200 ms, which were over in stage 'redis': queue ")
    assert after < 0.9
    assert rest.rows[0][1] == 3
    assert took > 0.9
    assert (type(patient), str(patient)) == (UnavailableError, "Redis did not answer within 400 ms")
    assert isinstance(long, DeadlineError)
    assert after_long < 0.9
    _, reader, metrics = parts
    assert reader.trips == 2
    assert b'rtml_deadlines_total{stage="redis"} 2.0' in metrics.reply().body


def test_what_is_over_in_the_queue_is_not_begun(parts):
    late, long = own(0.05, ago=0.06), own(0.05, ago=0.06)
    (first, _), (second, _) = run(parts, ([ANN], late), ([ANN] * (MOST_ROWS + 1), long))
    assert {type(first), type(second)} == {DeadlineError}
    assert "over in stage 'queue': queue " in str(first)
    _, reader, metrics = parts
    assert reader.trips == 0
    assert b'rtml_deadlines_total{stage="queue"} 2.0' in metrics.reply().body


def test_those_in_time_do_not_suffer_for_it(parts):
    (first, _), (second, _) = run(parts, ([ANN], own(0.05, ago=0.06)), ([BOB, ANN], own(5)))
    assert isinstance(first, DeadlineError)
    assert [row[4] for row in second.rows] == [14.0, 7.0]


@pytest.mark.parametrize("rows", [1, 3 * MOST_ROWS])
def test_a_merge_that_ends_too_late_is_no_answer(parts, rows):
    _, reader, _ = parts
    budget = own(5)

    def use_up():
        budget.until = 0.0

    reader.after = use_up
    (late, _), (other, _) = run(parts, ([ANN] * rows, budget), ([BOB], own(5)))
    assert isinstance(late, DeadlineError)
    assert "over in stage 'merge'" in str(late)
    assert other.rows[0][4] == 14.0


def test_the_answer_says_what_took_how_long(served, feature_redis):
    begun = perf_counter()
    answer = served.http.post(SPENDING, json={"entities": [ANN], "at": feature_redis.present, "timings": True})
    took = 1_000 * (perf_counter() - begun)
    timings = answer.json()["timings_ms"]
    assert tuple(timings) == STAGES
    assert all(spent >= 0 for spent in timings.values())
    assert 0 < sum(timings.values()) < took
    assert answer.headers["server-timing"] == ", ".join(f"{stage};dur={spent:g}" for stage, spent in timings.items())
    plain = served.http.post(SPENDING, json={"entities": [ANN], "at": feature_redis.present})
    assert "server-timing" not in plain.headers
    assert plain.json() == {name: value for name, value in answer.json().items() if name != "timings_ms"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0, "timeout_ms must be a whole number from 1 to 60000; got 0"),
        (60_001, "timeout_ms must be a whole number from 1 to 60000; got 60001"),
        (-(10**30), "timeout_ms"),
        ("50", "`$.timeout_ms`"),
        (1.5, "`$.timeout_ms`"),
    ],
)
def test_no_request_has_any_time(served, given, said):
    answer = served.http.post(SPENDING, json={"entities": [ANN], "timeout_ms": given})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert said in answer.json()["error"]["message"]


def test_who_sets_a_time_hears_when_it_is_up(serve, own_redis):
    served = serve(own_redis.url, RTML_REDIS_TIMEOUT="20s")
    ask = lambda **more: served.http.post(SPENDING, json={"entities": [ANN], **more})  # noqa: E731
    assert ask(timeout_ms=60_000).status_code == 200
    own_redis.freeze()
    begun = time.monotonic()
    late = ask(timeout_ms=150)
    assert time.monotonic() - begun < 15
    own_redis.thaw()
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert late.json()["error"]["message"].startswith(
        "the request had 150 ms, which were over in stage 'redis': queue "
    )
    assert ask(timeout_ms=20_000).status_code == 200


def test_who_waits_for_a_connection_waits_in_the_queue(serve, own_redis):
    served = serve(own_redis.url, RTML_REDIS_TIMEOUT="20s", RTML_REDIS_CONNECTIONS="1")
    ask = lambda **more: served.http.post(SPENDING, json={"entities": [ANN], **more})  # noqa: E731
    assert ask(timeout_ms=60_000).status_code == 200
    own_redis.freeze()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, timeout_ms=20_000)
        eventually(lambda: "rtml_feature_requests_in_flight 1.0" in served.http.get("/metrics").text)
        late = ask(timeout_ms=150)
        own_redis.thaw()
        assert first.result().status_code == 200
    assert late.status_code == 504
    assert late.json()["error"]["message"].startswith(
        "the request had 150 ms, which were over in stage 'queue': queue "
    )
    assert ask(timeout_ms=20_000).status_code == 200
