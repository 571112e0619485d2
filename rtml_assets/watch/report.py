"""One look at the whole platform, as it is written to Redis (`rtml:watch`) and `<home>/watch/report.json`.

    Report
    ├── at, took_ms                       when the look was taken, and how long it took
    ├── platform: Platform                redis, server, dagster, lake, disks by name, processes by name
    ├── sources: {name: Source}           state, partitions' lag and heartbeats by flow, figures, last event
    │   └── flows: {"tiles" | "mirror": Flow}
    │       └── partitions: [Partition]
    ├── views: {name: View}               what is served of it, and how old
    ├── services: {name: Service}         readiness, real traffic, a probe
    ├── objectives: [Objective]           each bound of each SLA (defaults, too), and whether it holds at this look
    └── alerts: [Alert]                   open alerts; whoever keeps the ledger fills them in

Everything that could not be seen is `None`, with `words` that say why. `*_ms` are milliseconds, `*_at` instants
(int64 µs, UTC), `*_bytes` bytes; shares lie between 0 and 1.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from rtml.instants import Duration, Instant
from streaming.minute import FEW

State = Literal["flowing", "quiet", "replaying", "stalled", "unwritten", "unseen"]
"""`flowing`: events come. `quiet`: none come, but heartbeats do. `replaying`: the tiles flow reads its past again.
`stalled`: heartbeats do not come through. `unwritten`: the stream was never written to. `unseen`: Redis is away."""


class Quantiles(msgspec.Struct, frozen=True):
    """A distribution in milliseconds."""

    p50: float
    p95: float
    p99: float


class RedisLook(msgspec.Struct, frozen=True):
    """How Redis is."""

    up: bool
    words: str = ""
    latency_ms: float | None = None
    """One round trip."""
    used_bytes: int | None = None
    max_bytes: int | None = None
    """`maxmemory`, or all of its machine's memory where that is not set."""
    policy: str | None = None
    """`maxmemory-policy`; `noeviction` is the right one."""
    clock_offset_ms: float | None = None
    """How far its clock is ahead of the watch's."""
    clock_error_ms: float | None = None
    """How wrong that may be: half the round trip."""

    @property
    def memory(self) -> float | None:
        """The share of its memory that is in use."""
        return self.used_bytes / self.max_bytes if self.max_bytes and self.used_bytes is not None else None


class ServerLook(msgspec.Struct, frozen=True):
    """How the feature server is."""

    up: bool | None
    """`None` where the project runs without one."""
    ready: bool | None = None
    words: str = ""
    """What stands in the way of being up, or ready."""
    latency_ms: float | None = None
    """One request for its heartbeats."""
    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None


class DagsterLook(msgspec.Struct, frozen=True):
    """How Dagster's daemon is; all is `None` where the project runs without Dagster."""

    up: bool | None = None
    words: str = ""
    unhealthy: list[str] = []
    """The daemons whose heartbeat is missing, such as `SENSOR`."""


class LakeLook(msgspec.Struct, frozen=True):
    """Whether the lake can be written to, as of the last probe."""

    writable: bool | None = None
    words: str = ""
    probed_at: Instant | None = None


class Disk(msgspec.Struct, frozen=True):
    """The file system that a folder is on."""

    path: str
    free_bytes: int | None = None
    total_bytes: int | None = None
    words: str = ""

    @property
    def free(self) -> float | None:
        """The share of it that is free."""
        return self.free_bytes / self.total_bytes if self.total_bytes and self.free_bytes is not None else None


class Process(msgspec.Struct, frozen=True):
    """A process that the project's supervisor keeps running."""

    pid: int | None
    """`None` while it is dead."""
    restarts: int
    crashes: int = 0
    """Deaths that nobody asked for, since the project was started."""
    recent_crashes: int = 0
    """Of them, those that the watch saw in the last minutes."""
    exit_code: int | None = None
    """That of its last death."""


class Platform(msgspec.Struct, frozen=True):
    """What all sources and services share."""

    redis: RedisLook
    server: ServerLook
    dagster: DagsterLook = DagsterLook()
    lake: LakeLook = LakeLook()
    disks: dict[str, Disk] = {}
    """`home`, and `lake` where that is a folder."""
    processes: dict[str, Process] = {}
    """By the supervisor's names: `departures:tiles`, `serve`, `dagster-daemon`, …; none where it does not run."""


class Partition(msgspec.Struct, frozen=True):
    """How far a flow is in one partition."""

    partition: int
    offset: str = "0-0"
    ingested_at: Instant | None = None
    """The position's instant, in the source's own time; `None` for a partition never read."""
    lag_ms: float | None = None
    """How long the oldest entry that the position does not cover has waited; 0 when all are covered."""
    lag_entries: int | None = None
    """How many wait, up to `MOST_COUNTED`."""
    heartbeat_ms: float | None = None
    """How long the newest heartbeat that came through took from the stream to Redis (tiles) or the lake (mirror)."""
    missing_ms: float | None = None
    """How long the oldest heartbeat that was sent has not come through; 0 when none is missing."""


class HotKey(msgspec.Struct, frozen=True):
    """The most frequent entity of the last minute."""

    entity: str
    """Its key in Redis, such as `rtml:{origin|JFK}`."""
    share: float
    error: float
    """The share may be too low by so much, and is never too high."""
    keys: int | None = None
    """How many entities there are of its kind, at least."""

    @property
    def is_of_few(self) -> bool:
        """Whether it has its share by nature: of two entities, one always has half of all events."""
        return self.keys is not None and self.keys < FEW


class Flow(msgspec.Struct, frozen=True):
    """One of a source's flows: its own figures, and how far it is."""

    partitions: list[Partition] = []
    updated_at: Instant | None = None
    """When it last wrote its figures; `None` if it never ran."""
    moved_at: Instant | None = None
    """When the watch last saw a position of it move."""
    freshness_p50_ms: float | None = None
    freshness_p99_ms: float | None = None
    events_per_second: float | None = None
    counts: dict[str, int] = {}
    """Since the beginning: accepted, late, duplicates, refused, conflicting, fenced, damaged."""
    minute: dict[str, int] = {}
    """In the last minute: accepted, late, duplicates, refused, future (those of the refused)."""
    nulls: dict[str, float] = {}
    """By column of the contract that may be null: which share of the last minute's events had none."""
    hot: HotKey | None = None
    stages: dict[str, Quantiles] = {}
    """By stage (read, gate, route, write, …): milliseconds per micro-batch in the last minute."""
    cache: dict[str, int] = {}
    """The tile writer's cache: `cached_entities`, and `cache_hits` and `cache_misses` since the beginning."""

    def worst(self, figure: Literal["lag_ms", "lag_entries", "heartbeat_ms", "missing_ms"]) -> float | None:
        """Return the greatest value of a figure over the partitions that have one."""
        return max((value for part in self.partitions if (value := getattr(part, figure)) is not None), default=None)


class Source(msgspec.Struct, frozen=True):
    """How a source is."""

    state: State
    words: str = ""
    flows: dict[str, Flow] = {}
    replayed: bool = False
    """It runs on carried stamps: its own time is not the clock's."""
    last_event_at: Instant | None = None
    """When the broker took the newest event that a flow has seen."""
    last_event_age_ms: float | None = None
    server_heartbeat_ms: float | None = None
    """From the stream to an answer of the feature server."""
    held: str = ""
    """Why its flows do not run by the definitions; empty when they do."""


class View(msgspec.Struct, frozen=True):
    """What is served of a view."""

    source: str
    version: str | None = None
    state: str | None = None
    """`ready` or `building`; `None` when nothing is served yet."""
    watermark_at: Instant | None = None
    """Up to where its source is servable, in the source's own time."""
    age_ms: float | None = None
    """How long ago, by the clock, the stream was servable to its end: beyond an epoch of the tiles flow."""
    nulls: dict[str, float] = {}
    """By feature: which share of a sample of the values served in the last minute was null; empty when none were."""
    words: str = ""


class Service(msgspec.Struct, frozen=True):
    """How a service is answered."""

    version: int | None = None
    ready: bool | None = None
    requests: int | None = None
    """Answered since the last look, probes included."""
    errors: int | None = None
    """Of them, those that failed by no fault of the client."""
    requests_per_second: float | None = None
    latency: Quantiles | None = None
    """Of the answers in the last minute."""
    age_ms: float | None = None
    """That of its oldest view."""
    probe_ms: float | None = None
    """A request of the watch's own, for an entity that nobody has."""
    probe_ok: bool | None = None
    words: str = ""


class Objective(msgspec.Struct, frozen=True):
    """One bound of an SLA, and whether it holds at this look."""

    target: str
    """`source:departures`, `view:origin_departures`, `service:eta`."""
    name: str
    """freshness, lag, heartbeat, late, duplicates, refused, p99, availability, or `nulls:<column or feature>`."""
    value: float | None
    bound: float
    unit: Literal["ms", "share"]
    good: bool | None
    """`None` when there was nothing to judge, or it could not be seen: such a look counts neither way."""
    share: float
    """Which share of looks (availability: of requests) must be good over the budget's time."""
    budget: Duration
    promised: bool
    """Whether somebody wrote it down; a default raises alerts, and has no error budget."""
    total: int = 1
    bad: int | None = None
    """What this look adds to the budget's count: requests for availability, else one look, bad or not.
    Not to be counted while `good` is `None`."""
    words: str = ""
    """Why there is no value."""
    left: float | None = None
    """The share of its error budget that is left, as the watch counted; below 0 when more than all is spent."""
    burn: dict[str, float] = {}
    """By window, as `1h`: how many times faster than allowed the budget burns."""


class Alert(msgspec.Struct, frozen=True):
    """An open alert."""

    alert: str
    """Its name in the catalog."""
    target: str
    severity: Literal["critical", "warning"]
    words: str
    since_at: Instant
    value: float | None = None
    bound: float | None = None
    runbook: str = ""
    link: str = ""
    """The Dagster asset that it is about."""
    remedy: str = ""
    """What was done about it."""


class Report(msgspec.Struct, frozen=True):
    """One look at the whole platform."""

    at: Instant
    took_ms: float
    platform: Platform
    sources: dict[str, Source] = {}
    views: dict[str, View] = {}
    services: dict[str, Service] = {}
    objectives: list[Objective] = []
    alerts: list[Alert] = []


def encode(report: Report) -> bytes:
    """Return a report as JSON."""
    return msgspec.json.encode(report)


def decode(body: bytes) -> Report:
    """Return the report of some JSON; fields that it does not know are passed over.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.json.decode(body, type=Report)
