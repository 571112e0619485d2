"""What is said of an alert: the same to every channel, each in its own form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from rtml.instants import SECOND, to_text
from rtml.settings import Settings
from rtml_assets.runtime.dagster_home import LOCATION
from rtml_assets.watch.catalog import entry
from rtml_assets.watch.ledger import Notice

_TABLES = {"source": "stream", "view": "published", "service": "serving"}
"""The Dagster asset that stands for a target."""


class Message(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a webhook gets as JSON; instants as RFC 3339."""

    id: str
    """The same when it is sent twice, which it is where an answer was lost."""
    kind: str
    """`fired`, `reminded`, `resolved` or `test`."""
    alert: str
    target: str
    severity: str
    summary: str
    words: str
    value: float | None
    bound: float | None
    since: str
    at: str
    lasted_s: float
    runbook: str
    dagster: str

    @property
    def title(self) -> str:
        """One line: `CRITICAL stream_lag source:departures`."""
        state = self.severity.upper() if self.kind in ("fired", "reminded") else self.kind.upper()
        return f"{state} {self.alert} {self.target}"

    @property
    def lines(self) -> list[str]:
        """All of it, in words."""
        since = {"resolved": f"lasted {self.lasted_s:g} s, since {self.since}"}.get(self.kind, f"since {self.since}")
        bound = "" if self.bound is None else f", bound {self.bound:g}"
        figures = [] if self.value is None else [f"value {self.value:g}{bound}"]
        reminder = ["still so"] if self.kind == "reminded" else []
        return [self.words, *reminder, *figures, since, f"runbook {self.runbook}", f"Dagster {self.dagster}"]


@dataclass(frozen=True)
class Links:
    """Where a reader is sent to."""

    dagster: str
    """Dagster's UI, without a slash at the end."""

    @classmethod
    def of(cls, settings: Settings) -> Links:
        """Return those of a project."""
        return cls((settings.dagster_url or f"http://{settings.host}:{settings.dagster_port}").rstrip("/"))

    def to(self, target: str) -> str:
        """Return the page of Dagster's UI that shows a target."""
        kind, _, name = target.partition(":")
        if kind == "check":
            asset, _, check = name.rpartition(":")
            return f"{self.dagster}/assets/{quote(asset)}?view=checks&checkDetail={quote(check, safe='')}"
        if kind == "job":
            return f"{self.dagster}/locations/__repository__@{LOCATION}/jobs/{quote(name)}"
        if kind == "assets":
            return f"{self.dagster}/runs"
        if kind in _TABLES:
            return f"{self.dagster}/assets/{_TABLES[kind]}/{quote(name)}"
        return f"{self.dagster}/health" if kind == "dagster" else self.dagster


def message(notice: Notice, links: Links) -> Message:
    """Return what is said of a notice."""
    alert, described = notice.alert, entry(notice.alert.alert)
    return Message(
        id=f"{alert.alert}/{alert.target}/{alert.since}/{notice.kind}/{notice.at}",
        kind=notice.kind,
        alert=alert.alert,
        target=alert.target,
        severity=alert.severity,
        summary=described.summary,
        words=alert.words,
        value=alert.value,
        bound=alert.bound,
        since=to_text(alert.since),
        at=to_text(notice.at),
        lasted_s=round((notice.at - alert.since) / SECOND, 1),
        runbook=described.runbook,
        dagster=links.to(alert.target),
    )


def for_slack(said: Message) -> dict[str, Any]:
    """Return a message in the shape that Slack's incoming webhooks take."""
    sign = {"resolved": ":white_check_mark:", "test": ":wave:"}.get(
        said.kind, ":rotating_light:" if said.severity == "critical" else ":warning:"
    )
    first, *more = [_escaped(line) for line in said.lines]
    title = f"{sign} *{_escaped(said.title)}*"
    return {
        "text": f"{said.title}: {said.words}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"{title}\n{first}"[:3000]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": line[:2000]} for line in more]},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
