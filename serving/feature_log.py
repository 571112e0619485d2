"""What was served, appended to `served/<service>`: a sample of entities, in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from rtml import instants
from rtml.instants import Duration, Instant
from rtml.lake_paths import Lake
from rtml.online import keys
from serving.features import FeatureVectors, Question, Row
from streaming.services import Service

MOST_ROWS = 100_000
"""So many rows wait for the lake at most; beyond, the oldest are dropped."""
MANY_ROWS = 20_000
"""So many are appended at once, before the epoch is over."""
COMPLAIN_SECONDS = 60.0
"""The log says so often at most that the lake cannot be written."""

_HASHES = 1 << 64

_log = logging.getLogger("rtml.serving")


@dataclass(frozen=True)
class _Taken:
    """Those rows of an answer that are to be logged."""

    question: Question
    entities: list[dict[str, Any]]
    vectors: FeatureVectors
    served_at: Instant


class FeatureLog:
    """Keeps what was served until it is appended to the lake.

    Args:
        lake: where `served/` is.
        epoch: how often it is appended, in microseconds, once started.
        now: the wall clock.
    """

    def __init__(self, lake: Lake, epoch: Duration, now: Callable[[], Instant] = instants.now) -> None:
        """Take a lake; nothing is written before `flush` or `start`."""
        self._lake = lake
        self._epoch = epoch / instants.SECOND
        self._now = now
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._held: deque[_Taken] = deque()
        self._rows = 0
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._next_complaint = 0.0
        self.logged = 0
        """How many rows were appended."""
        self.dropped = 0
        """How many were given up, since the lake could not be written for too long."""

    def take(
        self, question: Question, entities: Sequence[Mapping[str, Any]], rows: Sequence[Row], vectors: FeatureVectors
    ) -> None:
        """Keep those rows of an answer whose entities are sampled: always the same ones, by the hash of their keys."""
        share = question.service.log
        if not share:
            return
        bound = int(share * _HASHES)
        places = [place for place, row in enumerate(rows) if xxhash.xxh64_intdigest("".join(row).encode()) < bound]
        places = [place for place in places if not any(keys.is_probe(tag) for tag in rows[place])]
        if not places:
            return
        # The keys alone: a request may hold whatever else.
        names = list(dict.fromkeys(name for version in question.versions for name in version.plan.key_names))
        kept = [{name: entities[place][name] for name in names} for place in places]
        taken = _Taken(question, kept, vectors.at_places(places), self._now())
        with self._lock:
            self._held.append(taken)
            self._rows += len(places)
            self._trim()
        if self._rows >= MANY_ROWS:
            self._wake.set()

    def start(self, *, soon: bool = False) -> None:
        """Append again and again, until `stop`.

        With `soon`, what that takes is loaded now, and not beside the first requests.
        """
        if soon:
            import serving.served_rows  # noqa: F401, PLC0415
        self._thread = threading.Thread(target=self._run, name="rtml-feature-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Append what there still is, once, and end."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Append all that was taken; what the lake does not take is kept for the next time."""
        with self._flushing:
            with self._lock:
                held, self._held, self._rows = self._held, deque(), 0
            alike: dict[Hashable, list[_Taken]] = {}
            for taken in held:
                alike.setdefault(_columns_of(taken.question.service), []).append(taken)
            for found in alike.values():
                service = found[0].question.service.name
                try:
                    self.logged += self._append(service, found)
                # Whatever it was, the others' rows and the next ones are to be logged.
                except Exception as error:  # noqa: BLE001
                    self._keep(service, found, error)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._epoch)
            self._wake.clear()
            self.flush()

    def _append(self, service: str, found: Sequence[_Taken]) -> int:
        # Polars and Delta: loaded when the first row is logged, and not by every server.
        from serving.served_rows import append, served_frame  # noqa: PLC0415

        frames = [served_frame(one.question, one.entities, one.vectors, one.served_at) for one in found]
        return append(self._lake.served(service), frames)

    def _keep(self, service: str, found: Sequence[_Taken], error: Exception) -> None:
        with self._lock:
            self._held.extendleft(reversed(found))
            self._rows += sum(len(taken.entities) for taken in found)
            self._trim()
        if time.monotonic() >= self._next_complaint:
            self._next_complaint = time.monotonic() + COMPLAIN_SECONDS
            uri = self._lake.served(service)
            _log.warning("%s cannot be written, %d rows wait, %d dropped: %s", uri, self._rows, self.dropped, error)

    def _trim(self) -> None:
        while self._rows > MOST_ROWS and len(self._held) > 1:
            gone = len(self._held.popleft().entities)
            self._rows -= gone
            self.dropped += gone


def _columns_of(service: Service) -> Hashable:
    """Return what the columns of a service's rows, and their types, depend on."""
    return service.name, service.columns, tuple(sorted(service.fingerprints.items()))
