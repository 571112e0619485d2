"""What an entity costs to serve that has 10, a thousand or a million events in its windows, beside each other."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from benchmarks.harness import append, online_store, tiles_flow, wait_for_position
from benchmarks.rows import Row, at_most, milliseconds
from benchmarks.shared import SERVICE
from rtml import instants
from rtml.instants import DAY, HOUR, Instant
from serving.client import FeatureClient

EVENTS = (10, 1_000, 1_000_000)
WINDOW = 7 * DAY
RUSH, RUSHED = 2 * HOUR, 500_000
"""An entity so hurried that the edge of the 1h window cuts a finest tile of twenty thousand events."""
CALLS, WARM_UP, AIM = 1_000, 50, 1.5


def run() -> list[Row]:
    """Send entities of all sizes, spread over the longest window; and one in a hurry."""
    with online_store(accept_stamps=True) as (client, settings):
        now = instants.now()
        times, cards = history(now)
        with tiles_flow(settings):
            wait_for_position(client, int(append(client, cards, times)[-1]), 400)
        with FeatureClient(settings) as features:
            took = measured(features)
            counts = [served(features, card) for card in range(len(EVENTS) + 1)]
    # What has left the windows while it was sent is little.
    if any(count < 0.9 * expected for count, expected in zip(counts, (*EVENTS, RUSHED), strict=True)):
        raise ValueError(f"entities of {EVENTS} events were served as counts of {counts}")
    return rows(took)


def rows(took: np.ndarray) -> list[Row]:
    """Compare the medians."""
    *even, rushed = np.median(took, axis=1)
    figures = " / ".join(milliseconds(seconds) for seconds in even)
    sizes = " / ".join(f"{count:,}" for count in EVENTS)
    return [
        at_most(
            f"p50 of an entity with {sizes} events over 7d: most beside least", figures, max(even) / min(even), AIM
        ),
        Row(f"  {RUSHED:,} events within the last 2h", milliseconds(rushed), "", f"{rushed / min(even):.2f}×"),
        Row("  p99 of all", " / ".join(milliseconds(p99) for p99 in np.percentile(took, 99, axis=1))),
    ]


def history(now: Instant) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of all payments in order, and whose they are: a card for each size, and the hurried one."""
    spans = [*((count, WINDOW) for count in EVENTS), (RUSHED, RUSH)]
    times = np.concatenate([np.linspace(now - span + HOUR // 12, now - 1, count) for count, span in spans])
    cards = np.repeat(np.arange(len(spans)), [count for count, _ in spans])
    order = np.argsort(times, kind="stable")
    return times[order].astype(np.int64), cards[order]


def measured(features: FeatureClient) -> np.ndarray:
    """Return the seconds of calls, a row for each card; the cards take turns."""
    cards = [[{"card": f"c{card}"}] for card in range(len(EVENTS) + 1)]
    took = np.zeros((len(cards), CALLS))
    for call in range(-WARM_UP, CALLS):
        for number, asked in enumerate(cards):
            started = perf_counter()
            features.get(SERVICE, asked)
            took[number, max(call, 0)] = perf_counter() - started
    return took


def served(features: FeatureClient, card: int) -> int:
    """Return how many events an entity is served to have in the longest window."""
    answer = features.get(SERVICE, [{"card": f"c{card}"}])
    count = answer.rows[0][answer.features.index("card_payments__count_7d")]
    return count if isinstance(count, int) else 0
