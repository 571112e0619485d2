"""Pushed events: a body of one or many, and what came of each. What appends them is loaded with the first of them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from rtml.errors import RequestError, RtmlError, TooLargeError, UnavailableError, near_miss
from rtml.settings import Settings
from serving.metrics import Metrics
from serving.pushed import Pushed, ReplayTimeError, UnknownSourceError
from serving.wire import Problem, Reply, encode, failure

if TYPE_CHECKING:
    from serving.appender import Appender

WORKERS = 4
MOST_BODIES = 16
"""Bodies of this many times the longest are held, until it is their turn."""
EVENTS_FIELD = "events"
_BEFORE = "Redis did not take what was pushed before"


@dataclass(frozen=True)
class _Waiting:
    body: bytes
    answer: asyncio.Future[Pushed]

    def tell(self, told: Pushed | Exception) -> None:
        """Let who waits know; who hung up does not."""
        if self.answer.done():
            return
        if isinstance(told, Exception):
            self.answer.set_exception(told)
        else:
            self.answer.set_result(told)


class Pushes:
    """Takes pushes: by threads of their own, so that they hold up no request for features.

    What is pushed to a source while others are being appended to it waits, and is then appended together: most of what
    a small push costs is the same for many.
    """

    def __init__(self, settings: Settings, metrics: Metrics, sources: Callable[[], Collection[str]]) -> None:
        """Take the settings, what counts, and what names the sources that are served."""
        self._settings, self._metrics, self._sources = settings, metrics, sources
        self._lock = threading.Lock()
        self._appender: Appender | None = None
        self._workers = ThreadPoolExecutor(WORKERS, "rtml-push")
        self._open: dict[str, deque[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._held = 0

    async def push(self, source: str, body: bytes) -> Reply:
        """Append events to a source's stream, and say what came of each.

        Raises:
            RequestError: the body is no event and no list of some.
            TooLargeError: there are more than `max_events`.
            UnavailableError: Redis did not take them, or too many pushes wait.
        """
        if self._held and self._held + len(body) > MOST_BODIES * self._settings.max_body_bytes:
            raise UnavailableError(f"pushes of {self._held} bytes wait already; no event of this one was appended")
        self._held += len(body)
        try:
            pushed = await self._waited(source, body)
        except UnknownSourceError as error:
            return failure(404, "unknown_source", f"{error}{near_miss(source, self._sources())}")
        except ReplayTimeError as error:
            return failure(409, "replay_time", str(error))
        finally:
            self._held -= len(body)
        self._count(source, pushed)
        return answer(pushed)

    async def close(self) -> None:
        """Finish what was begun, and close all connections."""
        await asyncio.gather(*self._running)
        self._workers.shutdown()
        if self._appender is not None:
            self._appender.close()

    async def _waited(self, source: str, body: bytes) -> Pushed:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(body, loop.create_future())
        others = self._open.get(source)
        if others is None:
            self._open[source] = deque([waiting])
            task = loop.create_task(self._drain(source))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            others.append(waiting)
        return await waiting.answer

    async def _drain(self, source: str) -> None:
        """Append what waits for a source, together, until nothing does."""
        loop, waiting = asyncio.get_running_loop(), self._open[source]
        while waiting:
            together = [waiting.popleft()]
            room = self._settings.max_body_bytes - len(together[0].body)
            while waiting and (room := room - len(waiting[0].body)) >= 0:
                together.append(waiting.popleft())
            told: list[Pushed | Exception]
            try:
                told = await loop.run_in_executor(self._workers, self._append, source, [one.body for one in together])
            # Whatever it was, those who wait must hear of it.
            except Exception as error:  # noqa: BLE001
                told = [error] * len(together)
                if isinstance(error, UnavailableError):  # they would each wait as long, in vain
                    told += [UnavailableError(f"{_BEFORE}; no event of this push was appended")] * len(waiting)
                    together += waiting
                    waiting.clear()
            for one, what in zip(together, told, strict=True):
                one.tell(what)
        del self._open[source]

    def _append(self, source: str, bodies: list[bytes]) -> list[Pushed | Exception]:
        """Return what came of each body; one that is no push is none of the others' concern."""
        read = [_events_or_error(body, self._settings.max_events) for body in bodies]
        pushes = [events for events in read if not isinstance(events, Exception)]
        told = iter(self._loaded().append(source, pushes) if pushes else ())
        return [events if isinstance(events, Exception) else next(told) for events in read]

    def _loaded(self) -> Appender:
        with self._lock:
            if self._appender is None:
                # It loads Polars, which who only asks for features may do without.
                from serving.appender import Appender  # noqa: PLC0415

                self._appender = Appender(self._settings)
            return self._appender

    def _count(self, source: str, pushed: Pushed) -> None:
        late, refused = len(pushed.late), len(pushed.refused)
        counts = {"accepted": pushed.accepted - late, "late": late, "refused": refused}
        for outcome, count in counts.items():
            self._metrics.pushed.labels(source, outcome).inc(count)


def answer(pushed: Pushed) -> Reply:
    """Return the answer: an error where none of the events was accepted, and there were some."""
    if pushed.accepted or not pushed.refused:
        return Reply(200, encode(pushed))
    first = pushed.refused[0]
    message = f"none of {len(pushed.refused)} events was accepted; event {first.index}: {first.message}"
    problem = Problem("refused", message, pushed=pushed)
    return Reply(422, b"", problem=problem)


def _events_or_error(body: bytes, most: int) -> list[bytes] | RtmlError:
    try:
        return events_of(body, most)
    except RtmlError as error:
        return error


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def events_of(body: bytes, most: int) -> list[bytes]:
    """Return the events of a body just as they were sent: one object, or `{"events": [...]}`.

    No column of a contract is a list, so that an event whose column is called `events` is none of those.

    Raises:
        RequestError: it is neither.
        TooLargeError: there are more than `most`.
    """
    try:
        members = _members.decode(body)
        listed = members.pop(EVENTS_FIELD, None)
        if listed is None or not bytes(listed).startswith(b"["):
            return [body]
        events = _elements.decode(listed)
    except msgspec.ValidationError:
        raise RequestError('the body must be one event, as a JSON object, or {"events": […]}') from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body must be JSON: {error}") from None
    if members:
        other = next(iter(members))
        raise RequestError(f"unknown field {other!r:.80} beside 'events'; got {len(members)} such")
    if len(events) > most:
        raise TooLargeError(f"a push may have {most} events (RTML_MAX_EVENTS); got {len(events)}")
    return [bytes(event) for event in events]
