"""Which micro-batches are traced, and what a collector gets of them."""

import pytest

from rtml.errors import SettingsError
from rtml.settings import Settings
from streaming import tracing
from streaming.tracing import MicroBatchTraces
from tests.serving.collector import Collector, attributes

WHOLE = ["read", "gate", "route", "write"]


@pytest.fixture
def collected(monkeypatch):
    """Feeds stages to the traces of a flow; returns the spans' names, and those spans."""

    def collected(flow, stages, every=0.0):
        monkeypatch.setattr(tracing, "EVERY_SECONDS", every)
        with Collector() as collector:
            traces = MicroBatchTraces(Settings(otel_endpoint=collector.url), "orders", flow)
            for number, stage in enumerate(stages):
                traces.note(stage, 0.001, number)
            traces.close()
            return [span.name for span in collector.spans], collector.spans

    return collected


def test_a_micro_batch_and_its_stages_are_one_trace(collected):
    names, spans = collected("tiles", WHOLE)
    assert names == [*WHOLE, "micro-batch"]
    assert attributes(spans[-1]) == {"rtml.source": "orders", "rtml.flow": "tiles", "rtml.events": 3}
    assert {span.trace_id for span in spans} == {spans[-1].trace_id}
    assert {span.parent_span_id for span in spans[:-1]} == {spans[-1].span_id}
    assert all(0 <= span.end_time_unix_nano - span.start_time_unix_nano - 1_000_000 < 1_000 for span in spans[:-1])


def test_a_commit_of_the_mirror_is_a_trace_of_one_span(collected):
    names, spans = collected("mirror", ["read", "gate", "append", "read", "append"])
    assert names == ["append", "append"]
    assert attributes(spans[0]) == {"rtml.source": "orders", "rtml.flow": "mirror"}


@pytest.mark.parametrize(
    "mixed",
    [
        ["read", "read", "gate", "gate", "route", "route", "write", "write"],
        ["read", "gate", "read", "route", "write"],
        ["gate", "route", "write"],
        ["read", "gate", "route"],
    ],
)
def test_micro_batches_that_cannot_be_told_apart_are_left_out_and_the_next_is_not(collected, mixed):
    assert collected("tiles", mixed)[0] == []
    assert collected("tiles", [*mixed, *WHOLE])[0] == [*WHOLE, "micro-batch"]


def test_at_most_one_in_a_while_is_traced(collected):
    assert collected("tiles", WHOLE * 5, every=60.0)[0] == [*WHOLE, "micro-batch"]


def test_a_wrong_endpoint_is_told():
    with pytest.raises(SettingsError, match="must be a URL of http or https; got 'nowhere'"):
        MicroBatchTraces(Settings(otel_endpoint="nowhere"), "orders", "tiles")
