"""Requests that wait together are read together.

While the loop is busy with one request, others arrive. Those for the same service at the same instant (by default: now)
then share one round trip to Redis and one merge, whose cost is mostly per call and not per row. A request alone waits
for nobody. Very long requests are read in pieces instead, so that the others are not held up behind them.

Each has a time of its own all the same: who has the least hears when it is up, and the rest are read for as long as
theirs lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rtml.errors import OverflowedError, UnavailableError
from rtml.instants import Instant
from serving.admission import Admission
from serving.budget import Budget, DeadlineError, budget_of
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge, Lookup, Question, Row
from serving.metrics import Metrics
from serving.reader import Turns
from serving.redis_io import LateReplyError, RedisReader
from serving.state import ServingState

MOST_ROWS = 32
"""The most rows that are read and merged at once: some milliseconds, during which the loop does nothing else."""
Entities = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _Waiting:
    entities: Entities
    answer: asyncio.Future[FeatureVectors]
    since: float
    budget: Budget

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def give(self, vectors: FeatureVectors) -> bool:
        """Answer, if that is still waited for."""
        if self.answer.done():
            return False
        self.answer.set_result(vectors)
        return True


@dataclass(frozen=True)
class _Asked:
    """One request with its rows, which fit its question."""

    waiting: _Waiting
    rows: list[Row]


class Batches:
    """Answers requests, together where they can be."""

    def __init__(
        self,
        state: ServingState,
        reader: RedisReader,
        metrics: Metrics,
        epoch: int,
        log: FeatureLog,
        admission: Admission | None = None,
    ) -> None:
        """Take the parts that do the work; an admission hears how long requests wait."""
        self._admission = admission
        self._log = log
        self._state = state
        self._reader = reader
        self._metrics = metrics
        self._epoch = epoch
        self._turns = Turns()
        self._open: dict[tuple[str, Instant | None, LeadingEdge], list[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def get(
        self,
        service: str,
        entities: Entities,
        at: Instant | None,
        leading_edge: LeadingEdge,
        budget: Budget | None = None,
    ) -> FeatureVectors:
        """Return a service's features of entities, within a budget; by default that of a request that comes now.

        Raises:
            UnknownNameError, RequestError, NotReadyError, InstantError, UnavailableError, OverflowedError,
            DeadlineError.
        """
        loop = asyncio.get_running_loop()
        key = (service, at, leading_edge)
        budget = budget or budget_of(self._reader.timeout)
        waiting = _Waiting(entities, loop.create_future(), perf_counter(), budget)
        together = self._open.get(key)
        if together is None:
            self._open[key] = [waiting]
            # After all that the loop has ready by now, which is when more requests may join.
            loop.call_soon(self._close, key)
        else:
            together.append(waiting)
        return await waiting.answer

    def _close(self, key: tuple[str, Instant | None, LeadingEdge]) -> None:
        """Fix the instant of all that wait for it, after the last of them has come, and start reading."""
        together = self._open.pop(key)
        service, at, leading_edge = key
        try:
            question = Question.of(self._state.snapshot, service, at, leading_edge, self._epoch)
        # Whatever it was, those who wait must hear of it.
        except Exception as error:  # noqa: BLE001
            for waiting in together:
                waiting.fail(error)
            return
        for waiting in together:
            if len(waiting.entities) > MOST_ROWS:
                self._start(self._answer_long(question, waiting))
        for batch in _packed(question, [one for one in together if len(one.entities) <= MOST_ROWS]):
            self._start(self._answer(question, batch))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, question: Question, batch: list[_Asked]) -> None:
        batch = [asked for asked in batch if not self._is_late(asked.waiting, "queue", asked.waiting.since)]
        if not batch:
            return
        self._begin([asked.waiting for asked in batch])
        try:
            vectors = await self._read(question, batch)
        except OverflowedError as error:
            if len(batch) == 1:
                batch[0].waiting.fail(error)
                return
            # One of them has such a sum; the others shall not suffer for it.
            for asked in batch:
                await self._answer(question, [asked])
        except Exception as error:  # noqa: BLE001
            for asked in batch:
                asked.waiting.fail(error)
        else:
            self._give(question, batch, vectors)

    def _give(self, question: Question, batch: list[_Asked], vectors: FeatureVectors) -> None:
        """Answer each with its own rows, and log what was answered."""
        places: list[int] = []
        entities: list[Mapping[str, Any]] = []
        start = 0
        for asked in batch:
            stop = start + len(asked.rows)
            if asked.waiting.give(vectors.part(start, stop) if len(batch) > 1 else vectors):
                places.extend(range(start, stop))
                entities.extend(asked.waiting.entities)
            start = stop
        rows = [row for asked in batch for row in asked.rows]
        if len(places) < len(rows):
            rows, vectors = [rows[place] for place in places], vectors.at_places(places)
        self._log.take(question, entities, rows, vectors)

    async def _answer_long(self, question: Question, waiting: _Waiting) -> None:
        try:
            if self._is_late(waiting, "queue", waiting.since):
                return
            planning = self._begin([waiting])
            lookups = [
                Lookup(question, self._turns, question.rows(waiting.entities[start : start + MOST_ROWS], first=start))
                for start in range(0, len(waiting.entities), MOST_ROWS)
            ]
            started = perf_counter()
            await self._fetch(lookups, [waiting], started)
            merging = perf_counter()
            parts = []
            for lookup in lookups:
                parts.append(lookup.vectors())
                await asyncio.sleep(0)  # merged in pieces, so that others are answered between
                if self._is_late(waiting, "merge", merging):
                    return
            vectors = FeatureVectors.joined(parts)
            waiting.budget.spend("merge", merging, perf_counter(), before=started - planning)
            if waiting.give(vectors):
                rows = [row for lookup in lookups for row in lookup.rows]
                self._log.take(question, waiting.entities, rows, vectors)
        except Exception as error:  # noqa: BLE001
            waiting.fail(error)

    async def _read(self, question: Question, batch: list[_Asked]) -> FeatureVectors:
        planning = perf_counter()
        lookup = Lookup(question, self._turns, [row for asked in batch for row in asked.rows])
        together = [asked.waiting for asked in batch]
        started = perf_counter()
        await self._fetch([lookup], together, started)
        merging = perf_counter()
        vectors = lookup.vectors()
        merged = perf_counter()
        self._metrics.redis.observe(merging - started)
        self._metrics.merge.observe(merged - merging + started - planning)
        for waiting in together:
            if not self._is_late(waiting, "merge", merging):
                waiting.budget.spend("merge", merging, merged, len(together), before=started - planning)
        return vectors

    async def _fetch(self, lookups: list[Lookup], together: list[_Waiting], started: float) -> None:
        """Read for all lookups at once: one round trip, but for rare heads and torn raw records.

        It lasts no longer than the time of the last of those who wait; who has less hears when it is up.
        """
        for waiting in together:
            waiting.budget.read(started)
        last = max(waiting.budget.until for waiting in together)
        timers = self._timers(together, last, started)
        error = None
        try:
            while pending := [lookup for lookup in lookups if lookup.unfinished]:
                asked = [lookup.commands() for lookup in pending]
                commands = [command for commands in asked for command in commands]
                replies = iter(await self._reader.read(commands, max(0.0, last - perf_counter())))
                for lookup, commands in zip(pending, asked, strict=True):
                    lookup.absorb([next(replies) for _ in commands])
        except UnavailableError as caught:
            self._metrics.redis_failures.inc()
            error = str(caught)
            if isinstance(caught, LateReplyError):
                for waiting in together:
                    self._expire(waiting, "redis", started, len(together))
            raise
        finally:
            ended = perf_counter()
            for timer in timers:
                timer.cancel()
            for waiting in together:
                if not waiting.answer.done():
                    waiting.budget.spend("redis", started, ended, len(together), error)

    def _begin(self, together: list[_Waiting]) -> float:
        """Note how long those have waited who are read for now; return the present."""
        now = perf_counter()
        waits = [waiting.budget.begin(waiting.since, now) for waiting in together]
        self._metrics.queue.observe(max(waits))
        if self._admission is not None:
            self._admission.began(min(waits))
        return now

    def _timers(self, together: list[_Waiting], last: float, started: float) -> list[asyncio.TimerHandle]:
        """Tell those who have less time than the last, each when it is up."""
        loop, now = asyncio.get_running_loop(), perf_counter()
        return [
            loop.call_later(max(0.0, until - now), self._expire, waiting, "redis", started, len(together))
            for waiting in together
            if (until := waiting.budget.until) < last
        ]

    def _is_late(self, waiting: _Waiting, stage: str, start: float) -> bool:
        """Whether a request is not waited for any more: its time is up, in a stage that began at `start`."""
        if waiting.budget.is_over(perf_counter(), stage):
            self._expire(waiting, stage, start)
        return waiting.answer.done()

    def _expire(self, waiting: _Waiting, stage: str, start: float, shared: int = 1) -> None:
        if waiting.answer.done():
            return
        now = perf_counter()
        error = waiting.budget.error(stage, start, now)
        waiting.budget.spend(stage, start, now, shared, str(error))
        if isinstance(error, DeadlineError):
            self._metrics.late(stage)
        waiting.fail(error)


def _packed(question: Question, together: list[_Waiting]) -> list[list[_Asked]]:
    """Return the requests in order, in batches of at most `MOST_ROWS` rows; those that do not fit hear why."""
    batches: list[list[_Asked]] = []
    room = 0
    for waiting in together:
        try:
            asked = _Asked(waiting, question.rows(waiting.entities))
        except Exception as error:  # noqa: BLE001
            waiting.fail(error)
            continue
        if not batches or len(asked.rows) > room:
            batches.append([])
            room = MOST_ROWS
        batches[-1].append(asked)
        room -= len(asked.rows)
    return batches
