"""Pushed events: a body of one or many, and what came of each. What appends them is loaded with the first of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from rtml.errors import RequestError, UnavailableError, near_miss
from rtml.settings import Settings
from serving.metrics import Metrics
from serving.pushed import Pushed, ReplayTimeError, UnknownSourceError
from serving.wire import Problem, Reply, TooLargeError, encode, failure

if TYPE_CHECKING:
    from serving.appender import Appender

WORKERS = 4
MOST_WAITING = 64
"""So many pushes are taken on at once; their bodies are held until it is their turn."""
EVENTS_FIELD = "events"


class Pushes:
    """Takes pushes: by threads of their own, so that they hold up no request for features."""

    def __init__(self, settings: Settings, metrics: Metrics, sources: Callable[[], Collection[str]]) -> None:
        """Take the settings, what counts, and what names the sources that are served."""
        self._settings, self._metrics, self._sources = settings, metrics, sources
        self._lock = threading.Lock()
        self._appender: Appender | None = None
        self._workers = ThreadPoolExecutor(WORKERS, "rtml-push")
        self._waiting = 0

    async def push(self, source: str, body: bytes) -> Reply:
        """Append events to a source's stream, and say what came of each.

        Raises:
            RequestError: the body is no event and no list of some.
            TooLargeError: there are more than `max_events`.
            UnavailableError: Redis did not take them, or too many pushes wait.
        """
        if self._waiting >= MOST_WAITING:
            raise UnavailableError(f"{MOST_WAITING} pushes wait already; no event of this one was appended")
        self._waiting += 1
        try:
            pushed = await asyncio.get_running_loop().run_in_executor(self._workers, self._append, source, body)
        except UnknownSourceError as error:
            known = self._sources()
            return failure(404, "unknown_source", f"{error}{near_miss(source, known)}")
        except ReplayTimeError as error:
            return failure(409, "replay_time", str(error))
        finally:
            self._waiting -= 1
        self._count(source, pushed)
        return answer(pushed)

    def close(self) -> None:
        """Finish what was begun, and close all connections."""
        self._workers.shutdown()
        if self._appender is not None:
            self._appender.close()

    def _append(self, source: str, body: bytes) -> Pushed:
        events = events_of(body, self._settings.max_events)
        return self._loaded().append(source, events)

    def _loaded(self) -> Appender:
        with self._lock:
            if self._appender is None:
                # It loads Polars and pandera, which who only asks for features does without.
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
