"""Late events → Redis: each entity's `late` field, and the table `late/` that remembers when they became servable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64
from rtml.columns import TIMESTAMP
from rtml.instants import BEGINNING, Instant, floor, now, to_datetime
from rtml.lake import LATE, Lake, signed
from rtml.online import codec, keys
from rtml.online.base import LATE_AT
from rtml.projection import INGESTED_AT, RowWise, project
from rtml_assets.tables.delta import insert_new, open_table, rows_by_day
from rtml_assets.tables.events import is_late, load_events
from rtml_assets.tables.publisher import Hold
from rtml_assets.tables.reach import history_start, reach_of
from rtml_assets.tables.runs import Run, runs
from rtml_assets.tables.strings import StringsWriter
from streaming.positions import has_begun, read_positions, watermark
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

BOUND = 256
"""So many late events of one entity may be read with every request; with more, the version is to be rebuilt."""
KEYS_AT_ONCE = 1_000


class LateFigures(NamedTuple):
    """What is published: events in reach of a window, those that are new, their entities, and the most of one.

    `remaining` is the most of one that a new build could not take into its tiles yet.
    """

    events: int
    new: int
    entities: int
    most: int
    remaining: int


def publish_late(lake: Lake, client: Redis, view: RowWise, version: Version, until: Instant, hold: Hold) -> LateFigures:
    """Write the late events that were ingested up to an instant, and that are not in published tiles or out of reach.

    Fields are absolute and the table is read before it is added to: it may die anywhere and be repeated.
    `hold` is called before each write.
    """
    hold()
    found = list(runs(view, version.plan, _servable_late(lake, client, view, version, until)))
    fields = {run.tag + keys.versioned(version.view, version.version): run for run in found}
    _write_fields(client, version, fields, hold)
    new = _remember(lake, version, view.source.name, _places(found), _present(client, version, until))
    return _figures(found, new, floor(until - version.plan.lateness, version.plan.tiles.coarsest))


def _figures(found: Sequence[Run], new: int, edge: Instant) -> LateFigures:
    """Count by entity, however many partial states it has; an event from an edge on is not in the tiles of a build."""
    sizes: Counter[str] = Counter()
    remaining: Counter[str] = Counter()
    for run in found:
        entity = keys.parted(run.tag)[0]
        sizes[entity] += len(run.records)
        remaining[entity] += int((run.records["time"].astype(np.int64) >= edge).sum())
    most, most_remaining = max(sizes.values(), default=0), max(remaining.values(), default=0)
    return LateFigures(sizes.total(), new, len(sizes), most, most_remaining)


def _servable_late(lake: Lake, client: Redis, view: RowWise, version: Version, until: Instant) -> pl.LazyFrame:
    source = view.source
    reach = to_datetime(reach_of(client, version, until))
    days = list(rows_by_day(open_table(lake.events(source.name))))
    time, ingested = pl.col(source.timestamp), pl.col(INGESTED_AT)
    counts = time >= reach
    if version.boundary != BEGINNING:
        counts &= (time >= to_datetime(version.boundary)) | (ingested >= to_datetime(version.folded_to))
    if version.plan.lifetime:
        unfolded = (time >= to_datetime(max(version.based_to, 0))) | (
            ingested >= to_datetime(max(version.based_late, 0))
        )
        counts |= unfolded
    else:
        days = [day for day in days if day >= reach.date()]
    return load_events(lake, source, days).filter(
        is_late(source, version.plan.lateness), counts, ingested <= to_datetime(until)
    )


def _write_fields(client: Redis, version: Version, found: Mapping[str, Run], hold: Hold) -> None:
    """Write the fields of these keys, and remove those of all others."""
    listed = keys.late_entities(version.view, version.version)
    life = version.plan.expire_after // 1_000
    known: set[Any] = client.smembers(listed)
    gone = {name.decode() for name in known} - set(found)
    names, strings = list(found), StringsWriter(client, version.plan)
    for start in range(0, len(names), KEYS_AT_ONCE):
        some = names[start : start + KEYS_AT_ONCE]
        pipeline = client.pipeline(transaction=False)
        pipeline.sadd(listed, *some)
        for name in some:
            strings.write(pipeline, name, found[name].strings)
            pipeline.hset(name, mapping=_fields(version, found[name]))
            pipeline.pexpire(name, life)
        hold()
        pipeline.execute()
    pipeline = client.pipeline(transaction=False)
    for name in gone:
        pipeline.hdel(name, codec.LATE, LATE_AT)
        pipeline.srem(listed, name)
    pipeline.pexpire(listed, life)
    hold()
    pipeline.execute()


def _fields(version: Version, run: Run) -> dict[Any, Any]:
    """Return an entity's late events as its hash has them; of a view with lifetime windows also when each came."""
    fields: dict[Any, Any] = {codec.LATE: codec.RAW_MARK + run.records.tobytes()}
    if version.plan.lifetime:
        fields[LATE_AT] = run.ingested.astype("<i8").tobytes()
    return fields


def remember_folded(lake: Lake, client: Redis, view: RowWise, version: Version, until: Instant) -> int:
    """Remember which late events published tiles and bases hold, as servable from now on; return how many are new."""
    source, plan = view.source, version.plan
    start = 0 if plan.lifetime else history_start(version)
    days = [day for day in rows_by_day(open_table(lake.events(source.name))) if day >= to_datetime(start).date()]
    time, ingested = pl.col(source.timestamp), pl.col(INGESTED_AT)
    folded = load_events(lake, source, days).filter(
        is_late(source, plan.lateness),
        time >= to_datetime(start),
        time < to_datetime(version.boundary),
        ingested < to_datetime(version.folded_to),
    )
    places = project(view, plan, folded).select(EVENT_TIME, ID64).collect()
    return _remember(lake, version, source.name, places, _present(client, version, until))


def _present(client: Redis, version: Version, until: Instant) -> Instant:
    """Return the stream's present: before it, no request has seen what is published now.

    A stream that does not run on carried stamps has answered requests up to the wall clock, where it may lag behind.
    """
    source, partitions = version.plan.source, version.plan.partitions
    streamed = max(until, watermark(read_positions(client, keys.position(source), partitions)))
    replayed = client.exists(keys.replay_time(source)) or not has_begun(client, source, partitions)
    return streamed if replayed else max(streamed, now())


def _places(found: list[Run]) -> pl.DataFrame:
    """Return the event times (µs) and id64 of runs of records."""
    if not found:
        return pl.DataFrame(schema={EVENT_TIME: pl.Int64, ID64: pl.UInt64})
    records = np.concatenate([run.records for run in found])
    return pl.DataFrame({EVENT_TIME: records["time"].astype(np.int64), ID64: records["id64"].astype(np.uint64)})


def _remember(lake: Lake, version: Version, source: str, places: pl.DataFrame, at: Instant) -> int:
    """Append to `late/` what is not there yet, as servable from an instant on; return how many rows that were."""
    if places.is_empty():
        return 0
    rows = places.with_columns(
        pl.col(EVENT_TIME).cast(TIMESTAMP),
        signed(ID64),
        view=pl.lit(version.view),
        version=pl.lit(version.version),
        published_at=pl.lit(to_datetime(at), dtype=TIMESTAMP),
        event_date=pl.col(EVENT_TIME).cast(TIMESTAMP).dt.date(),
    )
    return insert_new(lake.late(source), rows.select(*LATE), ["view", "version", EVENT_TIME, ID64])
