"""Work on slices of rows by threads: numpy lets go of the interpreter where the time is spent."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def in_slices(count: int, step: int, work: Callable[[slice], T]) -> list[T]:
    """Return what `work` makes of `count` rows, `step` of them at a time, in their order.

    It works in the caller's context, which tells numpy what to do about overflows.
    """
    slices = [slice(start, min(start + step, count)) for start in range(0, max(count, 1), step)]
    if len(slices) < 2:
        return [work(part) for part in slices]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(slices))) as threads:
        running = [threads.submit(copy_context().run, work, part) for part in slices]
        return [part.result() for part in running]
