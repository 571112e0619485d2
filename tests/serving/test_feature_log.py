"""What was served is in the lake: all of it, only of sampled entities, whatever becomes of the lake meanwhile."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

from rtml.instants import HOUR, to_datetime
from rtml.lake import Lake, served_schema
from rtml_assets.tables.served import scan_served
from serving import feature_log
from serving.client import FeatureClient
from serving.feature_log import FeatureLog
from serving.features import Question
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


class TestAFeatureThatChangesType:
    """`quantity` becomes a float: `quantity_sum_3h` is an Int64 in the table, and a Float64 from now on."""

    NAME = "user_purchases__quantity_sum_3h"

    @pytest.fixture
    def take(self, feature_redis: Filled, client: FeatureClient, log: FeatureLog) -> Callable[[float], None]:
        """Take an answer of ann's with one sum, of the meaning that has its type."""
        offer(feature_redis, 1, "spending")
        ask(client, feature_redis, ["ann"], "spending")
        question = Question.of(client.state.snapshot, "spending", feature_redis.present, "wall_clock", 0)
        entities: list[Mapping[str, Any]] = [{"user": "ann"}]
        vectors = client.get("spending", entities, at=feature_redis.present)
        log._held.clear()

        def take(value: float) -> None:
            asked = self.floating(question) if isinstance(value, float) else question
            place = vectors.features.index(self.NAME)
            row = [value if number == place else old for number, old in enumerate(vectors.rows[0])]
            log.take(asked, entities, asked.rows(entities), msgspec.structs.replace(vectors, rows=[row]))

        return take

    @staticmethod
    def floating(question: Question) -> Question:
        (version,) = question.versions
        features = tuple(
            msgspec.structs.replace(feature, kind="f64") if feature.column == "quantity" else feature
            for feature in version.plan.features
        )
        plan = msgspec.structs.replace(version.plan, features=features, fingerprint="floating")
        service = msgspec.structs.replace(question.service, fingerprints={plan.view: plan.fingerprint})
        changed = msgspec.structs.replace(version, plan=plan, version="floating.1")
        return dataclasses.replace(question, service=service, versions=[changed])

    @pytest.mark.parametrize("at_once", [True, False])
    def test_nothing_is_lost_and_nothing_cast(
        self, take: Callable[[float], None], log: FeatureLog, at_once: bool
    ) -> None:
        for value in (1, 1.75, 2, 2.5):
            take(value)
            if not at_once:
                log.flush()
        log.flush()
        assert (log.logged, log._rows) == (4, 0)
        table = pl.read_delta(log._lake.served("spending"))
        kinds = {name: dtype for name, dtype in table.schema.items() if name.startswith(self.NAME)}
        first, other = (pl.Int64, "f64") if kinds[self.NAME] == pl.Int64 else (pl.Float64, "i64")
        assert kinds == {self.NAME: first, f"{self.NAME}__{other}": pl.Float64 if other == "f64" else pl.Int64}
        found = {table.select(*kinds).row(number) for number in range(4)}
        whole, broken = {(1, None), (2, None)}, {(None, 1.75), (None, 2.5)}
        assert found == (whole | broken if other == "f64" else {pair[::-1] for pair in whole | broken})

    def test_it_is_read_under_its_plain_name(self, take: Callable[[float], None], log: FeatureLog) -> None:
        for value in (1, 1.75):
            take(value)
            log.flush()
        table = DeltaTable(log._lake.served("spending"))
        for kind, plain, other, word in ((pl.Float64(), 1.75, 1, "i64"), (pl.Int64(), 1, 1.75, "f64")):
            rows = scan_served(table, {"user": pl.String(), self.NAME: kind}).collect()
            assert rows.schema[self.NAME] == kind
            assert rows[self.NAME].drop_nulls().to_list() == [plain]
            assert rows[f"{self.NAME}__{word}"].drop_nulls().to_list() == [other]
            assert rows.height == 2

    def test_a_type_that_was_never_logged_is_null(self, take: Callable[[float], None], log: FeatureLog) -> None:
        take(1)
        log.flush()
        rows = scan_served(DeltaTable(log._lake.served("spending")), {self.NAME: pl.Float64()}).collect()
        assert (rows[self.NAME].to_list(), rows[f"{self.NAME}__i64"].to_list()) == ([None], [1])


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
