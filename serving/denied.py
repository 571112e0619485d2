"""Requests that were denied: counted while they come, and appended to the lake's audit in the background."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from rtml import instants
from rtml.instants import Instant
from rtml.lake_paths import Lake

EVERY_SECONDS = 60.0
MOST_COUNTS = 1_000
MOST_OF_ONE = 50
"""So many different denials, and of one caller, are told apart until they are appended; those beyond count together."""

_log = logging.getLogger("rtml.serving")


class Denial(NamedTuple):
    """Who was denied what, and why."""

    actor: str
    target: str
    status: int
    why: str


_OTHERS = Denial("others", "others", 0, "more than can be told apart")
"""What is beyond `MOST_COUNTS`; nobody alone gets there, to hide behind his own noise what others did."""


class DeniedLog:
    """Counts denials until they are written; counting costs a request next to nothing and never waits."""

    def __init__(self, lake: Lake, now: Callable[[], Instant] = instants.now) -> None:
        """Take a lake; nothing is written before `flush` or `start`."""
        self._lake, self._now = lake, now
        self._lock = threading.Lock()
        self._counts: dict[Denial, tuple[int, Instant]] = {}
        self._of_one = Counter[str]()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, denial: Denial) -> None:
        """Count one."""
        with self._lock:
            self._add(denial, 1, self._now())

    def start(self) -> None:
        """Append every minute, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="rtml-denied", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Append what there still is, once, and end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Append all that was counted; what the lake does not take is kept for the next time."""
        with self._lock:
            counts, self._counts = self._counts, {}
            self._of_one.clear()
        if not counts:
            return
        # Delta is loaded when the first denial is written, and not when a server starts.
        from streaming import audit  # noqa: PLC0415

        entries = [
            audit.Entry(at, "request.denied", denial.target, denial.actor, str(denial.status), _words(denial, number))
            for denial, (number, at) in counts.items()
        ]
        try:
            audit.append(self._lake, entries)
        # Whatever it was, the next ones are to be counted.
        except Exception as error:  # noqa: BLE001
            self._keep(counts)
            _log.warning("%s cannot be written, %d denials wait: %s", self._lake.audit, len(counts), error)

    def _keep(self, counts: dict[Denial, tuple[int, Instant]]) -> None:
        with self._lock:
            for denial, (number, at) in counts.items():
                self._add(denial, number, at)

    def _add(self, denial: Denial, number: int, at: Instant) -> None:
        if denial not in self._counts and self._of_one[denial.actor] >= MOST_OF_ONE:
            denial = _OTHERS._replace(actor=denial.actor, status=denial.status)
        if denial not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                denial = _OTHERS
            self._of_one[denial.actor] += 1
        known, before = self._counts.get(denial, (0, at))
        self._counts[denial] = (known + number, max(at, before))

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_SECONDS):
            self.flush()


def _words(denial: Denial, number: int) -> str:
    return f"{number} {'request' if number == 1 else 'requests'}: {denial.why}"
