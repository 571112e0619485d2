"""Spans of feature requests: the request, and in it decode, wait, redis, merge and encode.

A request notes when its stages began and ended; spans are made of that when it has been answered, and sent by a thread.
A round trip that several requests share is in the trace of each, with their number.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from rtml.settings import Settings
from rtml.tracing import Spans
from serving.correlation import TRACEPARENT, Headers
from serving.features import FeatureVectors

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Stage(NamedTuple):
    """A part of a request, by `perf_counter`."""

    name: str
    start: float
    end: float
    shared: int = 1
    """How many requests it was done for at once."""
    error: str | None = None


class Trace:
    """What one request has noted; its stages only where it is sampled."""

    def __init__(self, span: Span) -> None:
        """Take the request's span, which has begun."""
        self.span = span
        self.sampled = span.is_recording()
        self.stages: list[Stage] = []

    @property
    def trace_id(self) -> str:
        """The trace's id, as logs and `traceparent` have it."""
        return f"{self.span.get_span_context().trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """The request's own span, as a header."""
        context = self.span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def add(self, name: str, start: float, end: float, shared: int = 1, error: str | None = None) -> None:
        """Note a stage."""
        if self.sampled:
            self.stages.append(Stage(name, start, end, shared, error))

    def answered(self, service: str, vectors: FeatureVectors) -> None:
        """Note what was asked for, and how it was found."""
        if not self.sampled:
            return
        statuses = Counter(status for column in vectors.status.values() for status in column)
        self.span.set_attributes({"rtml.service": service, "rtml.entities": len(vectors.rows)})
        self.span.set_attributes({f"rtml.status.{status}": number for status, number in statuses.items()})


class Tracing:
    """Traces the requests of one server."""

    def __init__(self, settings: Settings) -> None:
        """Start sending.

        Raises:
            SettingsError: OpenTelemetry is not installed, or the endpoint is no URL.
        """
        self._spans = Spans(settings, "serving")
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._kinds, self._error, self._inside = SpanKind, StatusCode.ERROR, set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract

    def begin(self, headers: Headers) -> Trace:
        """Begin a request's span, in the trace of its caller where there is one."""
        carried = {name: headers.get(name) for name in (TRACEPARENT, "tracestate")}
        parent = self._extract({name: value for name, value in carried.items() if value is not None})
        start = self._spans.nanoseconds(perf_counter())
        return Trace(self._spans.tracer.start_span("request", parent, self._kinds.SERVER, start_time=start))

    def end(self, trace: Trace, method: str, route: str, status: int) -> None:
        """Make the spans of an answered request."""
        if not trace.sampled:
            return
        trace.span.update_name(f"{method} {route}")
        said: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
        trace.span.set_attributes(said)
        if status >= 500:
            trace.span.set_status(self._error, f"answered {status}")
        for stage in trace.stages:
            self._add(trace.span, stage)
        trace.span.end(self._spans.nanoseconds(perf_counter()))

    def close(self) -> None:
        """Send what is left."""
        self._spans.close()

    def _add(self, parent: Span, stage: Stage) -> None:
        at_redis = stage.name == "redis"
        attributes: dict[str, Any] = {"rtml.shared_requests": stage.shared} if stage.shared > 1 else {}
        span = self._spans.tracer.start_span(
            stage.name,
            self._inside(parent),
            self._kinds.CLIENT if at_redis else self._kinds.INTERNAL,
            {**attributes, "db.system.name": "redis"} if at_redis else attributes,
            start_time=self._spans.nanoseconds(stage.start),
        )
        if stage.error is not None:
            span.set_status(self._error, stage.error)
        span.end(self._spans.nanoseconds(stage.end))
