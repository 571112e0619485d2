"""`/v1/sla`: the watch's last look at the platform, passed on as it wrote it, with what the server itself knows.

The watch writes a look to Redis and to a file of its own, since Redis may be what is gone, or full: the newest of both,
and of what this server has seen before, is the one that is shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from rtml import instants
from rtml.errors import RequestError, UnavailableError
from rtml.instants import MINUTE, Instant
from rtml.online import keys
from rtml.settings import Settings
from serving.runbooks import runbooks
from serving.sla_history import History, thinned
from serving.state import Snapshot
from serving.wire import Reply, encode

SLA, SLA_HISTORY = "/v1/sla", "/v1/sla/history"
CACHED_SECONDS = 0.5
"""For so long an answer is given again: many open pages cost as much as one."""
MOST_MINUTES = 60
"""The watch keeps an hour of looks at its usual interval."""

_log = logging.getLogger("rtml.serving")
Where = Literal["redis", "file", "memory"]
Read = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any]]]


class OwnState(msgspec.Struct):
    """What the server knows without the watch."""

    ready: Annotated[bool, Meta(description="Whether requests would be answered, as in `/readyz`.")]
    reasons: list[str]
    redis: Annotated[bool, Meta(description="Whether Redis answered this server now.")]


class Sla(msgspec.Struct):
    """The platform as the watch last saw it. Instants are microseconds since 1970."""

    at: Annotated[Instant, Meta(description="Now, by the server's clock.")]
    age_ms: Annotated[float | None, Meta(description="How long ago the watch looked; null when it never did.")]
    seen: Annotated[
        Where | None,
        Meta(description="Where the look was found: in Redis, in the watch's file, or in this server's memory."),
    ]
    server: OwnState
    report: Annotated[
        msgspec.Raw | None, Meta(description="The look: platform, sources, views, services, objectives, alerts.")
    ]
    checks: Annotated[
        dict[str, msgspec.Raw],
        Meta(description="What Dagster's asset checks came to, by `<asset/key>:<check>`; empty while Redis is away."),
    ]
    services: Annotated[dict[str, list[str]], Meta(description="The views of each service, as last known.")]
    interval_ms: Annotated[float, Meta(description="How often the watch is to look.")]
    dagster: Annotated[str, Meta(description="Where Dagster's UI is.")]
    runbooks: Annotated[list[str], Meta(description="The runbooks that `/runbooks/{name}` has.")]


class _Look(NamedTuple):
    """A report as it was found."""

    at: Instant
    where: Where
    body: bytes


class _Stamp(msgspec.Struct):
    """As much of a report as the server reads."""

    at: Instant


class Slas:
    """Answers `/v1/sla` and its history.

    Args:
        settings: where the watch's file is, and what pages link to.
        read: reads Redis within the server's patience.
        snapshot: what the server last saw of services; raises while Redis is away.
        now: the wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        read: Read,
        snapshot: Callable[[], Snapshot],
        now: Callable[[], Instant] = instants.now,
    ) -> None:
        """Take where to look; nothing is read yet."""
        self._settings, self._read, self._snapshot, self._now = settings, read, snapshot, now
        self._file = settings.home_path / "watch" / "report.json"
        self._dagster = (settings.dagster_url or f"http://{settings.host}:{settings.dagster_port}").rstrip("/")
        self._last: _Look | None = None
        self._services: dict[str, list[str]] = {}
        self._replies: dict[str, tuple[float, Reply]] = {}
        self._lock = asyncio.Lock()

    async def latest(self) -> Reply:
        """Return the last look; that Redis is away is part of the answer, and no failure."""
        return await self._cached("", self._latest)

    async def history(self, query: str) -> Reply:
        """Return the looks of the last `minutes`.

        Raises:
            RequestError: the query asks for something else.
            UnavailableError: Redis does not answer.
        """
        minutes = minutes_of(query)
        return await self._cached(str(minutes), lambda: self._history(minutes))

    async def _cached(self, key: str, made: Callable[[], Awaitable[Reply]]) -> Reply:
        async with self._lock:
            known = self._replies.get(key)
            if known is None or monotonic() - known[0] > CACHED_SECONDS:
                known = self._replies[key] = (monotonic(), await made())
            return known[1]

    async def _latest(self) -> Reply:
        body, stored, away = await self._stored()
        found = [
            self._last and self._last._replace(where="memory"),
            await asyncio.to_thread(self._from_file),
            _look(body, "redis", keys.WATCH),
        ]
        looks = [look for look in found if look is not None]
        # Of two of the same instant the later in the list: it was found closer to its origin.
        self._last = max(reversed(looks), key=lambda look: look.at, default=None)
        now, last = self._now(), self._last
        answer = Sla(
            at=now,
            age_ms=None if last is None else max(0.0, (now - last.at) / 1_000),
            seen=None if last is None else last.where,
            server=self._own(away),
            report=None if last is None else msgspec.Raw(last.body),
            checks=_checks(stored),
            services=self._services,
            interval_ms=self._settings.watch_interval_us / 1_000,
            dagster=self._dagster,
            runbooks=runbooks(),
        )
        return Reply(200, encode(answer))

    async def _stored(self) -> tuple[bytes | None, Mapping[bytes, bytes], str]:
        """Return what Redis has of the last look and of checks, or why it cannot be read."""
        try:
            body, stored = await self._read([("GET", keys.WATCH), ("HGETALL", keys.WATCH_CHECKS)])
        except UnavailableError as error:
            return None, {}, str(error)
        return body, stored, ""

    def _from_file(self) -> _Look | None:
        try:
            return _look(self._file.read_bytes(), "file", str(self._file))
        except OSError:
            return None  # usual where the watch runs on another machine

    def _own(self, away: str) -> OwnState:
        if away:
            return OwnState(False, [away], False)
        try:
            snapshot = self._snapshot()
        except UnavailableError as error:
            return OwnState(False, [str(error)], True)
        self._services = {name: list(each.fingerprints) for name, each in sorted(snapshot.services.items())}
        reasons = snapshot.unready()
        return OwnState(not reasons, reasons, True)

    async def _history(self, minutes: int) -> Reply:
        (points,) = await self._read([("LRANGE", keys.WATCH_HISTORY, 0, -1)])
        now = self._now()
        history: History = await asyncio.to_thread(thinned, points, now - minutes * MINUTE, now)
        return Reply(200, encode(history))


def minutes_of(query: str) -> int:
    """Return what `minutes=60` asks for.

    Raises:
        RequestError: it is no whole number from 1 to 60, or something else is asked for.
    """
    asked = parse_qs(query, keep_blank_values=True)
    (text,) = asked.pop("minutes", [str(MOST_MINUTES)])[-1:]
    if asked:
        raise RequestError(f"unknown parameter {min(asked)!r}; there is 'minutes'")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_MINUTES:
        raise RequestError(f"minutes must be a whole number from 1 to {MOST_MINUTES}; got {text[:40]!r}")
    return int(text)


def _look(body: bytes | None, where: Where, name: str) -> _Look | None:
    if body is None:
        return None
    try:
        return _Look(msgspec.json.decode(body, type=_Stamp).at, where, body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("the watch's report in %s cannot be read: %s", name, error)
        return None


def _checks(stored: Mapping[bytes, bytes]) -> dict[str, msgspec.Raw]:
    found = {}
    for name, body in sorted(stored.items()):
        try:
            msgspec.json.decode(body)
            found[name.decode()] = msgspec.Raw(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("what Redis holds of check %r cannot be read: %s", name, error)
    return found
