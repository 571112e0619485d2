"""The two roads of an event. Each is a Bytewax flow in processes of its own, with a recovery store of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink

from rtml.define.source import EventSource
from rtml.lake import Lake
from rtml.online import keys
from rtml.projection import RowWise
from rtml.registry import Registry
from rtml.settings import Settings
from streaming.adoption import Adoption
from streaming.contracts import former_contracts
from streaming.ending import EndingSink, EndingSource
from streaming.entries import Entries
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.group import Process, ended_by
from streaming.mended import Mended, mended_count
from streaming.mirror import Mirror
from streaming.place import ALONE, Place
from streaming.progress import Progress
from streaming.route import Routed, Router
from streaming.shard import Sharder
from streaming.share import Item
from streaming.sinks import MirrorSink, TileSink
from streaming.sources.redis_stream import Reading, RedisStreamSource
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

Flow = Literal["tiles", "mirror"]
FLOWS: tuple[Flow, ...] = ("tiles", "mirror")


def adopt(client: Redis, registry: Registry, source: EventSource, settings: Settings) -> Adoption:
    """Decide which versions of its views a source's tiles flow writes."""
    known = mended_count(Lake(settings.lake_root), source)
    return Adoption(client, registry, source, settings.version_grace_us, known)


def tiles_flow(
    client: Redis,
    source: EventSource,
    settings: Settings,
    deployed: bytes | None,
    views: list[tuple[RowWise, Version]],
    adoption: Adoption | None = None,
    group: Process | None = None,
) -> Dataflow:
    """Stream → gate → tiles in Redis, servable when written.

    Args:
        client: the Redis to read from and write to.
        source: whose events.
        settings: where the lake is, and how much is read at once.
        deployed: the counter of deployments when the definitions were loaded.
        views: the versions that are written, as they were adopted.
        adoption: what goes live when the past has been read again; in a group the leader's.
        group: the process of a group that this is; by default the flow's only one.
    """
    lake = Lake(settings.lake_root)
    mended = Mended.load(lake, source)  # only now: no version that is written was made with decisions unknown to it
    place = group.place if group else ALONE
    progress, figures = Progress(source.stream.partitions), _figures(source, "tiles", settings, place)
    reading = _reading("tiles", keys.position(source.name), settings, deployed)
    figures.count(duplicates=0, conflicting=0, fenced=0, damaged=0)  # shown as zeros until there are some

    read: FixedPartitionedSource[Entries, str] = RedisStreamSource(client, source, reading, figures, adoption, place)
    gate = figures.timed("gate", Gate(source, former_contracts(lake, source)))
    mend, route = mended.apply, figures.timed("route", Router(source, views))
    shard: Callable[[Routed], list[tuple[str, Item]]] = Sharder(source, figures, place)
    sink: FixedPartitionedSink[Item, None] = TileSink(client, progress, figures, place, [one for _, one in views])
    if group:
        read, sink = EndingSource(group, read), EndingSink(group, sink)
        gate, mend, route = ended_by(group, gate), ended_by(group, mend), ended_by(group, route)
        shard = ended_by(group, shard)

    flow = Dataflow(f"{source.name}_tiles")
    entries = op.input("read", flow, read)
    gated = op.map("gate", entries, gate)
    counted = op.map("mend", gated, mend)
    routed = op.map("route", counted, route)
    sharded = op.flat_map("shard", routed, shard)
    op.output("write", sharded, sink)
    return flow


def mirror_flow(client: Redis, source: EventSource, settings: Settings, deployed: bytes | None) -> Dataflow:
    """Stream → gate → the raw mirror and the quarantine in Delta."""
    figures = _figures(source, "mirror", settings)
    reading = _reading("mirror", keys.mirrored(source.name), settings, deployed)
    lake = Lake(settings.lake_root)
    mirror = Mirror(client, lake, source, figures)

    flow = Dataflow(f"{source.name}_mirror")
    entries = op.input("read", flow, RedisStreamSource(client, source, reading, figures))
    gated = op.map("gate", entries, figures.timed("gate", Gate(source, former_contracts(lake, source))))
    single = op.key_on("single", gated, lambda _: "mirror")
    op.output("append", single, MirrorSink(mirror))
    return flow


def _figures(source: EventSource, flow: Flow, settings: Settings, place: Place = ALONE) -> Figures:
    if not settings.otel_endpoint:
        return Figures(source.name, flow, place=place)
    from streaming.tracing import MicroBatchTraces  # noqa: PLC0415

    return Figures(source.name, flow, traces=MicroBatchTraces(settings, source.name, flow), place=place)


def _reading(flow: Flow, position_key: str, settings: Settings, deployed: bytes | None) -> Reading:
    return Reading(flow, position_key, settings.batch, settings.credit, settings.accept_stamps, deployed)
