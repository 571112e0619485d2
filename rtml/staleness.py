"""How sure an answer is: one status for each view and entity, and what a service does about old values.

Of all that is true of a view's values for an entity, the status says the first in this table:

| status | what is true | what is known for certain |
|---|---|---|
| `damaged` | raw records that the answer needs are gone | nothing: no value is served |
| `expired` | the entity's last event is older than `ttl`, or may be | values, as of that event |
| `stale` | the stream's position is older than `freshness` | what was, not what is: newer events may be missing |
| `partial` | the longest window reaches behind published history | shorter windows; longer ones lack events |
| `missing` | nothing was ever seen of the entity, by a whole and fresh stream | that it had no event |
| `fresh` | none of these | all of it |

So neither bound is ever passed by a `fresh` value, and an entity that was never seen is `missing` only where that is
knowledge: under a stale position it is `stale`, under a history that begins too late `partial`. Damage comes first, as
then even what is old cannot be told; then expiry, which is about the entity itself, while staleness and partial history
are about all entities of a view alike.

The last event is the latest before the instant asked. The stream's own is known exactly, and so are late ones. An
entity of which the stream has brought nothing (published history alone, or nothing before the instant) is known by its
tiles: exactly where they hold records, else from the start of the latest tile on. An event that may be younger than
`ttl`, and may not, counts as older.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from rtml.instants import Duration, Instant

Status = Literal["fresh", "stale", "expired", "partial", "missing", "damaged"]
OnStale = Literal["serve", "refuse", "default"]
"""What a service does about old values: `serve` them, `refuse` to, or give its `default`s instead."""
ON_STALE: tuple[OnStale, ...] = get_args(OnStale)

REPLACED: Mapping[OnStale, frozenset[Status]] = MappingProxyType(
    {"serve": frozenset(), "refuse": frozenset({"expired"}), "default": frozenset({"stale", "expired"})}
)
"""Under which statuses a service gives other values than those that were computed. One that refuses has no stale row:
it refuses the whole request."""


def is_stale(at: Instant, reach: Instant, freshness: Duration, epoch: Duration) -> bool:
    """Whether a view that is servable up to `reach` is too old at an instant; a position moves once an epoch."""
    return at - reach > freshness + epoch


def is_expired(at: Instant, last_event: Instant, ttl: Duration | None) -> bool:
    """Whether an entity whose last event was then, or later as far as is known, is too old at an instant."""
    return ttl is not None and at - last_event > ttl


def status_of(*, damaged: bool, known: bool, expired: bool, stale: bool, partial: bool) -> Status:
    """Return the status of a view's values for an entity; `known` is whether anything was ever seen of it."""
    if damaged:
        return "damaged"
    if known and expired:
        return "expired"
    if stale:
        return "stale"
    if partial:
        return "partial"
    return "fresh" if known else "missing"
