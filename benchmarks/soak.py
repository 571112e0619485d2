"""`python -m benchmarks.soak`: minutes at 80 % of a server's capacity while events come in, and memory stays flat.

The capacity is measured first, with the same ingest running. Then both are under load until what they remember has
turned over (`benchmarks.soak_views`), and only from there on is resident memory of the server and of the stream read
and judged. A process that is started anew, or memory that grows, fails the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import http_serving
from benchmarks.harness import append, feature_server, tiles_flow
from benchmarks.http_load import Load, loaded
from benchmarks.shared import SERVICE, Cards, Shared
from rtml_assets.runtime.supervisor import Supervisor
from serving.paths import FEATURES

WARM_UP, SECONDS, SHARE, EVENTS_PER_SECOND = 120.0, 180.0, 0.8, 1_000
BUSY = 500
"""So many cards have all the events: enough for each to have split its tiles when the warm-up ends."""
EVERY_SECONDS = 3.0
MOST_GROWTH = 0.02
"""By what part the median of the last third may exceed that of the first one."""
MIB = 1 << 20


def resident(pid: int) -> int:
    """Return the bytes of memory that a process and its children hold."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


@contextmanager
def ingest(cards: Cards) -> Iterator[list[int]]:
    """Append events at a steady rate until the end; the list has how many there were."""
    done, counted = threading.Event(), [0]

    def work() -> None:
        rng, started = np.random.default_rng(7), time.monotonic()
        while not done.wait(0.02):
            due = int((time.monotonic() - started) * EVENTS_PER_SECOND) - counted[0]
            if due > 0:
                append(cards.client, rng.integers(0, BUSY, due), first=10_000_000 + counted[0])
                counted[0] += due

    thread = threading.Thread(target=work, name="ingest")
    thread.start()
    try:
        yield counted
    finally:
        done.set()
        thread.join()


@contextmanager
def memory(processes: dict[str, Supervisor]) -> Iterator[dict[str, list[int]]]:
    """Read each process's memory every few seconds until the end."""
    done = threading.Event()
    found: dict[str, list[int]] = {name: [] for name in processes}

    def work() -> None:
        while not done.wait(EVERY_SECONDS):
            for name, supervisor in processes.items():
                (status,) = supervisor.status().values()
                if status.pid is not None:
                    found[name].append(resident(status.pid))

    thread = threading.Thread(target=work, name="memory")
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def growth(found: list[int]) -> float:
    """Return by what part the last third lies above the first one."""
    third = len(found) // 3
    return float(np.median(found[2 * third :]) / np.median(found[:third]) - 1)


def main() -> int:
    """Run, and print; 1 where memory grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--warm-up", type=float, default=WARM_UP)
    asked = parser.parse_args()
    seconds = asked.seconds
    with Shared(features="benchmarks.soak_views") as shared:
        cards = shared.cards
        load = Load(cards.settings.port, f"{FEATURES}{SERVICE}", http_serving.bodies(shared), seconds=5.0)
        with feature_server(cards.settings) as serving, tiles_flow(cards.settings) as stream, ingest(cards) as counted:
            capacity = loaded(load).per_second
            steady = msgspec.structs.replace(load, rate=SHARE * capacity, seconds=asked.warm_up)
            loaded(steady)
            steady = msgspec.structs.replace(steady, seconds=seconds)
            with memory({"serving": serving, "stream": stream}) as found:
                result = loaded(steady)
            restarts = sum(status.restarts for one in (serving, stream) for status in one.status().values())
    print(f"capacity {capacity:,.0f} requests/s with {EVENTS_PER_SECOND:,} events/s coming in")
    print(f"{seconds:g} s at {SHARE:.0%}: {result.requests:,} answers, {result.failed} not 200, {restarts} restarts")
    print(f"p50 {result.p50 * 1e3:.1f} ms, p99 {result.p99 * 1e3:.1f} ms; {counted[0]:,} events")
    for name, sizes in found.items():
        first, last = sizes[0] / MIB, sizes[-1] / MIB
        print(f"{name}: {first:.0f} → {last:.0f} MiB, the last third {growth(sizes):+.1%} above the first one")
    return int(restarts > 0 or any(growth(sizes) > MOST_GROWTH for sizes in found.values()))


if __name__ == "__main__":
    sys.exit(main())
