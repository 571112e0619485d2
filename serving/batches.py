"""Requests that wait together are read together.

While the loop is busy with one request, others arrive. Those for the same service at the same instant (by default: now)
then share one round trip to Redis and one merge, whose cost is mostly per call and not per row. A request alone waits
for nobody. Very long requests are read by themselves and merged in pieces, so that the others are not held up behind
them.

Each has a time of its own all the same: who has the least hears when it is up, and the rest are read for as long as
theirs lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from math import inf
from time import perf_counter

from rtml.errors import OverflowedError, StaleError, UnavailableError
from rtml.instants import Instant
from serving.admission import Admission
from serving.budget import Budget, budget_of
from serving.entities import MOST_ENTITIES, Entities, Rows, as_rows
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge, Lookup, Question, Row
from serving.metrics import Metrics
from serving.reader import Turns
from serving.redis_io import LateReplyError, RedisReader
from serving.state import ServingState
from serving.texts import Strings
from serving.waiting import MOST_ROWS, Asked, Waiting, packed, timers

MOST_AT_ONCE = 1_000
"""The most rows of a long request that are read in one round trip: the loop does nothing else while it packs the
commands, and while it takes the replies apart."""


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
        admission: Admission | None = None,
    ) -> None:
        """Take the parts that do the work, how many entities a request may name, and who hears how long they wait."""
        self._most = most
        self._admission = admission
        self._log = log
        self._state = state
        self._reader = reader
        self._metrics = metrics
        self._epoch = epoch
        self._turns = Turns()
        self._open: dict[tuple[str, Instant | None, LeadingEdge], list[Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(reader.connections)

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
            UnknownNameError, RequestError, TooLargeError, NotReadyError, StaleError, InstantError, UnavailableError,
                OverflowedError, DeadlineError.
        """
        rows = as_rows(entities, self._most)
        loop = asyncio.get_running_loop()
        key = (service, at, leading_edge)
        waiting = Waiting(rows, loop.create_future(), perf_counter(), budget or budget_of(self._reader.timeout))
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
        for batch in packed(question, [one for one in together if len(one.entities) <= MOST_ROWS]):
            self._start(self._answer(question, batch))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, question: Question, batch: list[Asked]) -> None:
        """Read for some together, when it is their turn: there is a connection to Redis for each of so many."""
        await self._turn([asked.waiting for asked in batch])
        try:
            again = await self._answered(question, batch)
        finally:
            self._room.release()
        for asked in again:
            await self._answer(question, [asked])

    async def _turn(self, together: list[Waiting]) -> None:
        """Wait for room; who has no time for that hears so when it is up."""
        soon = timers("queue", together, inf, together[0].since, self._metrics) if self._room.locked() else []
        await self._room.acquire()
        for timer in soon:
            timer.cancel()

    async def _answered(self, question: Question, batch: list[Asked]) -> list[Asked]:
        """Read for a batch; return those that are to be read for alone."""
        batch = [asked for asked in batch if not asked.waiting.is_late("queue", asked.waiting.since, self._metrics)]
        if not batch:
            return []
        try:
            vectors = await self._read(question, batch)
        except OverflowedError as error:
            if len(batch) > 1:
                # One of them has such a sum; the others shall not suffer for it.
                return batch
            batch[0].waiting.fail(error)
        except Exception as error:  # noqa: BLE001
            for asked in batch:
                asked.waiting.fail(error)
        else:
            self._give(question, batch, vectors)
        return []

    def _give(self, question: Question, batch: list[Asked], vectors: FeatureVectors) -> None:
        """Answer each with its own rows."""
        places: list[int] = []
        start = 0
        for asked in batch:
            stop = start + len(asked.rows)
            if asked.waiting.give(vectors.part(start, stop) if len(batch) > 1 else vectors):
                places.extend(range(start, stop))
            start = stop
        entities = [entity for asked in batch for entity in asked.waiting.entities]
        rows = [row for asked in batch for row in asked.rows]
        if len(places) < len(rows):
            entities, rows = [entities[place] for place in places], [rows[place] for place in places]
            vectors = vectors.at_places(places)
        self._take(question, entities, rows, vectors)

    async def _answer_long(self, question: Question, waiting: Waiting) -> None:
        try:
            parts = []
            for start in range(0, len(waiting.entities), MOST_AT_ONCE):
                part = await self._read_long(question, waiting, start)
                if part is None:
                    return
                parts.append(part)
            vectors = parts[0][1] if len(parts) == 1 else FeatureVectors.joined([part for _, part in parts])
            if waiting.give(vectors):
                self._take(question, waiting.entities, [row for rows, _ in parts for row in rows], vectors)
        except Exception as error:  # noqa: BLE001
            waiting.fail(error)

    async def _read_long(
        self, question: Question, waiting: Waiting, start: int
    ) -> tuple[Sequence[Row], FeatureVectors] | None:
        """Read some rows of a long request in one round trip; others are answered between one step and the next.

        `None` when its time is up before.
        """
        stage, began = ("merge", perf_counter()) if start else ("queue", waiting.since)
        if waiting.is_late(stage, began, self._metrics):
            return None
        planning = self._begin([waiting])
        rows = question.rows(waiting.entities[start : start + MOST_AT_ONCE], first=start)
        lookup = Lookup(question, self._turns, rows)
        before = perf_counter() - planning
        await asyncio.sleep(0)
        await self._fetch(lookup, [waiting])
        await asyncio.sleep(0)
        merging = perf_counter()
        for _ in lookup.merge(MOST_ROWS):
            await asyncio.sleep(0)
            if waiting.is_late("merge", merging, self._metrics):
                return None
        before -= await self._fetch_strings(lookup, [waiting])
        vectors = lookup.vectors()
        waiting.budget.spend("merge", merging, perf_counter(), before=before)
        return rows, vectors

    def _take(self, question: Question, entities: Rows, rows: Sequence[Row], vectors: FeatureVectors) -> None:
        """Count and log what was answered."""
        self._metrics.served(question.service.name, vectors)
        if self._log is not None:
            self._log.take(question, entities, rows, vectors)

    async def _read(self, question: Question, batch: list[Asked]) -> FeatureVectors:
        together = [asked.waiting for asked in batch]
        planning = self._begin(together)
        lookup = Lookup(question, self._turns, [row for asked in batch for row in asked.rows])
        before = perf_counter() - planning
        self._metrics.redis.observe(await self._fetch(lookup, together))
        merging = perf_counter()
        if lookup.strings:
            for _ in lookup.merge(MOST_ROWS):
                pass
            before -= await self._fetch_strings(lookup, together)
        vectors = lookup.vectors()
        merged = perf_counter()
        self._metrics.merge.observe(before + merged - merging)
        for waiting in together:
            if not waiting.is_late("merge", merging, self._metrics):
                waiting.budget.spend("merge", merging, merged, len(together), before=before)
        return vectors

    def _begin(self, together: list[Waiting]) -> float:
        """Note how long those have waited who are read for now; return the present."""
        now = perf_counter()
        waits = [waiting.budget.begin(waiting.since, now) for waiting in together if not waiting.budget.has_begun]
        if waits:
            self._metrics.queue.observe(max(waits))
            if self._admission is not None:
                self._admission.began(min(waits))
        return now

    async def _fetch_strings(self, lookup: Lookup, together: list[Waiting]) -> float:
        """Read the strings of a merged lookup that are not remembered: another round trip; return its seconds."""
        if not lookup.strings.unfinished:
            return 0.0
        self._metrics.text_lookups.inc(len(lookup.strings.commands()))
        return await self._fetch(lookup.strings, together)

    async def _fetch(self, lookup: Lookup | Strings, together: list[Waiting]) -> float:
        """Read for a lookup: one round trip, but for rare heads and torn raw records; return the seconds it took.

        It lasts no longer than the time of the last of those who wait; who has less hears when it is up.
        """
        started = perf_counter()
        for waiting in together:
            waiting.budget.read(started)
        last = max(waiting.budget.until for waiting in together)
        soon = timers("redis", together, last, started, self._metrics)
        error = None
        try:
            while lookup.unfinished:
                lookup.absorb(await self._reader.exchange(lookup.commands(), max(0.0, last - perf_counter())))
        except UnavailableError as caught:
            self._metrics.redis_failures.inc()
            error = str(caught)
            if isinstance(caught, LateReplyError):
                for waiting in together:
                    waiting.expire("redis", started, self._metrics, len(together))
            raise
        finally:
            ended = perf_counter()
            for timer in soon:
                timer.cancel()
            for waiting in together:
                if not waiting.answer.done():
                    waiting.budget.spend("redis", started, ended, len(together), error)
        return ended - started
