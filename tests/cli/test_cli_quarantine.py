"""`rtml quarantine`: what it shows, what it does, and what it refuses to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from rtml.errors import RequestError, RtmlError
from rtml.instants import to_datetime, to_instant
from rtml.lake import Lake
from rtml.registry import load
from rtml_assets.cli import app
from rtml_assets.runtime.quarantine import load_fix
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.tables.events import deduplicate
from rtml_assets.tables.quarantine import hold
from streaming.mended import scan_mirrored
from streaming.mirror import append_quarantined
from tests.cli.test_cli import FEATURES

FIXES = textwrap.dedent("""
    from __future__ import annotations

    from dataclasses import dataclass

    import polars as pl


    @dataclass
    class Unit:
        of: int

    CENTS = Unit(100)


    def cents(events):
        return events.with_columns(pl.col("amount") / CENTS.of)


    def markup(rows):
        return rows.with_columns(payload=pl.lit('{"event_id":"[/r]","event_time":0,"card":"[/red]","amount":2.5}'))


    def broken(events):
        return events.with_columns(amount=pl.lit("much"))


    def readable(rows):
        return rows.with_columns(payload=pl.lit('{"event_id":"r","event_time":1704067200000000,"card":1,"amount":2.5}'))
""")
STAMP = to_instant("2024-01-01T00:00:01Z")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Lake:
    """Three payments, of which a check holds one, and one that the gate refused."""
    (tmp_path / "features.py").write_text(FEATURES)
    (tmp_path / "fixes.py").write_text(FIXES)
    rows = ["a,2024-01-01T00:01:00Z,1,2.5", "b,2024-01-01T00:02:00Z,2,250.0", "c,2024-01-02T00:00:00Z,1,1.0"]
    (tmp_path / "events.csv").write_text("\n".join(["event_id,event_time,card,amount", *rows]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTML_FEATURES", "features.py")
    monkeypatch.setenv("RTML_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "160")
    said("land", "payments", "--from", "events.csv")
    lake, source = Lake(str(tmp_path / ".rtml" / "lake")), load("features.py").source("payments")
    events, _ = deduplicate(source, scan_mirrored(lake, source).collect())
    hold(lake, source, date(2024, 1, 1), events.filter(event_id="b"), "unit", "amounts in cents")
    refused_one = {
        "partition": [0], "offset": ["1-0"], "ingested_at": [to_datetime(STAMP)], "payload": [b"\xff nonsense"],
        "reason": ["not_json"], "detail": ["not_json: no"], "ingest_date": [date(2024, 1, 1)],
    }  # fmt: skip
    append_quarantined(lake, source, pl.DataFrame(refused_one))
    return lake


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, RtmlError), result.output
    return str(result.exception)


def audit(lake: Lake) -> list[tuple[str, ...]]:
    rows = pl.read_delta(f"{lake.root}/audit").sort("at")
    return rows.select("action", "target", "outcome", "detail").rows()


def test_it_is_listed_shown_and_mended(project: Lake) -> None:
    listed = said("quarantine", "list", "payments")
    assert "check:unit │ 2024-01-01 │ held │ 1" in listed
    assert "not_json │ 2024-01-01 │ held │ 1" in listed
    shown = said("quarantine", "show", "payments", "--reason", "check:unit", "--day", "2024-01-01")
    assert "1 of 1 events" in shown
    assert "amounts in cents" in shown
    assert '"amount":250.0' in shown
    assert r"\xff nonsense" in said("quarantine", "show", "payments", "--limit", "5")
    told = said("quarantine", "replay", "payments", "--check", "unit", "--fix", "fixes.py:cents", "--because", "cents")
    assert "payments: 1 corrected on 2024-01-01 built 2024-01-01, 2024-01-02 in" in told
    assert "spent: version" in told
    told = said("quarantine", "replay", "payments", "--fix", "fixes:markup")
    assert "nothing released 1 stay, refused again as wrong_type:" in told
    assert "got '[/red]'" in told
    told = said("quarantine", "replay", "payments", "--fix", "fixes:readable")
    assert "payments: 1 released on 2024-01-01" in told
    events = pl.read_delta(project.events("payments")).sort("event_time")
    assert events["amount"].to_list() == [2.5, 2.5, 2.5, 1.0]
    assert events["event_id"].to_list() == ["r", "a", "b", "c"]
    listed = said("quarantine", "list", "payments")
    assert "check:unit │ 2024-01-01 │ replayed │ 1" in listed
    assert "held" not in listed
    assert audit(project) == [
        ("quarantine.replay", "payments", "done", "check unit, by fixes.py:cents: 1 corrected on 2024-01-01"),
        ("quarantine.replay", "payments", "done", "all that was refused, by fixes:markup: nothing released"),
        ("quarantine.replay", "payments", "done", "all that was refused, by fixes:readable: 1 released on 2024-01-01"),
    ]
    decided = pl.read_delta(project.decisions("payments")).sort("decided_at")
    assert decided["words"].to_list() == ["cents", ""]
    assert "@" in decided["actor"][0]


def test_a_day_is_accepted(project: Lake) -> None:
    told = said("quarantine", "accept", "payments", "--check", "unit", "--day", "2024-01-01", "--because", "sale")
    assert "1 events of 2024-01-01 are accepted as they are, whatever unit says built 2024-01-01" in told
    assert "check:unit │ 2024-01-01 │ accepted │ 1" in said("quarantine", "list", "payments")
    ((action, _, outcome, _),) = audit(project)
    assert (action, outcome) == ("quarantine.accept", "done")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--drop"], "say which with --check"),
        (["--check", "unit"], "--check needs --fix or --drop; got neither"),
        (["--check", "unit", "--drop", "--fix", "fixes.py:cents"], "got both"),
        (["--check", "unit", "--drop", "--reason", "not_json"], "--check for what a check holds"),
        (["--check", "units", "--drop"], "Did you mean 'unit'?"),
        (["--check", "unit", "--fix", "fixes.py:cent"], "no function 'cent' in 'fixes.py'. Did you mean 'cents'?"),
        (["--check", "unit", "--fix", "fix.py:cents"], "there is no file 'fix.py'"),
        (["--check", "unit", "--fix", "no.such:cents"], "no module 'no.such'"),
        (["--check", "unit", "--fix", "cents"], "must be module:function"),
        (["--check", "unit", "--fix", "fixes.py:broken"], "column 'amount' must be Float64; got String"),
        (["--reason", "not_jsn"], "Did you mean 'not_json'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Lake, arguments: list[str], words: str) -> None:
    assert words in refused("quarantine", "replay", "payments", *arguments)
    ((_, _, outcome, detail),) = audit(project)
    assert outcome == "failed"
    assert words in detail


def test_what_is_not_there_is_said(project: Lake) -> None:
    assert "Did you mean 'payments'?" in refused("quarantine", "list", "payment")
    assert "Did you mean 'check:unit'?" in refused("quarantine", "show", "payments", "--reason", "check:units")
    assert "no such events" in refused("quarantine", "show", "payments", "--day", "2023-01-01")
    assert load_fix("fixes.py:cents")(pl.DataFrame({"amount": [100.0]}))["amount"].to_list() == [1.0]
    with pytest.raises(RequestError):
        load_fix("fixes.py:")
