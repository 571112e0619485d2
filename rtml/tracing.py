"""Where spans go: OpenTelemetry's own parts, loaded only where `otel_endpoint` is set."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from rtml.errors import SettingsError
from rtml.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

EXPORT_SECONDS = 5
"""How long one export may take; spans that cannot be sent are dropped, with a line in the log."""
PATH = "/v1/traces"


class Spans:
    """A tracer whose spans are sent by OTLP over HTTP, from a thread of its own, until `close`.

    Spans are made after the fact: what is traced only notes `time.perf_counter()`, which `nanoseconds` turns into the
    time of a span.

    Raises:
        SettingsError: OpenTelemetry is not installed, or `otel_endpoint` is no URL.
    """

    def __init__(self, settings: Settings, process: str) -> None:
        """Start the thread; `process` becomes the spans' `service.name`, as `rtml-<process>`."""
        self._provider = _provider(settings, process)
        self.tracer: Tracer = self._provider.get_tracer("rtml", version("rtml"))
        self._zero = time.time_ns() - round(time.perf_counter() * 1e9)

    def nanoseconds(self, seconds: float) -> int:
        """Return an instant of `perf_counter` as nanoseconds since 1970."""
        return self._zero + round(seconds * 1e9)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _provider(settings: Settings, process: str) -> TracerProvider:
    url = settings.otel_endpoint
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"otel_endpoint (RTML_OTEL_ENDPOINT) must be a URL of http or https; got {url!r}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"otel_endpoint (RTML_OTEL_ENDPOINT) needs OpenTelemetry: pip install 'rtml[tracing]' ({error})"
        ) from None
    given = url.rstrip("/")
    exporter = OTLPSpanExporter(endpoint=given if given.endswith(PATH) else given + PATH, timeout=EXPORT_SECONDS)
    resource = Resource.create({"service.name": f"rtml-{process}", "service.version": version("rtml")})
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.otel_ratio)), resource=resource, shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
