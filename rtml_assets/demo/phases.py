"""What the demo does, one thing after the other: each with a bar, and its seconds kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID


class Bar:
    """One phase's bar."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        """Take the bar of a task."""
        self._bars, self._task = bars, task

    def at(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Say how much is done, of how much, and with what."""
        self._bars.update(self._task, completed=done, total=total, detail=detail)

    def step(self, detail: str = "") -> None:
        """Say that one more is done."""
        self._bars.update(self._task, advance=1, detail=detail)


class Phases:
    """The phases so far, by name."""

    def __init__(self, bars: Progress) -> None:
        """Show bars here."""
        self._bars = bars
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, words: str, total: int) -> Iterator[Bar]:
        """Time the block, and show a bar that is full when it has ended well."""
        task = self._bars.add_task(words, total=total, detail="")
        started = time.perf_counter()
        yield Bar(self._bars, task)
        self.seconds[name] = round(time.perf_counter() - started, 2)
        (shown,) = [one for one in self._bars.tasks if one.id == task]
        self._bars.update(task, completed=shown.total, detail="")
