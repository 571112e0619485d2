"""The command: it teaches, it describes, and what goes wrong on purpose is one red line."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from rtml.errors import RtmlError
from rtml_assets.cli import app
from rtml_assets.runtime.documented import meanings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["demo", "up", "stream", "serve", "replay", "get", "describe", "settings"]
COMMANDS += ["land", "diff", "deploy", "backfill", "promote", "rollback", "retire", "watch", "alerts"]
COMMANDS += ["quarantine", "contracts", "doctor", "keys", "audit", "cost"]

FEATURES = textwrap.dedent("""
    import polars as pl

    import rtml
    from rtml import Count, Entity, EventSource, FeatureService, Mean, RedisStream, StreamFeatureView


    class Payment(rtml.Event):
        event_id: str
        event_time: rtml.Timestamp
        card: int
        amount: float


    payments = EventSource(
        name="payments", schema=Payment, timestamp="event_time", event_id="event_id",
        stream=RedisStream("payments"), lateness="1h", starts="2024-01-01", description="What was paid",
    )
    spent = StreamFeatureView(
        name="spent", source=payments, entity=Entity("card"), where=pl.col("amount") > 0,
        derive={"large": pl.col("amount") > 1000},
        features=[Count(windows=["5m", "7d"]), Mean("large", windows=["7d"], name="large_share")],
    )
    fraud = FeatureService("fraud", features=[spent[["count_5m"]]], version=3,
                           on_stale="default", defaults={"spent__count_5m": 1})
""")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with definitions, where no Redis answers."""
    (tmp_path / "features.py").write_text(FEATURES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTML_FEATURES", "features.py")
    monkeypatch.setenv("RTML_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def rtml(*arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def said(*arguments):
    result = rtml(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments):
    result = rtml(*arguments)
    assert isinstance(result.exception, RtmlError), result.output
    return str(result.exception)


def fresh(*arguments, **options):
    """The command as a user runs it, in a process of its own."""
    argv = [sys.executable, "-m", "rtml_assets.cli", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


def test_a_cost_without_data_is_an_estimate(project):
    output = said("cost", "spent")
    assert "an estimate from the definition" in output
    assert json.loads(rtml("cost", "spent", "--json").output)["online"] is None
    assert "Did you mean 'spent'?" in refused("cost", "spend")


def test_help_names_every_command():
    output = said("--help")
    assert all(f"│ {name} " in output for name in COMMANDS)
    assert "RTML_FEATURES=features.py" in output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_use(command):
    output = said(command, "--help")
    assert "Usage" in output
    assert command == "settings" or f"rtml {command}" in output


def test_help_is_there_at_once():
    started = time.perf_counter()
    loaded = "import sys, rtml_assets.cli; print(*{name.split('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    assert time.perf_counter() - started < 5
    assert not {"polars", "numpy", "redis", "dagster", "deltalake", "pandera"} & set(modules.split())


def test_describe_shows_the_whole_project(project):
    output = said("describe")
    assert "source payments What was paid" in output
    assert "view spent" in output
    assert "3 features of card (card) over 5m, 7d" in output
    assert "service fraud v3" in output
    assert "1 feature of spent" in output


def test_describe_says_what_a_view_means(project):
    output = said("describe", "spent")
    assert "tiles of 10s → 5m → 1h → 1d" in output
    assert "count_5m count integer 5m, exact to the microsecond" in output
    assert "large_share_7d mean(large) float 7d, left edge floored to 10s: counts up to 10s more" in output
    assert "7d + 1h + 7d after an entity's last event" in output
    assert "(not live)" in output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("payments", "1h: later events count online at the next compaction"),
        ("fraud", "rtml get fraud card=…"),
        ("fraud", "default: defaults are given for values that are stale or expired: spent__count_5m=1"),
        ("card", "join keys card views spent"),
    ],
)
def test_describe_knows_all_kinds(project, name, words):
    assert words in said("describe", name)


def test_an_unknown_name_offers_the_nearest(project):
    assert "Did you mean 'spent'?" in refused("describe", "spend")
    assert "Did you mean 'payments'?" in refused("stream", "payment")
    assert "Did you mean 'payments'?" in refused("replay", "payment")


def test_settings_say_where_each_comes_from(project):
    (project / "rtml.toml").write_text("port = 9001\n")
    output = said("settings")
    assert "RTML_FEATURES features.py environment" in output
    assert "RTML_PORT 9001 rtml.toml" in output
    assert "RTML_DAGSTER_PORT 3000 default The Dagster UI's port." in output


def test_every_setting_is_documented():
    assert all(text.endswith(".") for text in meanings().values())


def test_get_without_a_redis_says_so(project):
    assert "Redis does not answer" in refused("get", "fraud", "card=1")


def test_replay_sends_a_file_in_the_order_of_its_stamps(project, monkeypatch):
    rows = ["b,2024-01-01T00:02:00Z,2,2.5", "a,2024-01-01T00:01:00Z,1,2.5", "c,2024-01-02T00:00:00Z,1,1.0"]
    (project / "events.csv").write_text("\n".join(["event_id,event_time,card,amount", *rows]))
    monkeypatch.setenv("RTML_ACCEPT_STAMPS", "true")
    with EmbeddedRedis(project / "redis") as server, redis.Redis.from_url(server.url) as client:
        monkeypatch.setenv("RTML_REDIS_URL", server.url)
        output = said("replay", "payments", "--from", "events.csv", "--end", "2024-01-02")
        entries = [fields for _, fields in client.xrange("payments") if b"data" in fields]
    assert "2 events of payments sent" in output
    assert [json.loads(fields[b"data"])["event_id"] for fields in entries] == ["a", "b"]
    assert int(entries[0][b"ingested_at"]) == 1704067260_000_000


def test_replay_of_nothing_is_refused(project):
    (project / "events.csv").write_text("event_id,event_time,card,amount\na,2024-01-01T00:00:00Z,1,2.5\n")
    assert "no events" in refused("replay", "payments", "--from", "events.csv", "--start", "2025-01-01")


def test_replay_without_a_redis_says_so(project, monkeypatch):
    monkeypatch.setenv("RTML_ACCEPT_STAMPS", "true")
    (project / "events.csv").write_text("event_id,event_time,card,amount\na,2024-01-01T00:00:00Z,1,2.5\n")
    assert "Redis does not answer" in refused("replay", "payments", "--from", "events.csv")


def test_replay_without_stamps_says_which_setting(project):
    (project / "events.csv").write_text("event_id,event_time,card,amount\na,2024-01-01T00:00:00Z,1,2.5\n")
    assert "RTML_ACCEPT_STAMPS" in refused("replay", "payments", "--from", "events.csv")


def test_replay_without_history_says_what_to_do(project):
    assert "--from" in refused("replay", "payments")


def test_an_error_is_one_line_without_a_traceback(project):
    result = fresh("describe", "spend")
    assert result.returncode == 1
    assert result.stderr == "error: no source, entity, view or service 'spend'. Did you mean 'spent'?\n"
    assert result.stdout == ""


def test_no_definitions_is_an_error_that_says_so(project, monkeypatch):
    monkeypatch.setenv("RTML_FEATURES", "feature.py")
    assert "no file 'feature.py' (RTML_FEATURES)" in refused("up")


def test_a_key_is_shown_once_rotated_and_revoked(project):
    made = said("keys", "create", "model", "--scope", "read:fraud", "--scope", "push:payments", "--expires", "90d")
    key = re.search(r"rtml_([0-9a-f]{8})_[0-9a-f]{64}", made)
    assert key is not None
    assert "servers hear of it from the lake alone, within 30 s: Redis does not answer" in made
    listed = said("keys", "list")
    assert all(words in listed for words in (f"model {key[1]} ", "push:payments", "read:fraud"))
    assert key[0] not in listed
    assert "there is a key 'model' already" in refused("keys", "create", "model", "--scope", "admin")
    assert "Did you mean 'fraud'?" in refused("keys", "create", "other", "--scope", "read:frod")
    assert "Did you mean 'model'?" in refused("keys", "rotate", "modal")
    assert "the old one counts until" in said("keys", "rotate", "model", "--grace", "1h")
    assert "model is revoked" in said("keys", "revoke", "model")
    assert said("keys", "list").count("revoked") == 2
    audited = said("audit", "--since", "1d")
    assert [word for word in audited.split() if word.startswith("key.")] == ["key.create", "key.rotate", "key.revoke"]
    assert key[0] not in audited


def test_an_errors_url_has_no_password(project, monkeypatch):
    monkeypatch.setenv("RTML_REDIS_URL", "redis://ann:hidden@127.0.0.1:1/0")
    assert "Redis does not answer at redis://ann:***@127.0.0.1:1/0" in refused("deploy")
