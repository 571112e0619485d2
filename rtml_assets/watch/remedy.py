"""What the platform does about an alert by itself, where an SLA says so: a flow is restarted, a view is compacted.

Each remedy is taken at most once in a while, and written into the ledger. A restart is a request to the supervisor,
which runs in another process; a backfill waits in the ledger for Dagster's sensor `remedies`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from rtml.instants import MINUTE, SECOND, Duration, Instant, to_text
from rtml_assets.runtime.supervisor import request_restart
from rtml_assets.watch.agreements import Agreement
from rtml_assets.watch.ledger import Alert, Ledger
from rtml_assets.watch.report import Report

RESTART, BACKFILL = "restart", "backfill"
EVERY: dict[str, Duration] = {RESTART: 5 * MINUTE, BACKFILL: 60 * MINUTE}
"""How long a remedy is not taken again for the same thing."""
YOUNG: Duration = 20 * SECOND
"""So long a process has to begin its work: one that was started just now is not stuck."""
CURED_BY: dict[str, Collection[str]] = {RESTART: ("stream_stalled",), BACKFILL: ("freshness", "nulls")}
"""Which alerts a remedy is for. Lag is none of a restart: a flow that is merely behind would only lose time."""


class Remedy(msgspec.Struct, frozen=True):
    """Something that was done, or is to be done."""

    id: int
    kind: str
    what: str
    """A process of the supervisor, as `stream:departures:tiles`; or a view."""
    target: str
    why: str
    asked_at: Instant
    done_at: Instant | None = None
    outcome: str | None = None

    def __str__(self) -> str:
        """Say it in words."""
        done = "asked for" if self.done_at is None else self.outcome or "done"
        return f"{self.kind} of {self.what}: {done} at {to_text(self.done_at or self.asked_at)}"


class Remedies:
    """Takes the remedies that SLAs name.

    Args:
        ledger: where they are written down.
        agreed: the SLAs by target.
        requests: the folder where the supervisor looks for requests.
        mirror_epoch: how often the mirror flow commits, in microseconds.
    """

    def __init__(self, ledger: Ledger, agreed: Mapping[str, Agreement], requests: Path, mirror_epoch: Duration) -> None:
        """Take the parts."""
        self._ledger, self._agreed, self._requests = ledger, agreed, requests
        # The mirror passes heartbeats on with its commits: one that was just missed waits for the next.
        self._slack = {"mirror": 2 * mirror_epoch}
        self._born: dict[str, tuple[int | None, Instant]] = {}

    def take(self, alerts: Collection[Alert], report: Report, now: Instant) -> list[Remedy]:
        """Do about open alerts what their SLAs say, and return what is new."""
        ways: dict[str, Callable[[Alert, Report, Instant], list[Remedy]]] = {
            RESTART: self._restart,
            BACKFILL: self._backfill,
        }
        self._note_births(report, now)
        taken: list[Remedy] = []
        for alert in alerts:
            agreement = self._agreed.get(alert.target)
            for kind in agreement.sla.remedy if agreement else ():
                if alert.alert in CURED_BY[kind]:
                    taken += ways[kind](alert, report, now)
        return taken

    def _note_births(self, report: Report, now: Instant) -> None:
        """Remember since when each process is another one than before; those of the first look are old."""
        for name, process in report.platform.processes.items():
            known = self._born.setdefault(name, (process.pid, now - YOUNG))
            if known[0] != process.pid:
                self._born[name] = (process.pid, now)

    def _restart(self, alert: Alert, report: Report, now: Instant) -> list[Remedy]:
        found = []
        for child in self._stuck(alert.target, report):
            if now - self._born.get(child, (None, now - YOUNG))[1] < YOUNG:
                continue
            remedy = ask(self._ledger, RESTART, child, alert, now)
            if remedy is not None:
                request_restart(self._requests, child)
                finish(self._ledger, remedy.id, now, "requested of the supervisor")
                found.append(remedy)
        return found

    def _backfill(self, alert: Alert, report: Report, now: Instant) -> list[Remedy]:
        del report
        remedy = ask(self._ledger, BACKFILL, alert.target.partition(":")[2], alert, now)
        return [] if remedy is None else [remedy]

    def _stuck(self, target: str, report: Report) -> list[str]:
        """Return the processes of a source whose heartbeats are missing, while it is stalled.

        A source that is merely behind is not, nor one that waits for Redis: it does so by itself, and loses nothing.
        """
        name = target.partition(":")[2]
        source = report.sources.get(name)
        if source is None or source.state != "stalled" or not report.platform.redis.up:
            return []
        bound = self._agreed[target].sla.us("heartbeat") or 0
        return [
            f"stream:{name}:{flow}"
            for flow, seen in source.flows.items()
            if (seen.worst("missing_ms") or 0.0) * 1_000 > bound + self._slack.get(flow, 0)
        ]


def ask(ledger: Ledger, kind: str, what: str, alert: Alert, now: Instant) -> Remedy | None:
    """Write down that something is to be done, unless that was so a short while ago."""
    with ledger.transaction() as db:
        query = "SELECT 1 FROM remedies WHERE kind = ? AND what = ? AND asked_at > ?"
        if db.execute(query, (kind, what, now - EVERY[kind])).fetchone():
            return None
        why = f"{alert.alert} of {alert.target}"
        statement = "INSERT INTO remedies (kind, what, target, why, asked_at) VALUES (?, ?, ?, ?, ?) RETURNING id"
        (row,) = db.execute(statement, (kind, what, alert.target, why, now)).fetchone()
    return Remedy(row, kind, what, alert.target, why, now)


def finish(ledger: Ledger, remedy: int, now: Instant, outcome: str) -> None:
    """Write down what became of a remedy."""
    with ledger.transaction() as db:
        db.execute("UPDATE remedies SET done_at = ?, outcome = ? WHERE id = ?", (now, outcome, remedy))


def waiting(ledger: Ledger, kind: str) -> list[Remedy]:
    """Return what is still to be done, the oldest first."""
    return [each for each in remedies(ledger) if each.kind == kind and each.done_at is None][::-1]


def remedies(ledger: Ledger, since: Instant = 0) -> list[Remedy]:
    """Return what was asked for from an instant on, the newest first."""
    columns = Remedy.__struct_fields__
    query = (
        "SELECT id, kind, what, target, why, asked_at, done_at, outcome FROM remedies WHERE asked_at >= ?"
        " ORDER BY asked_at DESC, id DESC"
    )
    return [msgspec.convert(dict(zip(columns, row, strict=True)), Remedy) for row in ledger.rows(query, since)]
