"""`rtml contracts`, and what `rtml deploy` and `rtml diff` say of contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtml.errors import RtmlError
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets import cli_contracts
from rtml_assets.cli import app
from rtml_assets.runtime.redis_server import EmbeddedRedis
from streaming.adoption import Adoption
from streaming.broker import connect
from streaming.contracts import columns_in_use, held, history, runs_by

FEATURES = """
import polars as pl
import rtml
from rtml import Count, Entity, EventSource, FeatureService, RedisStream, StreamFeatureView

class Ride(rtml.Event):
    ride_id: str
    at: rtml.Timestamp
    city: str
    {columns}

rides = EventSource(name="rides", schema=Ride, timestamp="at", event_id="ride_id", stream=RedisStream("rides"))
demand = StreamFeatureView(name="demand", source=rides, entity=Entity("city"), {where}
                           features=[Count(windows=["1h"])])
pricing = FeatureService("pricing", features=[demand])
"""
FIRST, WHERE = "fare: float; note: str = rtml.Field(nullable=True)", 'where=pl.col("fare") > 1,'


def define(project: Path, columns: str, where: str = WHERE) -> None:
    (project / "features.py").write_text(FEATURES.format(columns=columns, where=where))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: EmbeddedRedis) -> Path:
    """A folder whose first contract is in force, and written by both flows."""
    define(tmp_path, FIRST)
    monkeypatch.chdir(tmp_path)
    for name, value in {"FEATURES": "features.py", "REDIS_URL": server.url}.items():
        monkeypatch.setenv(f"RTML_{name}", value)
    monkeypatch.setattr(cli_contracts.console, "width", 200)
    with connect(server.url) as client:
        client.flushall()
        runs_by(client, lake(tmp_path), "rides", "mirror", "features.py")
        source, registry = runs_by(client, lake(tmp_path), "rides", "tiles", "features.py")
        Adoption(client, registry, source)
    return tmp_path


def lake(project: Path) -> Lake:
    return Lake(str(project / ".rtml" / "lake"))


def rtml(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    error = result.exception
    said = str(error) if isinstance(error, RtmlError) else result.output
    return result.exit_code, " ".join(said.split())


def deployed(server: EmbeddedRedis) -> Any:
    with connect(server.url) as client:
        return client.get(keys.DEPLOYED)


def test_what_is_in_force_passes(project: Path) -> None:
    assert rtml("contracts", "check") == (0, "rides: as version 1, which is in force")
    assert "1 20" in rtml("contracts", "list", "rides")[1]
    assert "Did you mean 'rides'?" in rtml("contracts", "list", "ride")[1]
    assert "Did you mean 'rides'?" in rtml("contracts", "check", "ride")[1]


def test_an_allowed_change_is_shown_deployed_and_registered_by_the_flow(project: Path, server: EmbeddedRedis) -> None:
    define(project, f"{FIRST}; tip: pl.Float32 = rtml.Field(nullable=True)")
    code, said = rtml("contracts", "check", "rides")
    assert code == 0
    assert "another contract than version 1, which is in force: allowed" in said
    assert "tip new optional column (Float32) allowed all events of the past pass it" in said
    assert "tip new optional column (Float32) allowed" in rtml("diff")[1]
    assert rtml("deploy")[0] == 0
    assert len(history(lake(project), "rides")) == 1
    with connect(server.url) as client:
        runs_by(client, lake(project), "rides", "mirror", "features.py")
    assert [one.version for one in history(lake(project), "rides")] == [1, 2]
    code, said = rtml("contracts", "check")
    assert (code, said.count("version 2")) == (0, 2)
    assert "flow 'tiles' of source 'rides' does not run by version 2 yet" in said
    assert "+ tip" in rtml("contracts", "list", "rides")[1]


def test_a_refused_change_is_not_deployed_unless_by_force(project: Path, server: EmbeddedRedis) -> None:
    define(project, f"{FIRST}; seat: str")
    code, said = rtml("contracts", "check")
    assert code == 1
    assert "seat new required column (String) refused events of the past lack it: let it be nullable" in said
    code, said = rtml("deploy")
    assert code == 1
    assert "not compatible with version 1, which is in force: - seat: new required column (String): refused" in said
    assert "--force breaks the promise" in said
    assert deployed(server) is None
    assert rtml("deploy", "--force")[0] == 0
    assert deployed(server) == b"1"
    assert rtml("contracts", "check")[1].startswith("rides: as version 2, which is in force")


def test_what_the_lake_cannot_hold_is_not_forced(project: Path, server: EmbeddedRedis) -> None:
    define(project, "fare: str", where="")
    code, said = rtml("deploy", "--force")
    assert code == 1
    assert "fare: Float64 → String: refused: the lake has Float64s there" in said
    assert "--force cannot do this" in said
    assert deployed(server) is None


def test_a_column_of_what_is_written_is_not_dropped(project: Path, server: EmbeddedRedis) -> None:
    with connect(server.url) as client:
        assert set(columns_in_use(client, "rides")) == {"at", "city", "fare"}
    define(project, "other: str = rtml.Field(nullable=True)", where="")
    code, said = rtml("contracts", "check")
    assert code == 1
    assert "fare column (Float64) dropped refused view 'demand', as it is written now, needs it" in said
    assert "note optional column (String) dropped allowed" in said
    assert rtml("deploy", "--force")[0] == 0


def test_a_source_that_is_served_goes_on_without_its_definition(project: Path, server: EmbeddedRedis) -> None:
    text = (project / "features.py").read_text()
    (project / "features.py").write_text(text.replace('name="rides"', 'name="trips"'))
    with connect(server.url) as client:
        source, registry = runs_by(client, lake(project), "rides", "tiles", str(project / "features.py"))
        assert (source.name, source.stream.name, list(source.columns)) == (
            "rides",
            "rides",
            ["at", "city", "fare", "note", "ride_id"],
        )
        assert not registry.sources
        going_on = Adoption(client, registry, source)
        assert [version.view for _, version in going_on.views] == ["demand"]
        assert not going_on.has_news()
        assert "is defined no longer" in held(client, "rides")
