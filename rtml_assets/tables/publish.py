"""Publish: what Redis serves of a view besides the stream's part, its history up to B and its late events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from rtml.define.views import StreamFeatureView
from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, HOUR, Instant, floor, to_text
from rtml.lake import Lake
from rtml.online import keys
from rtml.plan import Plan
from rtml_assets.tables.history import History, history_from, publish_history
from rtml_assets.tables.late import LateFigures, publish_late
from rtml_assets.tables.touched import complete_to, touched_days
from streaming.positions import START, read_positions, watermark
from streaming.versions import Version, create_version, find_version

if TYPE_CHECKING:
    from redis import Redis

_READY = """
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('SET', KEYS[2], ARGV[1]) end
return 1
"""
"""Ready and live in one step. A stream that is going back reads the meta when it is done, and promotes then."""

KEPT = HOUR
"""How far behind both flows a stream still holds its entries."""


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

    It may die anywhere and be repeated, or run twice at once: what history holds is fixed first, then come tiles, then
    the meta that makes them count.

    Raises:
        NotReadyError: history is to be published, and `events/` does not hold all of it yet.
    """
    mirrored = watermark(read_positions(client, keys.mirrored(plan.source), plan.partitions))
    if mirrored == BEGINNING:
        return Published(None, why="nothing is mirrored yet")
    until = complete_to(lake, view.source, mirrored)
    version = find_version(client, plan)
    if version is None and not client.exists(keys.landed(plan.source), keys.trimmed(plan.source)):
        return Published(None, why="the stream holds all events: it makes the version itself")
    if version is not None and not _has_history_to_come(version):
        return _publish_late_alone(lake, client, view, version, max(until, version.published_to))
    _check_complete(lake, client, view, mirrored, until)
    version = version or _begin(client, plan, until)
    history = publish_history(lake, client, view, version)
    late = publish_late(lake, client, view, version, until)
    ready = msgspec.structs.replace(version, history_from=history_from(lake, view), published_to=until, state="ready")
    _serve(client, ready)
    return Published(ready, history, late)


def _publish_late_alone(
    lake: Lake, client: Redis, view: StreamFeatureView, version: Version, until: Instant
) -> Published:
    late = publish_late(lake, client, view, version, until)
    client.hset(keys.meta(version.view, version.version), "published_to", until)  # the rest may be the stream's
    return Published(msgspec.structs.replace(version, published_to=until), None, late)


def _has_history_to_come(version: Version) -> bool:
    """Whether a version waits for publish; one without a boundary waits for the stream."""
    return version.state == "building" and version.boundary != BEGINNING


def _begin(client: Redis, plan: Plan, until: Instant) -> Version:
    """Fix what history is to hold; from here on the stream may write what follows it.

    A stream that has come further has to go back for the new version's sake.
    """
    if _has_come_far(client, plan):
        client.sadd(keys.rewinding(plan.source), *range(plan.partitions))
    name, edge = f"{plan.fingerprint}.1", boundary(plan, until)
    return create_version(client, Version(plan, name, "building", boundary=edge, folded_to=until))


def _serve(client: Redis, ready: Version) -> None:
    """Write the meta by which history counts; and serve it, unless the stream has to catch up first."""
    fields = [part for pair in ready.encode().items() for part in pair]
    names = (keys.meta(ready.view, ready.version), keys.live(ready.view), keys.rewinding(ready.plan.source))
    client.eval(_READY, len(names), *names, ready.version, *fields)


def _has_come_far(client: Redis, plan: Plan) -> bool:
    positions = read_positions(client, keys.position(plan.source), plan.partitions)
    return any(position.offset != START for position in positions)


def _check_complete(lake: Lake, client: Redis, view: StreamFeatureView, mirrored: Instant, until: Instant) -> None:
    """Refuse to fix history at what `events/` happens to hold: what is missing would be missing for ever."""
    landed = client.get(keys.landed(view.source.name))
    trimmed = client.exists(keys.trimmed(view.source.name))
    needed = max(int(landed) if landed else BEGINNING, mirrored - KEPT if trimmed else BEGINNING)
    if until < min(needed, mirrored):
        days = touched_days(lake, view.source)
        raise NotReadyError(
            f"view {view.name!r}: history is complete only to {to_text(until)}, and must be to {to_text(needed)}: "
            f"materialise {len(days)} days of events/{view.source.name} first, {days[0]} to {days[-1]}"
        )
