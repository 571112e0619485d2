"""A server that is told to end while it is asked: nobody's request fails, and those who ask learn to go elsewhere."""

import signal
import threading
import time

import httpx
import pytest

from tests.serving.online import eventually

SPENDING = "/v1/features/spending"
ANN = {"entities": [{"user": "ann"}]}


class Caller(threading.Thread):
    """Asks again and again over a connection that is kept, and goes to the next server when told to."""

    def __init__(self, servers):
        super().__init__(daemon=True)
        self.urls = [f"http://127.0.0.1:{served.port}" for served in servers]
        self.stopped = threading.Event()
        self.answers: list[tuple[int, object]] = []

    def run(self):
        for number, url in enumerate(self.urls):
            with httpx.Client(base_url=url, timeout=30) as http:
                while not self.stopped.is_set():
                    try:
                        answer = http.post(SPENDING, json=ANN)
                    except httpx.HTTPError as error:
                        self.answers.append((number, error))
                        return
                    self.answers.append((number, answer.status_code))
                    if answer.headers.get("connection") == "close":
                        break
                    time.sleep(0.002)

    def asked(self, number):
        return sum(server == number for server, _ in self.answers)


def test_no_request_fails_while_a_server_is_replaced(serve, feature_redis):
    old, new = (serve(feature_redis.url, RTML_DRAIN="1s") for _ in range(2))
    callers = [Caller((old, new)) for _ in range(4)]
    for caller in callers:
        caller.start()
    idle = httpx.Client(base_url=f"http://127.0.0.1:{old.port}", timeout=30)
    assert "connection" not in idle.get("/healthz").headers
    eventually(lambda: all(caller.asked(0) > 5 for caller in callers))

    begun = time.monotonic()
    old.process.send_signal(signal.SIGTERM)
    eventually(lambda: old.http.get("/readyz").status_code == 503)
    ready = old.http.get("/readyz")
    assert ready.json()["reasons"][0].startswith("draining")
    assert old.http.get("/healthz").status_code == 200
    last = idle.post(SPENDING, json=ANN)
    assert (last.status_code, last.headers["connection"]) == (200, "close")
    eventually(lambda: all(caller.asked(1) > 5 for caller in callers))
    assert old.process.poll() is None
    assert old.process.wait(30) == 0
    assert time.monotonic() - begun >= 1

    for caller in callers:
        caller.stopped.set()
        caller.join()
    assert {status for caller in callers for _, status in caller.answers} == {200}
    assert new.http.get("/readyz").status_code == 200
    idle.close()
    assert new.end(signal.SIGINT) == (0, "")  # which drains nothing


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_who_is_told_twice_ends_at_once(serve, feature_redis, second):
    served = serve(feature_redis.url, RTML_DRAIN="10m")
    served.process.send_signal(signal.SIGTERM)
    eventually(lambda: served.http.get("/readyz").status_code == 503)
    assert served.end(second) == (0, "")
