"""`rtml alerts`: what is wrong, what was, and whether the channels work."""

import pytest
from rich.console import Console

from rtml.instants import DAY, HOUR, MINUTE, SECOND
from rtml.settings import Settings
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.ledger import Ledger, ledger_file
from rtml_assets.watch.remedy import ask, finish
from rtml_assets.watch.told import alerts_shown, send_test
from tests.watch.receivers import Hook

NOW = 1_700_000_000 * SECOND


@pytest.fixture
def console():
    return Console(width=200, record=True, force_terminal=False)


def shown(console, settings, days=1):
    console.print(alerts_shown(settings, days, lambda: NOW))
    return console.export_text().splitlines()


def test_nothing_was_ever_wrong(console, tmp_path):
    settings = Settings(home=str(tmp_path))
    assert "no alert was ever told" in "\n".join(shown(console, settings))
    Ledger(ledger_file(tmp_path)).close()
    assert [line.strip() for line in shown(console, settings)] == ["nothing is wrong"]


def test_what_is_open_what_was_and_what_was_done(console, tmp_path):
    settings = Settings(home=str(tmp_path))
    lag = Condition("stream_lag", "source:a", "critical", "source 'a': lag [red]12 s", 12.0, 5.0)
    late = Condition("late", "source:a", "warning", "source 'a': late 9 %")
    kinds = {"stream_lag", "late"}
    with Ledger(ledger_file(tmp_path), ["webhook"]) as ledger:
        ledger.settle([late], NOW - 3 * DAY, kinds, 1)
        ledger.settle([], NOW - 2 * DAY, kinds, 1)
        ledger.settle([late], NOW - 2 * HOUR, kinds, 1)
        ledger.settle([lag], NOW - HOUR, kinds, 1)
        ledger.settle([lag], NOW - HOUR + 90 * SECOND, kinds, 1)
        (alert,) = ledger.open()
        remedy = ask(ledger, "restart", "stream:a:tiles", alert, NOW - MINUTE)
        assert remedy is not None
        finish(ledger, remedy.id, NOW - MINUTE, "requested of the supervisor")
    lines = shown(console, settings)
    assert [line.split()[:4] for line in lines if line.startswith(("stream_lag", "late"))] == [
        ["stream_lag", "source:a", "2023-11-14T21:13:20Z", "90"],
        ["late", "source:a", "2023-11-14T20:13:20Z", "3600"],
    ]
    assert "source 'a': lag [red]12 s" in lines[1], "words are no markup"
    assert "restart of stream:a:tiles: requested of the supervisor at 2023-11-14T22:12:20Z" in lines
    assert "webhook: 5 not told yet (due)" in lines
    assert sum(line.startswith("late") for line in shown(console, settings, days=7)) == 2


def test_a_test_goes_through_every_channel_and_says_which_fails(console, tmp_path):
    with Hook().running() as hook:
        settings = Settings(home=str(tmp_path), alert_webhook=hook.url(), alert_slack_webhook=hook.url("/s3cret"))
        assert send_test(console, settings) == 0
        assert [said.get("kind", "slack") for said in hook.got] == ["test", "slack"]
        hook.answers = [404]
        assert send_test(console, settings) == 1
    text = console.export_text()
    assert "✗ webhook: answered HTTP 404" in text
    assert text.count("✓ slack") == 2
    assert "s3cret" not in text
    assert not ledger_file(tmp_path).exists(), "it is no alert"
