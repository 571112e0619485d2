"""Who did what: an append-only Delta table of what people do to a running platform."""

from __future__ import annotations

import getpass
import socket

import polars as pl
from deltalake import write_deltalake

from rtml.columns import TIMESTAMP
from rtml.instants import now, to_datetime
from rtml.lake import EVENT_DATE, Lake


def actor() -> str:
    """Return who runs this command, as `user@host`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def record(lake: Lake, *, action: str, target: str, actor: str, outcome: str = "done", detail: str = "") -> None:
    """Append one row to `<lake>/audit`."""
    at = to_datetime(now())
    row = pl.DataFrame(
        {"at": [at], "action": action, "target": target, "actor": actor, "outcome": outcome, "detail": detail}
    ).with_columns(pl.col("at").cast(TIMESTAMP), pl.col("at").dt.date().alias(EVENT_DATE))
    write_deltalake(f"{lake.root}/audit", row, mode="append", partition_by=[EVENT_DATE])
