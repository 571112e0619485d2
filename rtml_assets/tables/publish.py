"""Publish: what Redis serves of a view besides the stream's part, its history up to B and its late events."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, Instant, floor, now, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml.projection import Projection, RowWise
from rtml_assets.tables.base import drop_tiles, fold_bases, foldable
from rtml_assets.tables.catch_up import catch_up, is_followed
from rtml_assets.tables.history import History, history_from, publish_history
from rtml_assets.tables.late import BOUND, LateFigures, publish_late, remember_folded
from rtml_assets.tables.publisher import Hold, sole_publisher
from rtml_assets.tables.reach import history_start
from rtml_assets.tables.touched import complete_to, touched_days
from streaming.mended import mended_count
from streaming.positions import RETENTION, read_positions, watermark
from streaming.rewind import request_rewind
from streaming.versions import (
    GO_LIVE,
    State,
    Version,
    create_version,
    find_version,
    is_rebuild_requested,
    live_names,
    next_version,
    read_version,
)

if TYPE_CHECKING:
    from redis import Redis

_RAISE = """
local function keep(name, value)
  local old = redis.call('HGET', KEYS[1], name)
  if old and tonumber(old) > tonumber(value) then return end
  redis.call('HSET', KEYS[1], name, value)
end
"""
"""No publisher, however late it comes, takes back what another one said."""

_PUBLISHED_TO = _RAISE + "keep('published_to', ARGV[1])"

_READY = f"""
{_RAISE}
{GO_LIVE}
for i = 3, #ARGV, 2 do
  if ARGV[i] == 'published_to' or ARGV[i] == 'folded_to' then keep(ARGV[i], ARGV[i + 1])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local written = redis.call('HEXISTS', KEYS[1], 'adopted') == 1 or redis.call('EXISTS', KEYS[4]) == 0
if written and redis.call('EXISTS', KEYS[3]) == 0 then go_live(KEYS[2], ARGV[1], ARGV[2]) end
return 1
"""
"""Ready and live in one step, unless there is a flow that does not write it yet, or that is going back: once it has
come so far, it serves what is ready."""


@dataclass(frozen=True)
class Published:
    """What was published of a view; `version` is none where there is nothing to publish yet, and `why` says why."""

    version: Version | None
    history: History | None = None
    late: LateFigures | None = None
    caught_up: int = 0
    """Events from the boundary on that were applied from the lake, because the stream does not hold them."""
    remembered: int = 0
    """Late events that are servable now and were not before: their rows in `late/`."""
    why: str = ""


class _Work(NamedTuple):
    """What one publisher works on."""

    lake: Lake
    client: Redis
    view: StreamFeatureView
    plan: Plan
    mirrored: Instant
    """Up to when all is in `raw/`."""
    mended: int
    """How many decisions on quarantined events there were before `until` was asked for."""
    until: Instant
    """Up to when all is in `events/`."""
    hold: Hold


def boundary(plan: Plan, complete: Instant) -> Instant:
    """Return B: the last edge of a coarsest tile before which no on-time event is missing."""
    return floor(complete - plan.lateness, plan.tiles.coarsest)


def publish(lake: Lake, client: Redis, view: StreamFeatureView, plan: Plan) -> Published:
    """Publish a version's history if it is still to be, then the late events of all versions that are served.

    It may die anywhere and be repeated: what history holds is fixed first, then come tiles, then the meta that makes
    them count. One publisher of a view waits for the other. A version with an entity of more than `BOUND` late events
    is built anew, its late events in the tiles; so is one whose rebuild was requested.

    Raises:
        NotReadyError: history is to be published, and `events/` does not hold all of it yet; or another publisher is
            at work.
    """
    with sole_publisher(client, view.name) as hold:
        mirrored = watermark(read_positions(client, keys.mirrored(plan.source), plan.partitions))
        if mirrored == BEGINNING:
            return Published(None, why="nothing is mirrored yet")
        mended = mended_count(lake, view.source)
        work = _Work(lake, client, view, plan, mirrored, mended, complete_to(lake, view.source, mirrored), hold)
        _publish_others(work)
        return _publish(work)


def _publish(work: _Work) -> Published:
    version = find_version(work.client, work.plan)
    if version is None or version.state == "lost":
        if not work.client.exists(keys.landed(work.plan.source), keys.trimmed(work.plan.source)):
            return Published(None, why="the stream holds all events: it makes the version itself")
        return _publish_all(work, None)
    if version.state != "ready" and not version.from_stream_alone:
        return _publish_all(work, version if version.mended >= work.mended else None)
    if version.state == "ready" and (reason := _to_be_rebuilt(work, version)):
        return dataclasses.replace(_publish_all(work, None), why=reason)
    if work.until < version.published_to:
        words = f"events/{work.plan.source} holds less than was published: it is complete to {to_text(work.until)} only"
        return Published(version, why=words)
    late = _publish_late(work, work.view, version)
    if version.state == "ready" and late.most > BOUND >= late.remaining:
        return _with(_publish_all(work, None), late)
    return Published(msgspec.structs.replace(version, published_to=work.until), late=late, remembered=late.new)


def _with(rebuilt: Published, late: LateFigures) -> Published:
    """Say of a build that took another one's place why it did."""
    return dataclasses.replace(rebuilt, late=late, remembered=rebuilt.remembered + late.new)


def _to_be_rebuilt(work: _Work, version: Version) -> str:
    """Say why a complete version is to be built anew, if it is."""
    if is_rebuild_requested(work.client, version):
        return "a rebuild was requested"
    if _landed_to(work) > max(version.landed_to, version.folded_to):
        return "history was landed after the version was made"
    if work.mended > version.mended:
        return "quarantined events were mended after the version was made"
    return ""


def _landed_to(work: _Work) -> Instant:
    landed = work.client.get(keys.landed(work.plan.source))
    return int(landed) if landed else BEGINNING


def _publish_all(work: _Work, version: Version | None) -> Published:
    """History, what the stream lacks of that which follows it, and late events; then the version counts."""
    _check_complete(work)
    work.hold()
    version = version or _begin(work)
    history = publish_history(work.lake, work.client, work.view, version, work.hold)
    if work.plan.lifetime:
        version = fold_bases(work.lake, work.client, work.view, version, version.boundary, work.hold)
        version = msgspec.structs.replace(version, pruned_to=history_start(version))
    caught_up = 0
    if version.state == "replaying":
        caught_up = catch_up(work.lake, work.client, work.view, version, work.mirrored, work.hold)
        version = msgspec.structs.replace(version, caught_up_to=work.mirrored)
    late = publish_late(work.lake, work.client, work.view, version, work.until, work.hold)
    folded = remember_folded(work.lake, work.client, work.view, version, work.until)
    begin = history_from(work.lake, work.view)
    ready = msgspec.structs.replace(version, history_from=begin, published_to=work.until, state="ready")
    work.hold()
    _serve(work.client, ready)
    return Published(ready, history, late, caught_up, folded + late.new)


def _publish_others(work: _Work) -> None:
    """Publish what was late for the other versions of the view that are served: former meanings, former builds."""
    newest = find_version(work.client, work.plan)
    for name in live_names(work.client, work.view.name).values():
        version = read_version(work.client, work.view.name, name)
        if version is None or version.state != "ready" or version.projection is None:
            continue
        is_newest = newest is not None and version.version == newest.version
        if version.plan.source == work.plan.source and not is_newest and work.until >= version.published_to:
            _publish_late(work, version.projection.over(version.view, work.view.source), version)


def _publish_late(work: _Work, view: RowWise, version: Version) -> LateFigures:
    late = keep_up(work.lake, work.client, view, version, work.until, work.hold)
    work.hold()
    meta = keys.meta(version.view, version.version)
    work.client.eval(_PUBLISHED_TO, 1, meta, work.until)  # the rest may be the stream's
    return late


def keep_up(lake: Lake, client: Redis, view: RowWise, version: Version, until: Instant, hold: Hold) -> LateFigures:
    """Publish what was late up to an instant; before, what was published goes into bases where there are any.

    So a late event counts for all windows at once, and folding it changes no value.
    """
    lasting = version.plan.lifetime and version.state == "ready"
    if lasting:
        version = fold_bases(lake, client, view, version, foldable(until, client, view, version), hold)
    late = publish_late(lake, client, view, version, until, hold)
    if lasting:
        drop_tiles(lake, client, view, version, until, hold)
    return late


def _begin(work: _Work) -> Version:
    """Fix what history is to hold; from here on the stream may write what follows it.

    A stream that has come further has to go back for the new version's sake. What it holds no longer, or never held
    because it was landed, is replayed from the lake first, and no flow may write the version meanwhile.
    """
    client, plan, edge = work.client, work.plan, boundary(work.plan, work.until)
    request_rewind(client, work.view.source)
    state: State = "building" if is_followed(client, work.view.source, edge) else "replaying"
    projection = Projection.of(work.view)
    name = next_version(client, plan)
    made = Version(
        plan,
        name,
        state,
        boundary=edge,
        folded_to=work.until,
        landed_to=_landed_to(work),
        created_at=now(),
        mended=work.mended,
        projection=projection,
    )
    return create_version(client, made)


def _serve(client: Redis, ready: Version) -> None:
    """Write the meta by which history counts; and serve it, unless the stream has to catch up first."""
    fields = [part for pair in ready.encode().items() for part in pair]
    source = ready.plan.source
    figures = keys.figures(source, "tiles")  # there are some where a flow ever ran
    names = (keys.meta(ready.view, ready.version), keys.live(ready.view), keys.rewinding(source), figures)
    client.eval(_READY, len(names), *names, ready.plan.fingerprint, ready.version, *fields)


def _check_complete(work: _Work) -> None:
    """Refuse to fix history at what `events/` happens to hold: what is missing would be missing for ever."""
    source, client = work.view.source, work.client
    trimmed = client.exists(keys.trimmed(source.name))
    needed = max(_landed_to(work), work.mirrored - RETENTION if trimmed else BEGINNING)
    if work.until < min(needed, work.mirrored):
        days = touched_days(work.lake, source)
        which = f", {days[0]} to {days[-1]}" if days else ""
        raise NotReadyError(
            f"view {work.view.name!r}: history is complete only to {to_text(work.until)}, and must be to "
            f"{to_text(needed)}: materialise {len(days)} days of events/{source.name} first{which}"
        )
