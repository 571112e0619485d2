"""Publish: what Redis serves of a view besides the stream's part, its history up to B and its late events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, Instant, floor, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml_assets.tables.history import History, history_from, publish_history
from rtml_assets.tables.late import LateFigures, publish_late
from rtml_assets.tables.publisher import Hold, sole_publisher
from rtml_assets.tables.touched import complete_to, touched_days
from streaming.positions import RETENTION, arrived_at, has_begun, read_positions, watermark
from streaming.versions import Version, create_version, find_version

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
for i = 2, #ARGV, 2 do
  if ARGV[i] == 'published_to' or ARGV[i] == 'folded_to' then keep(ARGV[i], ARGV[i + 1])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('SET', KEYS[2], ARGV[1]) end
return 1
"""
"""Ready and live in one step. A stream that is going back reads the meta when it is done, and promotes then."""


@dataclass(frozen=True)
class Published:
    """What was published of a view; `version` is none where there is nothing to publish yet, and `why` says why."""

    version: Version | None
    history: History | None = None
    late: LateFigures | None = None
    why: str = ""


def boundary(plan: Plan, complete: Instant) -> Instant:
    """Return B: the last edge of a coarsest tile before which no on-time event is missing."""
    return floor(complete - plan.lateness, plan.tiles.coarsest)


def publish(lake: Lake, client: Redis, view: StreamFeatureView, plan: Plan) -> Published:
    """Publish a version's history if it is still to be, then its late events.

    It may die anywhere and be repeated: what history holds is fixed first, then come tiles, then the meta that makes
    them count. One publisher of a view waits for the other.

    Raises:
        NotReadyError: history is to be published, and `events/` does not hold all of it yet, or the stream no longer
            holds what follows it; or another publisher is at work.
    """
    with sole_publisher(client, view.name) as hold:
        return _publish(lake, client, view, plan, hold)


def _publish(lake: Lake, client: Redis, view: StreamFeatureView, plan: Plan, hold: Hold) -> Published:
    mirrored = watermark(read_positions(client, keys.mirrored(plan.source), plan.partitions))
    if mirrored == BEGINNING:
        return Published(None, why="nothing is mirrored yet")
    until = complete_to(lake, view.source, mirrored)
    version = find_version(client, plan)
    if version is None and not client.exists(keys.landed(plan.source), keys.trimmed(plan.source)):
        return Published(None, why="the stream holds all events: it makes the version itself")
    if version is not None and not _has_history_to_come(version):
        return _publish_late_alone(lake, client, view, version, max(until, version.published_to), hold)
    _check_complete(lake, client, view, mirrored, until)
    hold()
    if version is None:
        _check_followed(client, view, boundary(plan, until))
        version = _begin(client, plan, until)
    history = publish_history(lake, client, view, version, hold)
    late = publish_late(lake, client, view, version, until, hold)
    ready = msgspec.structs.replace(version, history_from=history_from(lake, view), published_to=until, state="ready")
    hold()
    _serve(client, ready)
    return Published(ready, history, late)


def _publish_late_alone(
    lake: Lake, client: Redis, view: StreamFeatureView, version: Version, until: Instant, hold: Hold
) -> Published:
    late = publish_late(lake, client, view, version, until, hold)
    hold()
    client.eval(_PUBLISHED_TO, 1, keys.meta(version.view, version.version), until)  # the rest may be the stream's
    return Published(msgspec.structs.replace(version, published_to=until), None, late)


def _has_history_to_come(version: Version) -> bool:
    """Whether a version waits for publish; one without a boundary waits for the stream."""
    return version.state == "building" and version.boundary != BEGINNING


def _begin(client: Redis, plan: Plan, until: Instant) -> Version:
    """Fix what history is to hold; from here on the stream may write what follows it.

    A stream that has come further has to go back for the new version's sake.
    """
    if has_begun(client, plan.source, plan.partitions):
        client.sadd(keys.rewinding(plan.source), *range(plan.partitions))
    name, edge = f"{plan.fingerprint}.1", boundary(plan, until)
    return create_version(client, Version(plan, name, "building", boundary=edge, folded_to=until))


def _serve(client: Redis, ready: Version) -> None:
    """Write the meta by which history counts; and serve it, unless the stream has to catch up first."""
    fields = [part for pair in ready.encode().items() for part in pair]
    names = (keys.meta(ready.view, ready.version), keys.live(ready.view), keys.rewinding(ready.plan.source))
    client.eval(_READY, len(names), *names, ready.version, *fields)


def _check_complete(lake: Lake, client: Redis, view: StreamFeatureView, mirrored: Instant, until: Instant) -> None:
    """Refuse to fix history at what `events/` happens to hold: what is missing would be missing for ever."""
    landed = client.get(keys.landed(view.source.name))
    trimmed = client.exists(keys.trimmed(view.source.name))
    needed = max(int(landed) if landed else BEGINNING, mirrored - RETENTION if trimmed else BEGINNING)
    if until < min(needed, mirrored):
        days = touched_days(lake, view.source)
        raise NotReadyError(
            f"view {view.name!r}: history is complete only to {to_text(until)}, and must be to {to_text(needed)}: "
            f"materialise {len(days)} days of events/{view.source.name} first, {days[0]} to {days[-1]}"
        )


def _check_followed(client: Redis, view: StreamFeatureView, edge: Instant) -> None:
    """Refuse a boundary that the stream's entries do not reach back to: what lies between would be missing for ever.

    Events of the boundary and after may have been ingested as early as the skew before it.
    """
    source = view.source
    if not client.exists(keys.trimmed(source.name)):
        return
    needed = edge - source.skew_us
    for partition in range(source.stream.partitions):
        oldest = _oldest(client, view, partition)
        if oldest is not None and oldest > needed:
            raise NotReadyError(
                f"view {view.name!r}: its history would end at {to_text(edge)}, and needs all that source "
                f"{source.name!r} ingested from {to_text(needed)} on to follow; but the stream was trimmed, and the "
                f"oldest entry of partition {partition} is of {to_text(oldest)}: what came between would be missing"
            )


def _oldest(client: Redis, view: StreamFeatureView, partition: int) -> Instant | None:
    """Return from when on a partition holds all entries; nothing where it holds all that there ever were."""
    source = view.source
    key = source.stream.key(partition)
    if not client.exists(key):
        return None
    info: Any = client.xinfo_stream(key)
    if info.get("entries-added") == info["length"]:  # from Redis 7 on it counts what was ever added
        return None
    stamped = client.exists(keys.replay_time(source.name))
    entries: Any = client.xrange(key, count=1)
    if entries:
        offset, fields = entries[0]
        stamp = fields.get(b"ingested_at") if stamped else None
        return arrived_at(offset) if stamp is None or not stamp.isdigit() else int(stamp)
    if stamped:  # the last entry's stamp went with it; the mirror has come that far
        return read_positions(client, keys.mirrored(source.name), source.stream.partitions)[partition].ingested_at
    return arrived_at(info["last-generated-id"])
