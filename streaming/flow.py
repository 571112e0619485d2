"""The two roads of an event. Each is a Bytewax flow in a process of its own, with a recovery store of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bytewax import operators as op
from bytewax.dataflow import Dataflow

from rtml.define.source import EventSource
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import Registry
from rtml.settings import Settings
from streaming.adoption import Adoption
from streaming.contracts import former_contracts
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.mended import Mended, mended_count
from streaming.mirror import Mirror
from streaming.progress import Progress
from streaming.route import Router
from streaming.shard import Sharder
from streaming.sinks import MirrorSink, TileSink
from streaming.sources.redis_stream import Reading, RedisStreamSource

if TYPE_CHECKING:
    from redis import Redis

Flow = Literal["tiles", "mirror"]
FLOWS: tuple[Flow, ...] = ("tiles", "mirror")


def tiles_flow(
    client: Redis, registry: Registry, source: EventSource, settings: Settings, deployed: bytes | None
) -> Dataflow:
    """Stream → gate → tiles in Redis, servable when written."""
    lake = Lake(settings.lake_root)
    adoption = Adoption(client, registry, source, settings.version_grace_us, mended_count(lake, source))
    mended = Mended.load(lake, source)  # only now: no version that is written was made with decisions unknown to it
    progress, figures = Progress(source.stream.partitions), _figures(source, "tiles", settings)
    reading = _reading("tiles", keys.position(source.name), settings, deployed)
    router = Router(source, adoption.views)
    figures.count(duplicates=0, conflicting=0, fenced=0, damaged=0)  # shown as zeros until there are some

    flow = Dataflow(f"{source.name}_tiles")
    entries = op.input("read", flow, RedisStreamSource(client, source, reading, progress, figures, adoption))
    gated = op.map("gate", entries, figures.timed("gate", Gate(source, former_contracts(lake, source))))
    counted = op.map("mend", gated, mended.apply)
    routed = op.map("route", counted, figures.timed("route", router))
    sharded = op.flat_map("shard", routed, Sharder(source, figures))
    op.output("write", sharded, TileSink(client, progress, figures))
    return flow


def mirror_flow(
    client: Redis, registry: Registry, source: EventSource, settings: Settings, deployed: bytes | None
) -> Dataflow:
    """Stream → gate → the raw mirror and the quarantine in Delta."""
    del registry
    progress, figures = Progress(source.stream.partitions), _figures(source, "mirror", settings)
    reading = _reading("mirror", keys.mirrored(source.name), settings, deployed)
    lake = Lake(settings.lake_root)
    mirror = Mirror(client, lake, source, figures)

    flow = Dataflow(f"{source.name}_mirror")
    entries = op.input("read", flow, RedisStreamSource(client, source, reading, progress, figures))
    gated = op.map("gate", entries, figures.timed("gate", Gate(source, former_contracts(lake, source))))
    single = op.key_on("single", gated, lambda _: "mirror")
    op.output("append", single, MirrorSink(mirror))
    return flow


def _figures(source: EventSource, flow: Flow, settings: Settings) -> Figures:
    if not settings.otel_endpoint:
        return Figures(source.name, flow)
    from streaming.tracing import MicroBatchTraces  # noqa: PLC0415

    return Figures(source.name, flow, traces=MicroBatchTraces(settings, source.name, flow))


def _reading(flow: Flow, position_key: str, settings: Settings, deployed: bytes | None) -> Reading:
    return Reading(flow, position_key, settings.batch, settings.credit, settings.accept_stamps, deployed)
