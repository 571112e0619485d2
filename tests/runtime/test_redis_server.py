"""The embedded Redis: durable, never evicting, gone when it should be."""

import importlib.util
import os
import signal
import time

import pytest
import redis

from rtml.errors import SettingsError, UnavailableError
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.redis_server import EmbeddedRedis
from tests.runtime.processes import gone, until


def client_of(server):
    return redis.Redis.from_url(server.url, socket_timeout=2)


def test_it_keeps_everything_and_evicts_nothing(tmp_path):
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.set("kept", "yes")
        pid = server.pid
    assert gone(pid)
    with server, client_of(server) as client:
        assert client.get("kept") == b"yes"


def test_its_files_are_at_home(tmp_path):
    with EmbeddedRedis(tmp_path):
        assert (tmp_path / "redis" / "appendonly.aof").exists()
        assert (tmp_path / "logs" / "redis.log").read_text()


def test_it_comes_back_after_a_kill_with_its_data(tmp_path):
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("kept", "yes")
        old = server.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        until(lambda: server.pid not in (None, old))
        until(lambda: answers(client))
        assert client.get("kept") == b"yes"


def answers(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False


def test_a_taken_port_is_an_error_that_says_so(tmp_path):
    with EmbeddedRedis(tmp_path / "one") as server:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"(?s)port {server.port}; it said:.*in use"):
            EmbeddedRedis(tmp_path / "two", server.port).start()
        assert time.monotonic() - started < 5


def test_a_port_lost_to_another_is_not_the_end(tmp_path):
    with EmbeddedRedis(tmp_path / "one") as server:
        unlucky = EmbeddedRedis(tmp_path / "two")
        unlucky.port = server.port
        with unlucky, client_of(unlucky) as client:
            assert unlucky.port != server.port
            assert client.ping()


def test_without_the_wheel_the_error_names_the_setting(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="RTML_REDIS_URL"):
        EmbeddedRedis(tmp_path).start()


def test_free_ports_differ_while_they_are_used(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        assert free_port() != server.port
