"""Requests that wait together are read together.

While the loop is busy with one request, others arrive. Those for the same service at the same instant (by default: now)
then share one round trip to Redis and one merge, whose cost is mostly per call and not per row. A request alone waits
for nobody. Very long requests are read by themselves and merged in pieces, so that the others are not held up behind
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from rtml.errors import OverflowedError, StaleError, UnavailableError
from rtml.instants import Instant
from serving.entities import MOST_ENTITIES, Entities, Rows, as_rows
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge, Lookup, Question, Row
from serving.metrics import Metrics
from serving.reader import Turns
from serving.redis_io import RedisReader
from serving.state import ServingState

if TYPE_CHECKING:
    from serving.tracing import Trace

MOST_ROWS = 32
"""The most rows that are read together, and the most entities of a view that are merged at once: some milliseconds,
during which the loop does nothing else."""

MOST_AT_ONCE = 1_000
"""The most rows of a long request that are read in one round trip: the loop does nothing else while it packs the
commands, and while it takes the replies apart."""


@dataclass(slots=True)
class _Waiting:
    entities: Rows
    answer: asyncio.Future[FeatureVectors]
    since: float
    trace: Trace | None = None

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def give(self, vectors: FeatureVectors) -> None:
        if not self.answer.done():
            self.answer.set_result(vectors)


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
        log: FeatureLog | None,
        most: int = MOST_ENTITIES,
    ) -> None:
        """Take the parts that do the work, and how many entities a request may name."""
        self._most = most
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
        trace: Trace | None = None,
    ) -> FeatureVectors:
        """Return a service's features of entities; a trace hears of the stages.

        Raises:
            UnknownNameError, RequestError, TooLargeError, NotReadyError, StaleError, InstantError, UnavailableError,
                OverflowedError.
        """
        rows = as_rows(entities, self._most)
        loop = asyncio.get_running_loop()
        key = (service, at, leading_edge)
        waiting = _Waiting(rows, loop.create_future(), perf_counter(), trace)
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
            if isinstance(error, StaleError):
                self._metrics.refused(service, sum(len(waiting.entities) for waiting in together))
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
            start = 0
            for asked in batch:
                stop = start + len(asked.rows)
                asked.waiting.give(vectors.part(start, stop) if len(batch) > 1 else vectors)
                start = stop
            entities = [entity for asked in batch for entity in asked.waiting.entities]
            self._take(question, entities, [row for asked in batch for row in asked.rows], vectors)

    async def _answer_long(self, question: Question, waiting: _Waiting) -> None:
        try:
            starts = range(0, len(waiting.entities), MOST_AT_ONCE)
            parts = [await self._read_long(question, waiting, start) for start in starts]
            vectors = parts[0][1] if len(parts) == 1 else FeatureVectors.joined([part for _, part in parts])
            waiting.give(vectors)
            self._take(question, waiting.entities, [row for rows, _ in parts for row in rows], vectors)
        except Exception as error:  # noqa: BLE001
            waiting.fail(error)

    async def _read_long(
        self, question: Question, waiting: _Waiting, start: int
    ) -> tuple[Sequence[Row], FeatureVectors]:
        """Read some rows of a long request in one round trip; others are answered between one step and the next."""
        rows = question.rows(waiting.entities[start : start + MOST_AT_ONCE], first=start)
        lookup = Lookup(question, self._turns, rows)
        await asyncio.sleep(0)
        await self._fetch([lookup], [waiting], perf_counter())
        await asyncio.sleep(0)
        merging = perf_counter()
        for _ in lookup.merge(MOST_ROWS):
            await asyncio.sleep(0)
        vectors = lookup.vectors()
        _note([waiting], "merge", merging, perf_counter())
        return rows, vectors

    def _take(self, question: Question, entities: Rows, rows: Sequence[Row], vectors: FeatureVectors) -> None:
        if self._log is not None:
            self._log.take(question, entities, rows, vectors)

    async def _read(self, question: Question, batch: list[_Asked]) -> FeatureVectors:
        lookup = Lookup(question, self._turns, [row for asked in batch for row in asked.rows])
        together = [asked.waiting for asked in batch]
        started = perf_counter()
        self._metrics.wait.observe(started - together[0].since)
        await self._fetch([lookup], together, started)
        merging = perf_counter()
        vectors = lookup.vectors()
        merged = perf_counter()
        self._metrics.redis.observe(merging - started)
        self._metrics.merge.observe(merged - merging)
        _note(together, "merge", merging, merged)
        return vectors

    async def _fetch(self, lookups: list[Lookup], together: list[_Waiting], started: float) -> None:
        """Read for all lookups at once: one round trip, but for rare heads and torn raw records."""
        error = None
        try:
            while pending := [lookup for lookup in lookups if lookup.unfinished]:
                asked = [lookup.commands() for lookup in pending]
                replies = iter(await self._reader.read([command for commands in asked for command in commands]))
                for lookup, commands in zip(pending, asked, strict=True):
                    lookup.absorb([next(replies) for _ in commands])
        except UnavailableError as caught:
            self._metrics.redis_failures.inc()
            error = str(caught)
            raise
        finally:
            for waiting in together:
                if waiting.trace is not None:
                    waiting.trace.add("wait", waiting.since, started)
                    waiting.trace.add("redis", started, perf_counter(), len(together), error)


def _note(together: list[_Waiting], stage: str, start: float, end: float) -> None:
    for waiting in together:
        if waiting.trace is not None:
            waiting.trace.add(stage, start, end, len(together))


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
