"""Work on parts by threads: numpy lets go of the interpreter where the time is spent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

P = TypeVar("P")
T = TypeVar("T")


def in_slices(count: int, step: int, work: Callable[[slice], T]) -> list[T]:
    """Return what `work` makes of `count` rows, `step` of them at a time, in their order."""
    return in_each([slice(start, min(start + step, count)) for start in range(0, max(count, 1), step)], work)


def in_each(parts: Sequence[P], work: Callable[[P], T]) -> list[T]:
    """Return what `work` makes of each part, in their order.

    It works in the caller's context, which tells numpy what to do about overflows.
    """
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(parts))) as threads:
        running = [threads.submit(copy_context().run, work, part) for part in parts]
        return [done.result() for done in running]
