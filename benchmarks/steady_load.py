"""`python -m benchmarks.steady_load RATE`: append so many payments a second, in bursts of 5 ms, until it is stopped."""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.harness import append
from rtml.settings import load_settings
from streaming.broker import connect

BURST = 0.005
CARDS = 10_000


def main(rate: int) -> None:
    """Append what is due, then sleep."""
    rng = np.random.default_rng(2)
    with connect(load_settings()) as client:
        started, sent = time.perf_counter(), 0
        while True:
            due = int((time.perf_counter() - started) * rate)
            append(client, rng.integers(0, CARDS, due - sent), first=sent)
            sent = due
            time.sleep(BURST)


if __name__ == "__main__":
    main(int(sys.argv[1]))
