"""`rtml audit`: who did what, for people."""

from __future__ import annotations

from rich.table import Table

from rtml.errors import InstantError, UnknownNameError
from rtml.instants import Instant, now, parse_duration, to_instant, to_text
from rtml.lake import Lake
from rtml.settings import Settings
from streaming import audit


def audit_table(settings: Settings, since: str | None = None, action: str | None = None) -> Table:
    """Return the audit from an instant on, or from so long ago, for people.

    Raises:
        UnknownNameError: there is no such action.
        InstantError: `since` is neither an instant nor a duration.
    """
    if action is not None and action not in audit.ACTIONS:
        raise UnknownNameError.of("action", action, audit.ACTIONS)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("at", "action", "target", "actor", "outcome", "detail"):
        table.add_column(column, overflow="fold")
    entries = audit.read(Lake(settings.lake_root), None if since is None else _instant(since), action)
    for row in entries.iter_rows(named=True):
        table.add_row(to_text(to_instant(row[audit.AT])), *(row[name] for name in [*audit.AUDIT][1:-1]))
    return table


def _instant(text: str) -> Instant:
    try:
        return now() - parse_duration(text)
    except InstantError:
        return to_instant(text)
