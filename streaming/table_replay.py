"""The raw mirror → tiles: a bounded flow beside the two of a source, for a version that the stream cannot fill."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from typing import TYPE_CHECKING

from bytewax import operators as op
from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError

from rtml.define.source import EventSource
from rtml.errors import RequestError
from rtml.instants import BEGINNING, Instant
from rtml.lake import Lake
from rtml.projection import RowWise
from streaming.figures import Figures
from streaming.place import ALONE
from streaming.progress import Progress
from streaming.route import Routed, Router
from streaming.shard import key_of
from streaming.share import Item, divided
from streaming.sinks import TileSink
from streaming.sources.table import Stretch, TableSource
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

BATCH = 16_384
EPOCH = timedelta(seconds=1)


def replay_table(  # noqa: PLR0913
    client: Redis,
    lake: Lake,
    source: EventSource,
    views: list[tuple[RowWise, Version]],
    *,
    start: Instant,
    end: Instant,
    days: Collection[date] | None = None,
    fence: bool = True,
    batch: int = BATCH,
) -> int:
    """Apply the raw mirror's events to versions, and return how many were read: on-time ones, duplicates included.

    It runs in the calling thread. It may be killed and repeated: by I1 nothing counts twice. It takes a generation of
    its own, so that a flow which writes the same versions is refused from then on, and the other way round.

    Args:
        client: the Redis that is written to.
        lake: where `raw/` is.
        source: whose events.
        views: the versions, each with its view; all of this source.
        start: the first instant of ingestion.
        end: the last one.
        days: event days, where others are to be left out.
        fence: whether the fence rises with the replay, as it does with the stream. Without, nothing is pruned.
        batch: how many events are applied at once.

    Raises:
        RequestError: the versions are of another source, or a fence would rise over events that are left out.
        RestartRequiredError: another writer took over, or Redis is no longer the one that it was.
    """
    _check(source, views, days, fence)
    since = min((version.boundary for _, version in views), default=BEGINNING)
    stretch = Stretch(start, end, since, None if days is None else frozenset(days))
    progress = Progress(source.stream.partitions)
    table = TableSource(lake, source, stretch, batch, progress if fence else None)
    sink = TileSink(client, progress, Figures(source.name, "replay"))
    try:
        cli_main(_flow(source, table, Router(source, views), sink), epoch_interval=EPOCH)
        sink.settle()
    except BytewaxRuntimeError as error:
        raise _root(error) from None
    finally:
        sink.close()
    return table.events


def _flow(source: EventSource, table: TableSource, router: Router, sink: TileSink) -> Dataflow:
    def shards(routed: Routed) -> list[tuple[str, Item]]:
        shares = divided(routed.micro_batch, ALONE, again=False)
        return [(key_of(process), share) for process, share in shares]

    flow = Dataflow(f"{source.name}_replay")
    gated = op.input("read", flow, table)
    routed = op.map("route", gated, router)
    sharded = op.flat_map("shard", routed, shards)
    op.output("write", sharded, sink)
    return flow


def _check(
    source: EventSource, views: list[tuple[RowWise, Version]], days: Collection[date] | None, fence: bool
) -> None:
    for view, version in views:
        if view.source.name != source.name or version.view != view.name:
            raise RequestError(
                f"a replay of source {source.name!r} must be for versions of its views; got {version.name} for view "
                f"{view.name!r} of source {view.source.name!r}"
            )
    if fence and days is not None:
        raise RequestError(
            f"a replay of source {source.name!r} by event days must have fence=False: what is ingested with them, but "
            "of other days, would be refused for ever"
        )


def _root(error: BaseException) -> BaseException:
    """Return what was raised in a step of the flow; Bytewax wraps it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
