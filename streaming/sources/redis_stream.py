"""Reading a source's Redis stream, partition by partition, from the position of the flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from rtml.define.source import EventSource
from rtml.instants import Instant
from rtml.online import keys
from streaming.adoption import Adoption
from streaming.broker import RestartRequiredError, check_incarnation, incarnation, is_passing, longer
from streaming.entries import Entries
from streaming.figures import Figures
from streaming.place import ALONE, Place
from streaming.positions import MOVED, RETENTION, START, Position, arrived_at, raise_position, read_positions
from streaming.rewind import offset_before
from streaming.sources.intake import Intake
from streaming.sources.reads import Reads

if TYPE_CHECKING:
    from redis import Redis

IDLE_POLL = timedelta(milliseconds=20)
BUSY_POLLS = 100
"""After so many empty reads in a row, each about a millisecond apart, a partition is idle."""
READS = 4
"""A micro-batch takes so many full reads at most."""
TRIM_EVERY = 60.0
LOOK_EVERY = 1.0


_TRIM = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('SET', KEYS[2], 1)
return redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1])
"""
"""Not while the tiles flow is about to read all of it again; and a new version never takes it for a whole one."""


class Reading(NamedTuple):
    """How a flow reads: its positions' key, the most entries a read, and the most events an epoch."""

    flow: str
    position_key: str
    batch: int
    credit: int
    accept_stamps: bool
    deployed: bytes | None = None
    """The counter of deployments when this process loaded its definitions."""


class RedisStreamSource(FixedPartitionedSource[Entries, str]):
    """All partitions of a source's stream, for one flow."""

    def __init__(
        self,
        client: Redis,
        source: EventSource,
        reading: Reading,
        figures: Figures,
        adoption: Adoption | None = None,
        place: Place = ALONE,
    ) -> None:
        """Take what partitions share; an `adoption` goes live when a rewind has come to where the flow was before."""
        self._client = client
        self._source = source
        self._reading = reading
        self._figures = figures
        self._adoption = adoption
        self._place = place

    def list_parts(self) -> list[str]:
        """The numbers of the partitions that this process reads."""
        return [str(partition) for partition in range(self._source.stream.partitions) if self._place.reads(partition)]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> RedisStreamPartition:
        """Open a partition at the lesser of the recovery snapshot and the position in Redis (I4)."""
        del step_id
        partition = int(for_part)
        stored = read_positions(self._client, self._reading.position_key, partition + 1)[partition]
        start = stored if resume_state is None else min(stored, Position(resume_state), key=lambda found: found.order)
        rewinds = self._reading.flow == "tiles" and self._client.sismember(keys.rewinding(self._source.name), for_part)
        if rewinds:
            start = self._rewound(partition)
        if start.offset == stored.offset:
            start = stored
        opened = RedisStreamPartition(
            self._client, self._source, partition, self._reading, start, self._figures, self._adoption
        )
        if start == stored:
            opened.tell(stored.ingested_at)
        if rewinds:
            opened.when_at(stored, self._finish_rewind)
        return opened

    def _rewound(self, partition: int) -> Position:
        """Return where a rewind begins: before all entries, or those that were ingested from an instant on."""
        instant: Any = self._client.get(keys.rewind_from(self._source.name))
        if instant is None:
            return Position()
        return Position(offset_before(self._client, self._source, partition, int(instant)))

    def _finish_rewind(self, partition: int) -> None:
        """Note that a partition is where it was before; the last one to come so far ends the rewind."""
        rewinding = keys.rewinding(self._source.name)
        if self._client.srem(rewinding, partition) and not self._client.exists(rewinding):
            self._client.delete(keys.rewind_from(self._source.name))
            if self._adoption:
                self._adoption.go_live()


class RedisStreamPartition(StatefulSourcePartition[Entries, str]):
    """One stream key, read by plain `XREAD`."""

    def __init__(
        self,
        client: Redis,
        source: EventSource,
        partition: int,
        reading: Reading,
        start: Position,
        figures: Figures,
        adoption: Adoption | None = None,
    ) -> None:
        """Begin after a position."""
        self._adoption = adoption
        self._client = client
        self._source = source
        self._partition = partition
        self._key = source.stream.key(partition)
        self._reading = reading
        connection = client.connection_pool.get_connection()
        self._reads = Reads(connection, self._key, keys.replay_time(source.name), reading.batch)
        self._position = start
        self._written = start
        self._snapshot: Position | None = None
        self._emitted = 0
        self._empty_reads = 0
        self._replayed = False
        self._figures = figures
        self._news: Instant | None = None
        self._incarnation = incarnation(client)
        self._backoff = 0.0
        self._awake: datetime | None = None
        self._next_trim = time.monotonic() + TRIM_EVERY
        self._next_look = 0.0
        self._target: tuple[Position, Callable[[int], None]] | None = None

    def when_at(self, position: Position, call: Callable[[int], None]) -> None:
        """Call once all up to a position, which was reached before, is durable again."""
        self._target = (position, call)
        self._figures.reads_again(self._partition)

    def next_batch(self) -> Iterable[Entries]:
        """Return what has arrived; nothing while Redis is away, or the epoch's credit is used up."""
        self._awake = None
        try:
            if self._backoff:
                check_incarnation(self._client, self._incarnation)
                self._backoff = 0.0
            self._settle()
            return self._with_news(self._read() if self._emitted < self._reading.credit else [])
        except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ResponseError) as error:
            if isinstance(error, redis.exceptions.ResponseError) and not is_passing(error):
                raise
            self._reads.drop()
            self._backoff = longer(self._backoff)
            self._awake = datetime.now(UTC) + timedelta(seconds=self._backoff)
            return []

    def tell(self, covered: Instant) -> None:
        """Let all processes' sinks know up to when this partition is covered, with what is read next."""
        self._news = covered

    def _with_news(self, found: list[Entries]) -> list[Entries]:
        if self._news is None or self._reading.flow != "tiles":
            return found
        first, *others = found or [Entries(self._partition, [], [], [], [])]
        told, self._news = self._news, None
        return [replace(first, covered=told), *others]

    def next_awake(self) -> datetime | None:
        """Poll at once after entries, each millisecond for a while, each 20 when idle, later when Redis is away."""
        return self._awake

    def snapshot(self) -> str:
        """Return the offset to resume after; what came before counts as covered once the epoch has closed."""
        self._snapshot = self._position
        return self._position.offset

    def _settle(self) -> None:
        """After a snapshot, its epoch has closed: write the position that it covered."""
        if self._snapshot is None:
            return
        covered = self._snapshot
        if covered != self._written:
            self._raise_position(covered)
            self.tell(covered.ingested_at)
            self._written = covered
        if self._target is not None and covered.order >= self._target[0].order:
            self._figures.reads_on(self._partition)
            self._target[1](self._partition)
            self._target = None
        self._snapshot = None
        self._emitted = 0
        self._write_figures()
        if self._reading.flow == "mirror" and time.monotonic() > self._next_trim:
            self._trim()

    def _raise_position(self, covered: Position) -> None:
        run_id = self._incarnation.split()[0]
        try:
            raise_position(self._client, self._reading.position_key, self._partition, covered, run_id)
        except redis.exceptions.ResponseError as error:
            if str(error).startswith(MOVED):
                raise RestartRequiredError(f"{error}; the flow resumes from its position there") from error
            raise

    def _write_figures(self) -> None:
        self._figures.write_when_due(self._client)
        if time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY
            if self._adoption:
                self._adoption.look()
            if self._adoption and self._adoption.has_news():
                raise RestartRequiredError("other versions are to be written by now; a new process does so")
            if self._client.get(keys.DEPLOYED) != self._reading.deployed:
                raise RestartRequiredError("definitions were deployed; a new process loads them")

    def _read(self) -> list[Entries]:
        """Take what has arrived; of a backlog several reads as one micro-batch, which costs less for each event."""
        started = time.perf_counter()
        intake = Intake(self._partition, self._position, accept_stamps=self._reading.accept_stamps)
        room = self._reading.credit - self._emitted
        for number in range(READS):
            read = self._reads.after(intake.position.offset)
            if not read.entries:
                if not number:
                    self._idle(read.clock, replayed=read.replayed)
                break
            intake.add(read)
            if len(intake) >= room or not self._reads.is_full(read.entries):
                break
        if intake.position.offset == self._position.offset:
            return []
        self._figures.stage("read", time.perf_counter() - started)
        return self._accept(intake)

    def _idle(self, clock: Instant, *, replayed: bool) -> None:
        """An empty read covers all up to the broker's clock, unless stamps tell the time; that millisecond goes on."""
        self._empty_reads += 1
        if self._empty_reads > BUSY_POLLS:
            self._awake = datetime.now(UTC) + IDLE_POLL
        if not replayed and self._position.offset != START:
            covered = clock // 1_000 * 1_000 - 1
            self._position = self._position._replace(ingested_at=max(self._position.ingested_at, covered))

    def _accept(self, intake: Intake) -> list[Entries]:
        """Move on to where an intake ends."""
        entries = intake.entries
        if intake.stamped and not self._replayed:
            self._client.set(keys.replay_time(self._source.name), 1)
            self._replayed = True
        if len(entries) or intake.ticked:
            self._empty_reads = 0
        self._position = intake.position
        self._emitted += len(entries)
        arrived = arrived_at(self._position.offset.encode())
        self._figures.gauge(lag_ms=round(time.time() * 1_000 - arrived / 1_000, 3))
        if len(entries):
            self._figures.gauge(last_event_at=entries.arrived[-1])
        return [entries] if intake.is_worth_passing_on else []

    def _trim(self) -> None:
        """Forget what both flows have behind them for an hour."""
        self._next_trim = time.monotonic() + TRIM_EVERY
        count = self._source.stream.partitions
        name = self._source.name
        behind = min(
            read_positions(self._client, key, count)[self._partition].order[0]
            for key in (keys.position(name), keys.mirrored(name))
        )
        least = behind - RETENTION // 1_000
        if least > 0:
            marks = (self._key, keys.trimmed(name), keys.rewinding(name))
            self._client.eval(_TRIM, len(marks), *marks, f"{least}-0")
