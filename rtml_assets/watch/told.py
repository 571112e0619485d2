"""What `rtml alerts` says: what is open, what was, what was done about it; and a test of every channel."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rtml.instants import DAY, SECOND, Instant, to_text
from rtml.instants import now as present
from rtml.settings import Settings
from rtml_assets.watch.channels import DeliveryError, channels_of
from rtml_assets.watch.ledger import Alert, Ledger, Notice, ledger_file
from rtml_assets.watch.message import Links, message
from rtml_assets.watch.remedy import remedies


def alerts_shown(settings: Settings, days: int, now: Callable[[], Instant] = present) -> Group:
    """Return what the ledger has, for people."""
    file = ledger_file(settings.home_path)
    if not file.is_file():
        return Group(Text(f"no alert was ever told: there is no ledger in {file.parent}"))
    since = now() - days * DAY
    with Ledger(file) as ledger:
        opened, recent, done = ledger.open(), ledger.recent(since), remedies(ledger, since)
        late = ledger.rows("SELECT channel, COUNT(*), MAX(error) FROM outbox WHERE sent_at IS NULL GROUP BY channel")
    parts: list[Table | Text] = [_table(opened)] if opened else [Text("nothing is wrong", style="green")]
    if recent:
        parts.append(_table(recent))
    parts += [Text(str(each), style="dim") for each in done]
    parts += [Text(f"{name}: {count} not told yet ({error or 'due'})", style="yellow") for name, count, error in late]
    return Group(*parts)


def send_test(console: Console, settings: Settings, now: Callable[[], Instant] = present) -> int:
    """Send a test alert through every channel, and return the exit code: 1 when one did not take it."""
    at, failed = now(), 0
    words = "a test: if you can read this, you will be told"
    alert = Alert("check_failed", "platform", "warning", words, None, None, at, at)
    said = message(Notice("test", alert, at), Links.of(settings))
    for channel in channels_of(
        settings, lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False)
    ):
        try:
            channel.send(said)
        except DeliveryError as error:
            failed += 1
            console.print(Text(f"✗ {error}", style="red"), soft_wrap=True)
        else:
            console.print(Text(f"✓ {channel.name}", style="green"))
    return 1 if failed else 0


def _table(alerts: list[Alert]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("alert", "where", "since", "for", "what"):
        table.add_column(name, overflow="fold")
    for alert in alerts:
        end = alert.resolved_at if alert.resolved_at is not None else alert.last_seen
        style = "dim" if alert.resolved_at is not None else "red" if alert.severity == "critical" else "yellow"
        since = to_text(alert.since // SECOND * SECOND)
        cells = (alert.alert, alert.target, since, f"{(end - alert.since) / SECOND:.0f} s", alert.words)
        # The words are others': brackets in them are no markup.
        table.add_row(*[Text(cell, style=style) for cell in cells])
    return table
