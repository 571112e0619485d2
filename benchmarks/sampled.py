"""Where the time of a process goes: `python -m benchmarks.sampled FILE MODULE ...` runs a module and samples it.

XX
"""

from __future__ import annotations

import runpy
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

INTERVAL = 0.002
SWITCH_SECONDS = 0.0001
"""How soon a thread hands over the interpreter to the sampler: where it is then is charged with what it did."""
SHOWN = 25

Stack = tuple[str, ...]


class Seen(NamedTuple):
    """How often a stack was seen, and for how many seconds a processor worked since the sample before."""

    times: int
    work: float


class Profile(NamedTuple):
    """The busiest thread's stacks, outermost function first; and for how many seconds it was looked at."""

    seconds: float
    stacks: list[tuple[Stack, Seen]]


class _Thread:
    """What was seen of one thread."""

    def __init__(self, ident: int) -> None:
        self._clock = time.pthread_getcpuclockid(ident)
        self._worked = time.clock_gettime(self._clock)
        self.stacks: dict[Stack, Seen] = {}

    def look(self, stack: Stack) -> None:
        worked = time.clock_gettime(self._clock)
        times, work = self.stacks.get(stack, Seen(0, 0.0))
        self.stacks[stack] = Seen(times + 1, work + worked - self._worked)
        self._worked = worked

    @property
    def work(self) -> float:
        return sum(seen.work for seen in self.stacks.values())


class Sampler:
    """Looks at all threads but its own, between `start` and `stop`."""

    def __init__(self) -> None:
        self._threads: dict[int, _Thread] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._started = time.perf_counter()
        self._thread.start()

    def stop(self) -> Profile:
        """End, and return what was seen of the thread that worked most."""
        self._stopped.set()
        self._thread.join()
        seconds = time.perf_counter() - self._started
        sys.setswitchinterval(self._switch)
        busiest = max(self._threads.values(), key=lambda thread: thread.work)
        return Profile(seconds, list(busiest.stacks.items()))

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._stopped.wait(INTERVAL):
            for ident, frame in sys._current_frames().items():
                if ident == own:
                    continue
                if ident not in self._threads:
                    self._threads[ident] = _Thread(ident)
                self._threads[ident].look(_stack(frame))


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
    """Have a process that was started with this file count its samples, and write them at the end."""
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
    """Return the functions that most work goes to, themselves and with all that they call, in µs per operation.

    `work` is a processor's, `clock` has the waiting as well.
    """
    total = sum(seen.times for _, seen in profile.stacks)
    tick, micro = profile.seconds * 1e6 / total / operations, 1e6 / operations
    worked = sum(seen.work for _, seen in profile.stacks) * micro
    each = f"{tick * total:,.1f} µs each by the clock, {worked:,.1f} of work"
    lines = [f"{operations:,.0f} × {unit}: {each}; {total:,} samples"]
    for title, named in (("itself", lambda stack: stack[-1:]), ("with what it calls", set)):
        clock, work = defaultdict[str, float](float), defaultdict[str, float](float)
        for stack, seen in profile.stacks:
            for name in named(stack):
                clock[name] += seen.times * tick
                work[name] += seen.work * micro
        lines.append(f"\n{'work':>9} {'share':>7} {'clock':>9}  {title}")
        for name in sorted(work, key=lambda name: -work[name])[:SHOWN]:
            lines.append(f"{work[name]:9.2f} {work[name] / worked:7.1%} {clock[name]:9.2f}  {name}")
    return "\n".join(lines)


def _follow(file: Path) -> None:
    """Sample whenever the switch is there."""
    switch = file.with_suffix(".on")
    while True:
        if switch.exists():
            sampler = Sampler()
            sampler.start()
            while switch.exists():
                time.sleep(0.02)
            written = file.with_suffix(".part")
            written.write_bytes(msgspec.json.encode(sampler.stop()))
            written.rename(file)
        time.sleep(0.02)


def main() -> None:
    """Run the module, as `python -m` does."""
    threading.Thread(target=_follow, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
