"""Where the work of a process goes: `python -m benchmarks.sampled FILE MODULE ...` runs a module and samples it.

After every two milliseconds that a processor worked for it, the main thread is looked at: what it waits for does not
count. Samples are taken only while `FILE.on` is there; when it goes, they are written to FILE.
"""

from __future__ import annotations

import runpy
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

INTERVAL = 0.002
SHOWN = 25

Stack = tuple[str, ...]


class Profile(NamedTuple):
    """The main thread's stacks, outermost function first, with the seconds of work in each; over so many seconds."""

    seconds: float
    stacks: list[tuple[Stack, float]]


class Sampler:
    """Looks at the main thread, which makes it, between `start` and `stop`, which any thread may call.

    The timer counts the work of all threads. So a sample stands for the work that the main thread itself has done since
    the one before, be it none.
    """

    def __init__(self) -> None:
        self._worked: defaultdict[Stack, float] = defaultdict(float)
        self._before = 0.0
        self._started = 0.0
        signal.signal(signal.SIGPROF, self._look)

    def start(self) -> None:
        """Begin."""
        self._worked.clear()
        self._before = 0.0
        self._started = time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def stop(self) -> Profile:
        """End, and return what was seen."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return Profile(time.perf_counter() - self._started, list(self._worked.items()))

    def _look(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        if self._before:
            self._worked[_stack(frame)] += now - self._before
        self._before = now


def _stack(frame: FrameType | None) -> Stack:
    names = []
    while frame is not None:
        code = frame.f_code
        names.append(f"{_short(code.co_filename)}:{code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


def _short(file: str) -> str:
    """Return the last two parts of a path, which say whose code it is."""
    return "/".join(Path(file).parts[-2:])


@contextmanager
def sampling(file: Path | None) -> Iterator[None]:
    """Have a process that was started with this file take samples, and write them at the end."""
    if file is None:
        yield
        return
    switch = file.with_suffix(".on")
    switch.touch()
    try:
        yield
    finally:
        switch.unlink()
        deadline = time.monotonic() + 30
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)


def read(file: Path) -> Profile:
    """Return what a process wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Profile)


def table(profile: Profile, operations: float, unit: str) -> str:
    """Return the functions that most work goes to, themselves and with all that they call, in µs per operation."""
    itself, whole = Counter[str](), Counter[str]()
    micro = 1e6 / operations
    for stack, seconds in profile.stacks:
        itself.update({stack[-1]: seconds * micro})
        whole.update(dict.fromkeys(stack, seconds * micro))
    worked, each = sum(itself.values()), profile.seconds * micro
    lines = [
        f"{operations:,.0f} × {unit}: {each:,.1f} µs each by the clock, {worked:,.1f} of them the main thread's work"
    ]
    for title, counts in (("itself", itself), ("with what it calls", whole)):
        lines.append(f"\n{'µs':>9} {'share':>7}  {title}")
        lines += [f"{work:9.2f} {work / worked:7.1%}  {name}" for name, work in counts.most_common(SHOWN)]
    return "\n".join(lines)


def _follow(sampler: Sampler, file: Path) -> None:
    """Sample whenever the switch is there."""
    switch = file.with_suffix(".on")
    while True:
        if switch.exists():
            sampler.start()
            while switch.exists():
                time.sleep(0.02)
            written = file.with_suffix(".part")
            written.write_bytes(msgspec.json.encode(sampler.stop()))
            written.rename(file)
        time.sleep(0.02)


def main() -> None:
    """Run the module, as `python -m` does."""
    threading.Thread(target=_follow, args=(Sampler(), Path(sys.argv[1])), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
