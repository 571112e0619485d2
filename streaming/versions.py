"""A view's versions: their meta in Redis, and which build of each meaning is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rtml.errors import NotReadyError
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml.plan import Plan
from rtml.projection import Projection

if TYPE_CHECKING:
    from redis import Redis

State = Literal["building", "replaying", "ready", "lost"]
"""`building`: history or stream are still to come. `replaying`: from the lake, which no flow may disturb. `lost`: it
was not written for a while, and what passed meanwhile is missing from it for ever."""

STATES: dict[bytes, State] = {b"building": "building", b"replaying": "replaying", b"ready": "ready", b"lost": "lost"}
INSTANTS = (
    *("boundary", "history_from", "folded_to", "published_to", "caught_up_to", "landed_to", "created_at"),
    *("based_to", "based_late", "pruned_to"),
)

_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('SADD', KEYS[2], ARGV[1])
return 1
"""

GO_LIVE = """
local function build(name) return tonumber(string.match(name, '%.(%d+)$')) end
local function go_live(key, fingerprint, version)
  local old = redis.call('HGET', key, fingerprint)
  if not old or build(old) < build(version) then redis.call('HSET', key, fingerprint, version) end
end
"""
"""Of two builds of one meaning the newer one is served."""

_GO_LIVE = GO_LIVE + "go_live(KEYS[1], ARGV[1], ARGV[2])"


class Version(msgspec.Struct, frozen=True):
    """One version of a view. Instants are in the source's own time."""

    plan: Plan
    version: str
    state: State
    boundary: Instant = BEGINNING
    """B: history before it is publish's, events from it on are the stream's."""
    history_from: Instant = BEGINNING
    """Where published history begins; windows that reach behind it are partial."""
    folded_to: Instant = BEGINNING
    """Late events from before the boundary that were ingested before this instant are in the published tiles."""
    published_to: Instant = BEGINNING
    """Late events that were ingested before this instant have been published."""
    caught_up_to: Instant = BEGINNING
    """What was ingested up to this instant was applied from the lake; the stream has to hold what came after it."""
    landed_to: Instant = BEGINNING
    """Up to when history had been landed in the lake when the version was made."""
    created_at: Instant = BEGINNING
    """The wall clock when it was made."""
    based_to: Instant = BEGINNING
    """Of lifetime windows: all before this instant is in entities' bases, on time or late and ingested before…"""
    based_late: Instant = BEGINNING
    """…this one."""
    pruned_to: Instant = BEGINNING
    """Of a view with lifetime windows: tiles that end before this instant are gone."""
    mended: int = 0
    """How many decisions on quarantined events it was made with."""
    projection: Projection | None = None
    """What the view did to events; by it a version outlives its definition."""

    adopted: bool = False
    """Whether a tiles flow has begun to write it; only flows write this field."""

    @property
    def view(self) -> str:
        """The view's name."""
        return self.plan.view

    @property
    def name(self) -> str:
        """The view and the version, as keys carry them."""
        return f"{self.view}@{self.version}"

    @property
    def build(self) -> int:
        """How often this meaning was built, this time included."""
        return build_of(self.version)

    @property
    def from_stream_alone(self) -> bool:
        """Whether it has no published history, so that the stream gives it everything."""
        return self.boundary == BEGINNING

    def encode(self) -> dict[Any, bytes | str | int]:
        """Return the hash that holds it."""
        return {
            "plan": self.plan.encode(),
            "state": self.state,
            "projection": msgspec.json.encode(self.projection),
            **{name: getattr(self, name) for name in INSTANTS},
            "mended": self.mended,
        }

    @staticmethod
    def decode(version: str, stored: Mapping[Any, Any]) -> Version:
        """Return the version that a hash holds."""
        plan = Plan.decode(stored[b"plan"])
        instants = {name: int(stored.get(name.encode(), BEGINNING)) for name in INSTANTS}
        projection = msgspec.json.decode(stored.get(b"projection", b"null"), type=Projection | None)
        state, mended = STATES[stored[b"state"]], int(stored.get(b"mended", 0))
        adopted = b"adopted" in stored
        return Version(plan, version, state, **instants, mended=mended, projection=projection, adopted=adopted)


def build_of(version: str) -> int:
    """Return the build's number, which follows the fingerprint."""
    return int(version.rpartition(".")[2])


def read_version(client: Redis, view: str, version: str) -> Version | None:
    """Return one version of a view, if it is there."""
    stored = client.hgetall(keys.meta(view, version))
    return Version.decode(version, stored) if stored else None


def live_names(client: Redis, view: str) -> dict[str, str]:
    """Return the version that is served of each of a view's meanings, by fingerprint."""
    stored: dict[Any, Any] = client.hgetall(keys.live(view))
    return {fingerprint.decode(): name.decode() for fingerprint, name in stored.items()}


def live_version(client: Redis, view: str, fingerprint: str) -> Version | None:
    """Return the version that is served of one meaning of a view, if any."""
    name: Any = client.hget(keys.live(view), fingerprint)
    return read_version(client, view, name.decode()) if name else None


def version_names(client: Redis, view: str) -> list[str]:
    """Return all versions of a view, in no order."""
    stored: set[Any] = client.smembers(keys.versions(view))
    return [name.decode() for name in stored]


def find_version(client: Redis, plan: Plan) -> Version | None:
    """Return the newest build of a plan's fingerprint, if any."""
    builds = [name for name in version_names(client, plan.view) if name.startswith(f"{plan.fingerprint}.")]
    return read_version(client, plan.view, max(builds, key=build_of)) if builds else None


def next_version(client: Redis, plan: Plan) -> str:
    """Return the name of the build that comes next."""
    found = find_version(client, plan)
    return f"{plan.fingerprint}.{found.build + 1 if found else 1}"


def create_version(client: Redis, version: Version) -> Version:
    """Write a new version, or return the one that somebody else wrote first."""
    fields = [part for pair in version.encode().items() for part in pair]
    names = (keys.meta(version.view, version.version), keys.versions(version.view))
    client.eval(_CREATE, len(names), *names, version.version, *fields)
    stored = read_version(client, version.view, version.version)
    if stored is None:
        raise NotReadyError(f"version {version.version} of view {version.view!r} vanished while it was created")
    return stored


def save_version(client: Redis, version: Version) -> None:
    """Write a version's meta anew."""
    client.hset(keys.meta(version.view, version.version), mapping=version.encode())


def set_state(client: Redis, version: Version, state: State) -> Version:
    """Write a version's state, and nothing else: its instants may be publish's at this moment."""
    client.hset(keys.meta(version.view, version.version), "state", state)
    return msgspec.structs.replace(version, state=state)


def reword_version(client: Redis, version: Version, plan: Plan) -> Version:
    """Take over a definition's `freshness` and `ttl`, which are no part of what a version means."""
    bounds = {"freshness": plan.freshness, "ttl": plan.ttl}
    reworded = msgspec.structs.replace(version.plan, **bounds)
    if reworded == version.plan:
        return version
    client.hset(keys.meta(version.view, version.version), "plan", reworded.encode())
    return msgspec.structs.replace(version, plan=reworded)


def request_rebuild(client: Redis, version: Version) -> None:
    """Have publish build this meaning anew, as after a correction of its data; the request ends with the version."""
    client.hset(keys.meta(version.view, version.version), "rebuild", 1)


def is_rebuild_requested(client: Redis, version: Version) -> bool:
    """Whether a version is to be built anew."""
    return bool(client.hexists(keys.meta(version.view, version.version), "rebuild"))


def go_live(client: Redis, version: Version) -> None:
    """Serve this build of its meaning from now on, unless a newer one is served."""
    client.eval(_GO_LIVE, 1, keys.live(version.view), version.plan.fingerprint, version.version)
