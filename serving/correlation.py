"""By what a request can be found again: its id, which every answer and log line carries, and its trace."""

from __future__ import annotations

import logging
import os
import re
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rtml.settings import Settings
from serving.wire import Reply, encode_problem

if TYPE_CHECKING:
    from serving.tracing import Trace, Tracing

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"

_VALID_ID = re.compile(r"[\w.:@=+/-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_access = logging.getLogger("rtml.access")


class Headers(Protocol):
    """The headers of a request."""

    def get(self, key: str, /) -> str | None:
        """Return a header."""


class Call(NamedTuple):
    """One request, from its beginning (by `perf_counter`)."""

    request_id: str
    started: float
    headers: Headers
    trace: Trace | None

    @property
    def trace_id(self) -> str | None:
        """The id of its trace, or that of its caller's valid `traceparent` (W3C Trace Context), if there is one."""
        if self.trace is not None:
            return self.trace.trace_id
        found = _TRACEPARENT.fullmatch(self.headers.get(TRACEPARENT) or "")
        return found[1] if found else None

    @property
    def ids(self) -> dict[str, str | None]:
        """What its lines in the log say of it."""
        return {"request_id": self.request_id, "trace_id": self.trace_id}


class Calls:
    """Begins and ends the requests of one server.

    A request's id is the caller's own where that is fit for a log, else a new one: random by process and counted within
    it, which costs next to nothing.
    """

    def __init__(self, settings: Settings) -> None:
        """Draw what this process's ids begin with; nothing of traces is loaded where no endpoint is set.

        Raises:
            SettingsError: traces cannot be sent.
        """
        self._prefix = os.urandom(8).hex()
        self._numbers = count(1)
        self._access_log = settings.access_log
        self._tracing = _tracing(settings)

    def begin(self, headers: Headers) -> Call:
        """Return a request that has just come."""
        given = headers.get(REQUEST_ID)
        fit = given is not None and _VALID_ID.fullmatch(given)
        request_id = given if given is not None and fit else f"{self._prefix}-{next(self._numbers):x}"
        trace = None if self._tracing is None else self._tracing.begin(headers)
        return Call(request_id, perf_counter(), headers, trace)

    def end(self, call: Call, method: str, path: str, label: str, reply: Reply) -> Reply:
        """Return the answer with the request's id: in a header, and in the body where that says what went wrong.

        `label` is the route's name. A traced request's `traceparent` is in a header, too.
        """
        if self._access_log:
            _log_access(call, method, path, reply)
        headers = [*reply.headers, (REQUEST_ID, call.request_id)]
        if self._tracing is not None and call.trace is not None:
            self._tracing.end(call.trace, method, label, reply.status)
            headers.append((TRACEPARENT, call.trace.traceparent))
        body = reply.body if reply.problem is None else encode_problem(reply.problem, call.request_id)
        return Reply(reply.status, body, reply.content_type, headers, reply.problem)

    def close(self) -> None:
        """Send what is left of traces."""
        if self._tracing is not None:
            self._tracing.close()


def _log_access(call: Call, method: str, path: str, reply: Reply) -> None:
    """Write a request's line in the access log; never its query, headers or body."""
    milliseconds = round(1_000 * (perf_counter() - call.started), 3)
    said = {"status": reply.status, "milliseconds": milliseconds, "bytes": len(reply.body)}
    _access.info("%s %r", method, path, extra={**said, **call.ids})


def _tracing(settings: Settings) -> Tracing | None:
    if not settings.otel_endpoint:
        return None
    from serving.tracing import Tracing  # noqa: PLC0415

    return Tracing(settings)
