"""Spans of micro-batches: at most one a second is traced, so that a busy flow sends no more than an idle one.

The tiles flow sends `micro-batch`, and in it read, gate, route and write; the mirror flow sends `append`, its commit of
an epoch. A write of 1,000 events or more ends when they are sent: Redis works while the next micro-batch is gated.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from rtml.settings import Settings
from rtml.tracing import Spans

EVERY_SECONDS = 1.0
STAGES: dict[str, tuple[str, ...]] = {"tiles": ("read", "gate", "route", "write"), "mirror": ("append",)}
"""What a traced micro-batch of a flow goes through, in order."""


class _Stage(NamedTuple):
    name: str
    start: float
    end: float


class MicroBatchTraces:
    """Makes spans of the stages that a flow's figures hear of."""

    def __init__(self, settings: Settings, source: str, flow: str) -> None:
        """Start sending.

        Raises:
            SettingsError: OpenTelemetry is not installed, or the endpoint is no URL.
        """
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

        self._spans, self._inside = Spans(settings, "stream"), set_span_in_context
        self._attributes = {"rtml.source": source, "rtml.flow": flow}
        self._whole = STAGES[flow]
        self._stages: list[_Stage] = []
        self._events = 0
        self._due = 0.0

    def note(self, stage: str, seconds: float, events: int) -> None:
        """Hear of a stage that has just ended; when it was the last one, make the spans.

        Micro-batches of several partitions may pass the stages side by side. Those cannot be told apart here, and are
        left out: another one comes.
        """
        end = perf_counter()
        if stage == self._whole[0]:
            self._stages, self._events = [], 0
        if end < self._due or self._whole[len(self._stages)] != stage:
            self._stages = []
            return
        self._stages.append(_Stage(stage, end - seconds, end))
        self._events = max(self._events, events)
        if len(self._stages) == len(self._whole):
            self._due = end + EVERY_SECONDS
            self._send(self._stages)
            self._stages = []

    def close(self) -> None:
        """Send what is left. A flow that is killed loses the traces of its last seconds."""
        self._spans.close()

    def _send(self, stages: list[_Stage]) -> None:
        at, start_span = self._spans.nanoseconds, self._spans.tracer.start_span
        single = len(stages) == 1
        name = stages[0].name if single else "micro-batch"
        counted = {} if single else {"rtml.events": self._events}
        whole = start_span(name, attributes={**self._attributes, **counted}, start_time=at(stages[0].start))
        for stage in [] if single else stages:
            start_span(stage.name, self._inside(whole), start_time=at(stage.start)).end(at(stage.end))
        whole.end(at(stages[-1].end))
