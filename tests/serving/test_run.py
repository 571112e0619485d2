"""Starting and stopping the server."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from rtml_assets.runtime.ports import is_free
from tests.serving.online import OwnRedis, eventually, fill

SPENDING = "/v1/features/spending"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_told_so(serve, feature_redis, number):
    served = serve(feature_redis.url)
    assert served.http.get("/healthz").status_code == 200
    assert served.end(number) == (0, "")
    assert is_free("127.0.0.1", served.port)


def test_what_was_begun_is_finished(serve):
    own_redis = OwnRedis()
    client = own_redis.start()
    try:
        fill(client)
        served = serve(own_redis.url, RTML_REDIS_TIMEOUT="10s")
        assert served.http.get("/readyz").status_code == 200
        own_redis.freeze()
        with ThreadPoolExecutor(1) as pool:
            url = f"http://127.0.0.1:{served.port}{SPENDING}"
            asked = pool.submit(httpx.post, url, json={"entities": [{"user": "ann"}]}, timeout=30)
            eventually(lambda: "rtml_requests_in_progress 2.0" in served.http.get("/metrics").text)
            served.process.send_signal(signal.SIGTERM)
            own_redis.thaw()
            assert asked.result().json()["rows"][0][1] == 3
        assert served.end()[0] == 0
    finally:
        own_redis.thaw()
        own_redis.stop()


def test_a_port_in_use_is_refused(serve, served, feature_redis):
    second = serve(feature_redis.url, RTML_PORT=str(served.port))
    said = f"cannot listen at 127.0.0.1:{served.port} (RTML_HOST, RTML_PORT): Address already in use\n"
    assert second.end() == (1, said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RTML_HOST", "300.1.1.1", "cannot listen at 300.1.1.1"),
        ("RTML_REDIS_URL", "nowhere", "redis_url (RTML_REDIS_URL): "),
        ("RTML_PROT", "1", "unknown setting 'RTML_PROT' in the environment. Did you mean"),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_one_line(serve, feature_redis, name, value, said):
    refused = serve(feature_redis.url, **{name: value})
    code, log = refused.end()
    assert code == 1
    assert log.startswith(said)
    assert log.count("\n") == 1


def test_a_host_may_be_a_name(serve, feature_redis):
    served = serve(feature_redis.url, RTML_HOST="localhost")
    assert served.greeting.startswith(f"features at http://localhost:{served.port}")
    family, *_, address = socket.getaddrinfo("localhost", served.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as connection:
        connection.connect(address)
