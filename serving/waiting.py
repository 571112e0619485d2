"""A request that waits to be read for, with others or alone, and how those that fit are put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from serving.budget import Budget, DeadlineError
from serving.entities import Rows
from serving.features import FeatureVectors, Question, Row
from serving.metrics import Metrics

MOST_ROWS = 32
"""The most rows that are read together, and the most entities of a view that are merged at once: some milliseconds,
during which the loop does nothing else."""


@dataclass(slots=True)
class Waiting:
    """A request, decoded at `since`, and the future of its answer."""

    entities: Rows
    answer: asyncio.Future[FeatureVectors]
    since: float
    budget: Budget

    def fail(self, error: Exception) -> None:
        """Answer with an error, if an answer is still waited for."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def give(self, vectors: FeatureVectors) -> bool:
        """Answer, if that is still waited for; return whether it was."""
        if self.answer.done():
            return False
        self.answer.set_result(vectors)
        return True

    def is_late(self, stage: str, start: float, metrics: Metrics) -> bool:
        """Whether no answer is waited for any more: its time is up, in a stage that began at `start`."""
        if self.budget.is_over(perf_counter(), stage):
            self.expire(stage, start, metrics)
        return self.answer.done()

    def expire(self, stage: str, start: float, metrics: Metrics, shared: int = 1) -> None:
        """Answer that its time was up, in a stage that `shared` requests had together."""
        if self.answer.done():
            return
        now = perf_counter()
        error = self.budget.error(stage, start, now)
        self.budget.spend(stage, start, now, shared, str(error))
        if isinstance(error, DeadlineError):
            metrics.late(stage)
        self.answer.set_exception(error)


@dataclass(frozen=True)
class Asked:
    """One request with its rows, which fit its question."""

    waiting: Waiting
    rows: list[Row]


def timers(
    stage: str, together: Sequence[Waiting], last: float, started: float, metrics: Metrics
) -> list[asyncio.TimerHandle]:
    """Tell those who have less time than the last, each when it is up, that the stage they are in was too slow."""
    loop, now = asyncio.get_running_loop(), perf_counter()
    return [
        loop.call_later(max(0.0, until - now), waiting.expire, stage, started, metrics, len(together))
        for waiting in together
        if (until := waiting.budget.until) < last
    ]


def packed(question: Question, together: Sequence[Waiting]) -> list[list[Asked]]:
    """Return the requests in order, in batches of at most `MOST_ROWS` rows; those that do not fit hear why."""
    batches: list[list[Asked]] = []
    room = 0
    for waiting in together:
        try:
            asked = Asked(waiting, question.rows(waiting.entities))
        except Exception as error:  # noqa: BLE001
            waiting.fail(error)
            continue
        if not batches or len(asked.rows) > room:
            batches.append([])
            room = MOST_ROWS
        batches[-1].append(asked)
        room -= len(asked.rows)
    return batches
