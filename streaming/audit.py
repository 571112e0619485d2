"""Who did what, and when: an append-only table of the changes that matter, and of requests that were denied."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import polars as pl

from rtml import instants
from rtml.columns import TIMESTAMP
from rtml.errors import RtmlError
from rtml.instants import Instant
from rtml.lake import Lake
from rtml.secrets import mask
from streaming import append_only

AT, DAY = "at", "day"
AUDIT: dict[str, pl.DataType] = {
    AT: TIMESTAMP,
    "action": pl.String(),
    "target": pl.String(),
    "actor": pl.String(),
    "outcome": pl.String(),
    "detail": pl.String(),
    DAY: pl.Date(),
}
ACTIONS = (
    "key.create",
    "key.rotate",
    "key.revoke",
    "promote",
    "rollback",
    "retire",
    "quarantine.replay",
    "quarantine.accept",
    "request.denied",
)
"""What is recorded. The table takes others, too; `rtml audit --action` knows these."""


class Entry(NamedTuple):
    """One thing that was done, or refused."""

    at: Instant
    action: str
    target: str
    actor: str
    outcome: str = "done"
    detail: str = ""


def record(lake: Lake, *, action: str, target: str, actor: str, outcome: str = "done", detail: str = "") -> None:
    """Append what was done to the lake's audit.

    Args:
        lake: whose.
        action: one of `ACTIONS`.
        target: what it was done to, such as a service's name.
        actor: who did it: `actor()`, or a key's id.
        outcome: `done`, or why not.
        detail: more words; secrets in them are masked.

    Raises:
        CommitFailedError, OSError: the lake cannot be written.
    """
    append(lake, [Entry(instants.now(), action, target, actor, outcome, detail)])


def append(lake: Lake, entries: Sequence[Entry]) -> None:
    """Append several entries at once."""
    if not entries:
        return
    plain = [
        entry._replace(target=mask(entry.target), outcome=mask(entry.outcome), detail=mask(entry.detail))
        for entry in entries
    ]
    schema = {name: pl.Int64() if name == AT else kind for name, kind in AUDIT.items() if name != DAY}
    rows = pl.DataFrame(plain, schema=schema, orient="row").with_columns(pl.col(AT).cast(TIMESTAMP))
    append_only.append(lake.audit, rows.with_columns(pl.col(AT).dt.date().alias(DAY)), [DAY])


@contextmanager
def audited(lake: Lake, action: str, target: str, by: str | None = None) -> Iterator[list[str]]:
    """Record a block: as done, with the words put into the list that it gets; or as refused or failed, with why."""
    words: list[str] = []
    who = by or actor()
    try:
        yield words
    except RtmlError as error:
        record(lake, action=action, target=target, actor=who, outcome="refused", detail=str(error))
        raise
    except Exception as error:
        # How far it came is not known, and it was tried.
        record(
            lake, action=action, target=target, actor=who, outcome="failed", detail=f"{type(error).__name__}: {error}"
        )
        raise
    record(lake, action=action, target=target, actor=who, detail="; ".join(words))


def read(lake: Lake, since: Instant | None = None, action: str | None = None) -> pl.DataFrame:
    """Return the entries of a lake in their order, those from an instant on and of one action where given."""
    rows = append_only.read(lake.audit, AUDIT)
    if since is not None:
        rows = rows.filter(pl.col(AT) >= pl.lit(since, dtype=pl.Int64).cast(TIMESTAMP))
    if action is not None:
        rows = rows.filter(pl.col("action") == action)
    return rows.sort(AT)


def actor() -> str:
    """Return who runs this process, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
