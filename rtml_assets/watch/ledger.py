"""The ledger of alerts: each fires once, is reminded of, and resolves once, whoever looks and however often.

It is a SQLite file that the watch and Dagster's sensors share. Each settles only the alerts that it knows about; what
is to be told is put into the outbox in the same transaction, so that nothing is told twice, and nothing is forgotten.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from rtml.instants import DAY, HOUR, Instant
from rtml_assets.watch.conditions import Condition

LOOKS = 2
"""How many looks in a row a condition must hold before it fires, and be gone before it resolves: nothing flaps."""
REMIND = 6 * HOUR
KEPT = 30 * DAY
PATIENCE_SECONDS = 10.0
Kind = Literal["fired", "reminded", "resolved", "test"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    id INTEGER PRIMARY KEY, alert TEXT NOT NULL, target TEXT NOT NULL, severity TEXT NOT NULL, words TEXT NOT NULL,
    value REAL, bound REAL, since INTEGER NOT NULL, last_seen INTEGER NOT NULL,
    looks INTEGER NOT NULL, clear INTEGER NOT NULL DEFAULT 0,
    fired_at INTEGER, told_at INTEGER, resolved_at INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS one_open ON alerts (alert, target) WHERE resolved_at IS NULL;
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, notice BLOB NOT NULL, at INTEGER NOT NULL,
    due INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, sent_at INTEGER, given_up INTEGER NOT NULL DEFAULT 0,
    error TEXT);
CREATE INDEX IF NOT EXISTS unsent ON outbox (channel, id) WHERE sent_at IS NULL AND NOT given_up;
CREATE TABLE IF NOT EXISTS counts (
    target TEXT NOT NULL, objective TEXT NOT NULL, minute INTEGER NOT NULL, bad INTEGER NOT NULL,
    total INTEGER NOT NULL, PRIMARY KEY (target, objective, minute)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remedies (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, what TEXT NOT NULL, target TEXT NOT NULL, why TEXT NOT NULL,
    asked_at INTEGER NOT NULL, done_at INTEGER, outcome TEXT);
"""


class Alert(msgspec.Struct, frozen=True):
    """Something that was told to be wrong; instants in microseconds, UTC."""

    alert: str
    target: str
    severity: str
    words: str
    value: float | None
    bound: float | None
    since: Instant
    """When the condition was first seen."""
    last_seen: Instant
    fired_at: Instant | None = None
    resolved_at: Instant | None = None


class Notice(msgspec.Struct, frozen=True):
    """What is told of an alert."""

    kind: Kind
    alert: Alert
    at: Instant


@dataclass
class Settled:
    """What a look changed."""

    fired: list[Alert] = field(default_factory=list)
    reminded: list[Alert] = field(default_factory=list)
    resolved: list[Alert] = field(default_factory=list)

    def notices(self, now: Instant) -> Iterator[Notice]:
        """Return what is to be told of it."""
        changed: list[tuple[Kind, list[Alert]]] = [("resolved", self.resolved), ("fired", self.fired)]
        for kind, alerts in [*changed, ("reminded", self.reminded)]:
            yield from (Notice(kind, alert, now) for alert in alerts)


class Ledger:
    """The file `<home>/watch/ledger.sqlite`; one object serves one process, from any of its threads.

    Args:
        file: where it is, made when it is not there.
        channels: who is to be told, by name.
        remind: after how many microseconds of an open alert it is told again.
    """

    def __init__(self, file: Path, channels: Sequence[str] = (), remind: int = REMIND) -> None:
        """Open the file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._channels, self._remind = tuple(channels), remind
        self._lock = threading.RLock()
        self._db = sqlite3.connect(file, PATIENCE_SECONDS, isolation_level=None, check_same_thread=False)
        self._prepare()

    def __enter__(self) -> Ledger:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write for a block: all of it or nothing, and nobody else in between."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def settle(
        self,
        conditions: Iterable[Condition],
        now: Instant,
        kinds: Collection[str],
        looks: int = LOOKS,
        untold: Collection[tuple[str, str]] = (),
        own: Callable[[str], bool] = bool,
    ) -> Settled:
        """Take what is wrong right now, and return what that changed.

        Args:
            conditions: what one look found; of several of one alert and target, the first counts.
            now: when it looked.
            kinds: the names of the alerts that it looked for: what it did not find of them is clear.
            looks: how many looks in a row must agree before anything is told; 1 where a look sees facts.
            untold: alerts and targets that follow from others: they do not fire, and if open they stay so.
            own: says of a target whether it was looked at: an alert may have some that others settle.
        """
        found: dict[tuple[str, str], Condition] = {}
        for condition in conditions:
            name = (condition.alert, condition.target)
            if condition.alert in kinds and own(condition.target) and name not in untold:
                found.setdefault(name, condition)
        settled = Settled()
        with self.transaction() as db:
            for condition in found.values():
                self._seen(db, condition, now, looks, settled)
            # What has not fired begins anew: its looks are no longer in a row.
            pending = "DELETE FROM alerts WHERE alert = ? AND target = ? AND resolved_at IS NULL AND fired_at IS NULL"
            db.executemany(pending, list(untold))
            for target, row in self._unsettled(db, kinds, {*found, *untold}):
                if own(target):
                    self._unseen(db, row, now, looks, settled)
            for notice in settled.notices(now):
                self.put(notice)
        return settled

    def put(self, notice: Notice) -> None:
        """Put what is to be told into the outbox of every channel."""
        packed = msgspec.json.encode(notice)
        rows = [(channel, packed, notice.at, notice.at) for channel in self._channels]
        with self._lock:
            self._db.executemany("INSERT INTO outbox (channel, notice, at, due) VALUES (?, ?, ?, ?)", rows)

    def open(self) -> list[Alert]:
        """Return the alerts that fired and have not resolved, the worst and newest first."""
        return self._alerts(
            "SELECT * FROM alerts WHERE fired_at IS NOT NULL AND resolved_at IS NULL"
            " ORDER BY severity = 'critical' DESC, fired_at DESC, id DESC"
        )

    def recent(self, since: Instant) -> list[Alert]:
        """Return the alerts that have resolved from an instant on, the newest first."""
        return self._alerts("SELECT * FROM alerts WHERE resolved_at >= ? ORDER BY resolved_at DESC, id DESC", since)

    def prune(self, now: Instant, counts: int = KEPT) -> None:
        """Forget what resolved, was told or was counted too long ago; `counts` in microseconds."""
        with self.transaction() as db:
            db.execute("DELETE FROM alerts WHERE resolved_at < ?", (now - KEPT,))
            db.execute("DELETE FROM outbox WHERE at < ? AND (sent_at IS NOT NULL OR given_up)", (now - KEPT,))
            db.execute("DELETE FROM remedies WHERE asked_at < ?", (now - KEPT,))
            db.execute("DELETE FROM counts WHERE minute < ?", ((now - counts) // 60_000_000,))

    def _prepare(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                # Two processes that make a file at once are told at once that it is locked, whatever the timeout.
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                with self.transaction() as db:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _seen(self, db: sqlite3.Connection, found: Condition, now: Instant, looks: int, settled: Settled) -> None:
        """Note that a condition holds."""
        db.execute(
            "INSERT INTO alerts (alert, target, severity, words, value, bound, since, last_seen, looks)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (alert, target) WHERE resolved_at IS NULL DO NOTHING",
            (found.alert, found.target, found.severity, found.words, found.value, found.bound, now, now),
        )
        row, before, seen, fired, told = db.execute(
            "SELECT id, severity, looks, fired_at, told_at FROM alerts"
            " WHERE alert = ? AND target = ? AND resolved_at IS NULL",
            (found.alert, found.target),
        ).fetchone()
        db.execute(
            "UPDATE alerts SET severity = ?, words = ?, value = ?, bound = ?, last_seen = ?, looks = ?, clear = 0"
            " WHERE id = ?",
            (found.severity, found.words, found.value, found.bound, now, seen + 1, row),
        )
        if fired is None and seen + 1 >= looks:
            db.execute("UPDATE alerts SET fired_at = ?, told_at = ? WHERE id = ?", (now, now, row))
            settled.fired.append(self._alert(row))
        elif fired is not None and (now - told >= self._remind or (before, found.severity) == ("warning", "critical")):
            db.execute("UPDATE alerts SET told_at = ? WHERE id = ?", (now, row))
            settled.reminded.append(self._alert(row))

    def _unsettled(
        self, db: sqlite3.Connection, kinds: Collection[str], settled: Collection[tuple[str, str]]
    ) -> list[tuple[str, tuple[int, int, Instant | None]]]:
        """Return what is open of these kinds and was not settled: target; id, looks it was clear for, when it fired."""
        query = "SELECT alert, target, id, clear, fired_at FROM alerts WHERE resolved_at IS NULL"
        rows = db.execute(query).fetchall()
        return [(row[1], row[2:]) for row in rows if row[0] in kinds and row[:2] not in settled]

    def _unseen(
        self,
        db: sqlite3.Connection,
        open_: tuple[int, int, Instant | None],
        now: Instant,
        looks: int,
        settled: Settled,
    ) -> None:
        """Note that a condition holds no longer; what never fired is as if it had never been."""
        row, clear, fired = open_
        if fired is None:
            db.execute("DELETE FROM alerts WHERE id = ?", (row,))
        elif clear + 1 < looks:
            db.execute("UPDATE alerts SET clear = ? WHERE id = ?", (clear + 1, row))
        else:
            db.execute("UPDATE alerts SET resolved_at = ? WHERE id = ?", (now, row))
            settled.resolved.append(self._alert(row))

    def _alert(self, row: int) -> Alert:
        return self._alerts("SELECT * FROM alerts WHERE id = ?", row)[0]

    def _alerts(self, query: str, *values: object) -> list[Alert]:
        with self._lock:
            cursor = self._db.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [msgspec.convert(dict(zip(names, row, strict=True)), Alert) for row in cursor]


def ledger_file(home: Path) -> Path:
    """Return where a project's ledger is."""
    return home / "watch" / "ledger.sqlite"
