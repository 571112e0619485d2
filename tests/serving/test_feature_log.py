"""What was served is in the lake: all of it, only of sampled entities, whatever becomes of the lake meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from rtml.instants import HOUR, to_datetime
from rtml.lake import Lake, served_schema
from serving import feature_log
from serving.client import FeatureClient
from serving.feature_log import FeatureLog
from streaming.services import Service, write_services
from tests.serving.conftest import Filled, Serve
from tests.serving.online import REGISTRY, eventually, services

USERS = [f"user {number}" for number in range(300)]


@pytest.fixture
def log(tmp_path: Path) -> FeatureLog:
    return FeatureLog(Lake(str(tmp_path)), HOUR)


@pytest.fixture
def client(feature_redis: Filled, log: FeatureLog) -> Iterator[FeatureClient]:
    with FeatureClient(feature_redis.url, background=False, log=log) as client:
        yield client


def offer(feature_redis: Filled, share: float, name: str = "shopping") -> Service:
    """Serve a service whose log takes a share of all entities."""
    (service,) = (found for found in services() if found.name == name)
    changed = msgspec.structs.replace(service, log=share)
    write_services(feature_redis.client, [changed])
    return changed


def ask(client: FeatureClient, feature_redis: Filled, users: Sequence[str], name: str = "shopping") -> Any:
    entities: list[Mapping[str, Any]] = [{"user": user, "shop": 7, "beside": 1} for user in users]
    return client.get(name, entities, at=feature_redis.present)


def test_all_that_was_served_is_logged(feature_redis: Filled, client: FeatureClient, log: FeatureLog) -> None:
    service = offer(feature_redis, 1)
    vectors = ask(client, feature_redis, ["ann", "nobody"])
    log.flush()
    table = pl.read_delta(log._lake.served("shopping"))
    plans = [REGISTRY.plans[view] for view in service.fingerprints]
    assert table.schema == served_schema(plans, service.columns)
    assert table.select(service.names).rows() == [tuple(row) for row in vectors.rows]
    assert table["user"].to_list() == ["ann", "nobody"]
    assert table["shop"].to_list() == [7, 7]
    present = to_datetime(feature_redis.present)
    assert table["timestamp"].to_list() == table["watermark"].to_list() == [present, present]
    assert table["event_date"].unique().to_list() == [present.date()]
    assert abs(table["served_at"][0] - present) < timedelta(minutes=10)
    assert table["service_version"].to_list() == [2, 2]
    assert table["user_purchases__status"].to_list() == ["fresh", "missing"]
    assert table["user_purchases__version"].unique().to_list() == [f"{plans[0].fingerprint}.1"]
    newest = max(instant for instant in vectors.last_ingested["user_purchases"])
    assert table["user_purchases__last_ingested"].to_list() == [to_datetime(newest), None]
    assert table["shop_visits__last_ingested"].null_count() == 0
    assert table["user_purchases__published_to"].to_list() == [None, None]
    assert log.logged == 2


def test_a_share_of_entities_is_logged_and_always_the_same(
    feature_redis: Filled, client: FeatureClient, log: FeatureLog
) -> None:
    offer(feature_redis, 0.3)
    ask(client, feature_redis, USERS)
    ask(client, feature_redis, USERS[::-1])
    log.flush()
    logged = pl.read_delta(log._lake.served("shopping"))["user"]
    assert 50 < logged.n_unique() < 130
    assert (logged.value_counts()["count"] == 2).all()
    chosen = set(logged)
    offer(feature_redis, 0.6)
    ask(client, feature_redis, USERS)
    log.flush()
    assert chosen < set(pl.read_delta(log._lake.served("shopping"))["user"])


def test_no_share_is_no_table(feature_redis: Filled, client: FeatureClient, log: FeatureLog, tmp_path: Path) -> None:
    offer(feature_redis, 0)
    ask(client, feature_redis, USERS)
    log.flush()
    assert not list(tmp_path.iterdir())


def test_a_changed_service_adds_columns(feature_redis: Filled, client: FeatureClient, log: FeatureLog) -> None:
    service = offer(feature_redis, 1, "spending")
    fewer = msgspec.structs.replace(service, columns=service.columns[:2], version=1)
    for some in (fewer, msgspec.structs.replace(service, version=2)):
        write_services(feature_redis.client, [some])
        ask(client, feature_redis, ["ann"], "spending")
    log.flush()
    write_services(feature_redis.client, [fewer])
    ask(client, feature_redis, ["bob"], "spending")
    log.flush()
    table = pl.read_delta(log._lake.served("spending")).sort("user", "service_version")
    assert set(service.names) < set(table.columns)
    assert table[service.names[-1]].is_null().to_list() == [True, False, True]


def test_a_lake_that_is_away_is_waited_for(
    feature_redis: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feature_log, "MOST_ROWS", 5)
    offer(feature_redis, 1)
    (tmp_path / "served").write_text("in the way")
    log = FeatureLog(Lake(str(tmp_path)), HOUR)
    with FeatureClient(feature_redis.url, background=False, log=log) as client, caplog.at_level(logging.WARNING):
        for user in USERS[:3]:
            ask(client, feature_redis, [user, user])
        assert log.dropped == 2
        log.flush()
        log.flush()
        ask(client, feature_redis, ["ann"])
        assert (log.logged, log.dropped) == (0, 2)
        assert len(caplog.records) == 1
        assert "shopping cannot be written, 4 rows wait, 2 dropped" in caplog.text
        (tmp_path / "served").unlink()
        log.flush()
    table = pl.read_delta(f"{tmp_path}/served/shopping")
    assert table["user"].to_list() == [USERS[1], USERS[1], USERS[2], USERS[2], "ann"]
    assert (log.logged, log.dropped) == (5, 2)


def test_many_rows_are_appended_before_the_epoch_is_over(
    feature_redis: Filled, client: FeatureClient, log: FeatureLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_log, "MANY_ROWS", 50)
    offer(feature_redis, 1)
    log.start()
    ask(client, feature_redis, USERS[:60])
    eventually(lambda: log.logged == 60)
    ask(client, feature_redis, USERS[:3])
    log.stop()
    assert log.logged == 63


def test_a_server_logs_what_it_serves(feature_redis: Filled, serve: Serve, tmp_path: Path) -> None:
    service = offer(feature_redis, 1, "spending")
    served = serve(feature_redis.url, RTML_LAKE=str(tmp_path / "lake"), RTML_LOG_EPOCH="50ms")

    def post(users: list[str]) -> httpx.Response:
        return served.http.post("/v1/features/spending", json={"entities": [{"user": user} for user in users]})

    answer = post(["ann", "bob"]).json()
    eventually(lambda: "rtml_log_rows_total 2.0" in served.http.get("/metrics").text)
    assert "rtml_log_dropped_rows_total 0.0" in served.http.get("/metrics").text
    many = post(USERS[:100]).json()
    code, said = served.end()
    assert (code, said) == (0, "")
    table = pl.read_delta(f"{tmp_path}/lake/served/spending").sort("served_at", maintain_order=True)
    assert table.select(service.names).rows() == [tuple(row) for row in answer["rows"] + many["rows"]]
    assert table["user"].to_list() == ["ann", "bob", *USERS[:100]]
