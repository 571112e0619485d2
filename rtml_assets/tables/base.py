"""Bases of lifetime windows: what is old is folded from `events/` into each entity's base, and its tiles removed.

The protocol is in `rtml.online.base`. `S(up_to, folded_to)` grows in two steps: late events that were published since
join what is folded already, then days of events follow, in order. Each entity is taken from where its own base stands,
so that what another publisher began is gone on with; a base is only written where events join it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
from redis.exceptions import ResponseError

from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, DAY, HOUR, Instant, floor, to_datetime, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.online.adaptive import fold
from rtml.online.base import BASE, MARK, Base
from rtml.online.codec import FIELD_DTYPE, Records, unfield
from rtml.online.salts import partial_columns, partial_tag, partial_tags, with_salt
from rtml.online.texts import DROP, stay_for_ever
from rtml.projection import INGESTED_AT, RowWise, project, to_events
from rtml_assets.tables.delta import open_table, rows_by_day
from rtml_assets.tables.events import in_chunks, is_late, load_events
from rtml_assets.tables.publisher import Hold
from rtml_assets.tables.reach import reach_of
from rtml_assets.tables.runs import strings_of
from rtml_assets.tables.strings import EntityStrings, StringsWriter
from streaming.positions import read_positions, watermark
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

EVENTS_AT_ONCE = 500_000
"""About how many events are folded at a time."""
KEYS_AT_ONCE = 1_000
SLACK = HOUR
"""Tiles stay so much longer than the windows reach: for a reader whose watermark is not the latest."""

STALE = "STALE"
_FOLD = f"""
local old = redis.call('HGET', KEYS[1], '{BASE.decode()}')
if (old and string.sub(old, 1, {MARK}) or '') ~= ARGV[1] then
  return redis.error_reply('{STALE} another publisher wrote the base of ' .. KEYS[1])
end
return redis.call('HSET', KEYS[1], '{BASE.decode()}', ARGV[2])
"""
"""KEYS: the entity's hash. ARGV: the first bytes of the base that this one was made of (empty: none), the new base."""
_KEEP = """
for i = 1, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not old or tonumber(old) < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
"""
"""KEYS: a version's meta. ARGV: names of instants, each with its value; none is ever lowered."""


def foldable(lake_to: Instant, client: Redis, view: RowWise, version: Version) -> Instant:
    """Return up to where bases may reach: nothing on time is to come before it, and no reader asks for what lies there.

    Args:
        lake_to: up to when all that was ingested is in `events/`.
        client: where the stream's positions are.
        view, version: whose bases.
    """
    plan, source = version.plan, view.source
    streamed = watermark(read_positions(client, keys.position(source.name), plan.partitions))
    if streamed == BEGINNING or client.exists(keys.rewinding(source.name)):
        return max(version.boundary, version.based_to)
    edge = min(lake_to, streamed) - plan.lateness
    if source.last_day is not None:  # what comes after it is never compacted
        edge = min(edge, to_instant(source.last_day) + DAY)
    return max(version.boundary, version.based_to, floor(edge, plan.tiles.coarsest))


def fold_bases(lake: Lake, client: Redis, view: RowWise, version: Version, up_to: Instant, hold: Hold) -> Version:
    """Fold what lies before an instant into the bases of a version's entities, and return the version as it is then.

    Late events join that were published before this. It may die anywhere and be repeated.

    Raises:
        NotReadyError: another publisher folds at the same time.
    """
    folded_to = max(version.folded_to, version.published_to)
    if up_to == BEGINNING or (up_to == version.based_to and folded_to == version.based_late):
        return version
    folding = _Folding(client, view, version, hold)
    if folded_to > version.based_late:
        folding.fold(_late_since(lake, view, version, folded_to), version.based_to, folded_to)
    for events, edge in _days(lake, view, version, up_to):
        folding.fold(events, edge, folded_to)
    return _keep(client, version, based_to=up_to, based_late=folded_to)


def drop_tiles(lake: Lake, client: Redis, view: RowWise, version: Version, until: Instant, hold: Hold) -> Version:
    """Remove the tiles that bases hold and that no other window reaches, and return the version as it is then.

    Looked at are the entities with events in the stretch that has just come out of reach: quiet ones too, which the
    stream, that prunes what it writes, would never look at again.
    """
    plan = version.plan
    edge = min(version.based_to, floor(reach_of(client, version, until) - SLACK, plan.tiles.coarsest))
    if edge <= max(version.pruned_to, 0):
        return version
    counts = rows_by_day(open_table(lake.events(view.source.name)))
    first = to_datetime(max(version.pruned_to, 0)).date()
    some = {day: count for day, count in counts.items() if first <= day <= to_datetime(edge).date()}
    for days in in_chunks(some, EVENTS_AT_ONCE):
        rows = project(view, plan, load_events(lake, view.source, list(days)))
        inside = rows.filter(pl.col(EVENT_TIME) >= max(version.pruned_to, 0), pl.col(EVENT_TIME) < edge)
        _drop(client, version, inside.select(plan.key_names).unique().collect(), edge, hold)
    return _keep(client, version, pruned_to=edge)


def _drop(client: Redis, version: Version, entities: pl.DataFrame, edge: Instant, hold: Hold) -> None:
    ladder, suffix = version.plan.tiles, keys.versioned(version.view, version.version)
    names = [tag + suffix for values in entities.rows() for tag in partial_tags(version.plan, values)]
    plan = version.plan
    # No tile before the edge is read any more, and so no string that was last seen in one.
    first = edge // ladder.coarsest if plan.texts and not stay_for_ever(plan) else 0
    for start in range(0, len(names), KEYS_AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for name in names[start : start + KEYS_AT_ONCE]:
            pipeline.hkeys(name)
        found = pipeline.execute()
        pipeline = client.pipeline(transaction=False)
        for name, fields in zip(names[start : start + KEYS_AT_ONCE], found, strict=True):
            tiles = [field for field in fields if len(field) == FIELD_DTYPE.itemsize]
            if gone := [tile for tile in tiles if ladder.end(unfield(tile)) <= edge]:
                pipeline.hdel(name, *gone)
            if first:
                pipeline.eval(DROP, 1, keys.texts(name), first)
        hold()
        pipeline.execute()


def _late_since(lake: Lake, view: RowWise, version: Version, folded_to: Instant) -> pl.LazyFrame:
    """Return the late events that were published since the bases were folded, however old they are."""
    ingested = pl.col(INGESTED_AT)
    days = list(rows_by_day(open_table(lake.events(view.source.name))))
    return load_events(lake, view.source, days).filter(
        ingested >= to_datetime(max(version.based_late, 0)),
        ingested < to_datetime(max(folded_to, 0)),
        is_late(view.source, version.plan.lateness),
    )


def _days(lake: Lake, view: RowWise, version: Version, up_to: Instant) -> Iterator[tuple[pl.LazyFrame, Instant]]:
    """Return the events that lie before an instant and not before the bases, in order, each part with its end."""
    begin, time = max(version.based_to, 0), pl.col(view.source.timestamp)
    counts = rows_by_day(open_table(lake.events(view.source.name)))
    inside = {day: count for day, count in sorted(counts.items()) if to_instant(day) + DAY > begin}
    for days in in_chunks({day: count for day, count in inside.items() if to_instant(day) < up_to}, EVENTS_AT_ONCE):
        end = min(to_instant(max(days)) + DAY, up_to)
        events = load_events(lake, view.source, list(days))
        yield events.filter(time >= to_datetime(begin), time < to_datetime(end)), end


def _keep(client: Redis, version: Version, **instants: Instant) -> Version:
    """Raise some of a version's instants in its meta."""
    fields = [part for pair in instants.items() for part in pair]
    client.eval(_KEEP, 1, keys.meta(version.view, version.version), *fields)
    return msgspec.structs.replace(version, **instants)


_Joining = tuple[str, bytes | None, Array, EntityStrings]
"""An entity's key, its base as it was, and the records and strings that join it."""


class _Folding:
    """Folds events into the bases of one version."""

    def __init__(self, client: Redis, view: RowWise, version: Version, hold: Hold) -> None:
        self._client, self._view, self._version, self._hold = client, view, version, hold
        self._plan = version.plan
        self._script: Script = client.register_script(_FOLD)
        self._suffix = keys.versioned(version.view, version.version)
        # What windows with a left edge reach was written with the tiles; a base needs no more where they alone give
        # strings, and nobody would ever remove those of a quiet entity's past.
        self._strings = StringsWriter(client, version.plan) if stay_for_ever(version.plan) else None

    def fold(self, events: pl.LazyFrame, up_to: Instant, folded_to: Instant) -> None:
        """Bring the entities of these events to `S(up_to, folded_to)`; there are no others that this would change."""
        plan, wide = self._plan, Records.of(self._plan).wide
        owner = partial_columns(plan)
        projected = with_salt(plan, project(self._view, plan, events, texts=True))
        frame = projected.sort(*owner, EVENT_TIME, ID64).collect()
        if frame.is_empty():
            return
        owners = frame.select(pl.struct(owner).rle_id()).to_series().to_numpy()
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        names = [partial_tag(plan, values) + self._suffix for values in frame.select(owner)[starts].rows()]
        stored = self._read(names)
        chosen = self._joining(frame, [Base.decode(data) for data in stored], owners, up_to, folded_to)
        records = Records.of(plan).encode(to_events(plan, frame), 0, wide)
        parts = zip(np.split(records, starts[1:]), np.split(chosen, starts[1:]), strict=True)
        joining = [part[wanted] for part, wanted in parts]
        strings = list(strings_of(plan, frame, starts))
        some = [number for number, part in enumerate(joining) if len(part)]
        for start in range(0, len(some), KEYS_AT_ONCE):
            chunk = [(names[n], stored[n], joining[n], strings[n]) for n in some[start : start + KEYS_AT_ONCE]]
            self._write(chunk, up_to, folded_to)

    def _read(self, names: list[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(names), KEYS_AT_ONCE):
            pipeline = self._client.pipeline(transaction=False)
            for name in names[start : start + KEYS_AT_ONCE]:
                pipeline.hget(name, BASE.decode())
            found += pipeline.execute()
        return found

    def _joining(
        self, frame: pl.DataFrame, bases: list[Base], owners: Array, up_to: Instant, late_to: Instant
    ) -> Array:
        """Return which events are in `S` after this, and not before it.

        An entity's own instants may be older than the meta's, where nothing came of it in between: it is the same `S`.
        """
        times, ingested = frame[EVENT_TIME].to_numpy(), frame[INGESTED_AT].to_numpy()
        late = ingested - times > self._plan.lateness
        was = np.array([base.up_to for base in bases])[owners]
        was_late = np.array([base.folded_to for base in bases])[owners]
        before = (times < was) & (~late | (ingested < was_late))
        after = (times < np.maximum(was, up_to)) & (~late | (ingested < np.maximum(was_late, late_to)))
        return np.asarray(after & ~before)

    def _write(self, chunk: list[_Joining], up_to: Instant, folded_to: Instant) -> None:
        bases = [Base.decode(stored) for _, stored, *_ in chunk]
        pending = [(base.state or None, records) for base, (_, _, records, _) in zip(bases, chunk, strict=True)]
        pipeline = self._client.pipeline(transaction=False)
        states = fold(self._plan, pending)
        for base, (name, stored, records, strings), state in zip(bases, chunk, states, strict=True):
            if self._strings:
                self._strings.write(pipeline, name, strings)
            latest = max(base.latest, int(records["time"].max()))
            new = Base(max(base.up_to, up_to), max(base.folded_to, folded_to), latest, state)
            args: list[Any] = [(stored or b"")[:MARK], new.encode()]
            self._script(keys=[name], args=args, client=pipeline)
        self._hold()
        try:
            pipeline.execute()
        except ResponseError as error:
            if STALE not in str(error):
                raise
            raise NotReadyError(
                f"view {self._version.view!r}: another publisher folded a base meanwhile; this one has stopped. "
                "Publish again"
            ) from None
