"""Looks that may take long: taken in the background, so that one that hangs costs the others nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Takes a look every so often by a thread of its own, and shows what the last one saw.

    Args:
        look: what is done; it raises nothing.
        nothing: what is shown before the first look is over.
        hangs: what is shown when a look takes longer than `patience` seconds, by how long it takes.
        every: seconds between two looks.
    """

    def __init__(
        self, look: Callable[[], T], nothing: T, hangs: Callable[[float], T], *, every: float, patience: float
    ) -> None:
        """Take what to do; nothing is done before `latest`."""
        self._look, self._latest, self._hangs = look, nothing, hangs
        self._every, self._patience = every, patience
        self._begun: float | None = None
        self._due = float("-inf")

    def latest(self, wait: float = 0.0) -> T:
        """Return what was seen last, and look again when that is due; `wait` at most so many seconds for it."""
        now = time.monotonic()
        if self._begun is None and now >= self._due:
            self._begun, self._due = now, now + self._every
            thread = threading.Thread(target=self._run, name="rtml-watch-look", daemon=True)
            thread.start()
            thread.join(wait)
        begun = self._begun
        if begun is not None and now - begun > self._patience:
            return self._hangs(now - begun)
        return self._latest

    def _run(self) -> None:
        self._latest = self._look()
        self._begun = None
