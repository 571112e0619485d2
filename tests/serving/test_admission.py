"""When a server takes on no more requests, and when it does again: on a clock that tests move."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving.admission import INTERVAL_SECONDS, LEAST_IN_FLIGHT, Admission, OverloadedError
from serving.budget import Budget
from tests.serving.online import eventually

SPENDING = "/v1/features/spending"
TARGET = 0.05


class Server:
    """An admission on a clock of its own, and requests that come and go."""

    def __init__(self, target: float = TARGET, most: int = 512) -> None:
        self.now = 100.0
        self.admission = Admission(target, most, lambda: self.now)

    def come(self, number: int = 1, seconds: float = 10) -> int:
        """Let requests come; return how many are taken."""
        taken = 0
        for _ in range(number):
            try:
                self.admission.enter(Budget(self.now, seconds))
            except OverloadedError:
                continue
            taken += 1
        return taken

    def interval(self, *waits: float) -> None:
        """Let an interval go by in which requests waited so long."""
        for wait in waits:
            self.admission.began(wait)
        self.now += INTERVAL_SECONDS

    def end(self, number: int) -> None:
        for _ in range(number):
            self.admission.leave()


def test_a_burst_passes_and_a_standing_queue_does_not():
    server = Server()
    assert server.come(400) == 400
    server.interval(0.3, 0.2, 0.01)  # one got through in time
    assert (server.come(50), server.admission.is_overloaded) == (50, False)
    server.interval(0.3, 0.2, 0.06)
    assert (server.come(), server.admission.is_overloaded) == (0, True)


def test_the_longer_the_wait_the_fewer_are_taken():
    limits = []
    for wait in (0.055, 0.075, 3.0):
        server = Server()
        server.come(400)
        server.interval(wait)
        server.come()
        limits.append(server.admission.limit)
    assert limits == [pytest.approx(400 * share) for share in (0.05 / 0.055, 0.05 / 0.075, 0.5)]


def test_however_long_they_wait_some_are_taken():
    server = Server()
    server.come(400)
    for _ in range(50):
        server.interval(9.0)
        server.come()
    server.end(400)
    assert server.come(100) == server.admission.limit == LEAST_IN_FLIGHT


def test_it_takes_more_again_and_recovers_when_nobody_is_refused():
    server = Server()
    server.come(400)
    server.interval(0.1)
    assert server.come() == 0
    server.interval(0.01)
    assert server.come() == 0
    assert server.admission.limit == pytest.approx(210)
    server.end(400)
    server.interval(0.01)  # in it, one was refused
    assert (server.come(100), server.admission.is_overloaded) == (100, True)
    server.interval(0.01)
    assert (server.come(400), server.admission.is_overloaded) == (400, False)


def test_it_recovers_when_nothing_comes_any_more():
    server = Server()
    server.come(400)
    server.interval(0.1)
    server.come()
    server.end(400)
    server.interval()
    server.come()  # of the last interval, the one that was refused is known
    server.interval()
    assert server.come(400) == 400


def test_who_has_less_time_than_the_others_wait_is_refused():
    server = Server()
    server.come(400)
    server.interval(0.08)
    server.come()
    server.end(350)
    assert (server.come(seconds=0.079), server.come(seconds=0.081)) == (0, 1)


def test_a_wait_long_ago_is_held_against_nobody():
    server = Server()
    server.come()
    server.interval(3.0)  # one cold request, then none for an hour
    server.end(1)
    server.now += 3_600
    assert (server.come(200, seconds=0.1), server.admission.is_overloaded) == (200, False)


def test_who_comes_when_nobody_waits_is_taken_however_little_time_it_has():
    server = Server()
    server.come()
    server.interval(3.0)
    server.end(1)
    assert (server.come(seconds=0.1), server.admission.is_overloaded) == (1, True)


def test_there_are_never_more_than_the_most():
    server = Server(target=0, most=5)
    assert server.come(9) == 5
    for _ in range(3):
        server.interval(9.0)
        assert (server.come(), server.admission.is_overloaded) == (0, False)
    server.end(2)
    assert server.come(9) == 2
    assert Server(target=0, most=0).come(5_000) == 5_000


def test_a_full_server_says_so_and_goes_on_telling_how_it_is(serve, feature_redis):
    served = serve(feature_redis.url, RTML_MAX_IN_FLIGHT="1", RTML_REDIS_TIMEOUT="30s")
    one, many = ({"entities": [{"user": f"u{number}"} for number in range(count)]} for count in (1, 10_000))
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as other, ThreadPoolExecutor(1) as pool:
        long = pool.submit(served.http.post, SPENDING, json=many)
        eventually(lambda: "rtml_feature_requests_in_flight 1.0" in other.get("/metrics").text)
        answer = other.post(SPENDING, json=one)
        refused = answer.json()["error"]
        assert (answer.status_code, refused["code"]) == (503, "overloaded")
        assert "takes no more for now" in refused["message"]
        assert answer.headers["retry-after"] == "1"
        assert refused["request_id"] == answer.headers["x-request-id"]
        for path in ("/readyz", "/healthz", "/v1/sla", "/v1/services"):
            assert other.get(path).status_code == 200
        assert long.result().status_code == 200
        assert other.post(SPENDING, json=one).status_code == 200
        metrics = other.get("/metrics").text
    assert "rtml_overloaded_total 1.0" in metrics
    assert 'rtml_service_requests_total{service="spending",status="503"} 1.0' in metrics
    assert "rtml_feature_requests_limit 1.0" in metrics
