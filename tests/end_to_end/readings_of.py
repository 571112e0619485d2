"""Random readings in order of arrival: disorder, ties, edges, repetitions, conflicts, late ones and future ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rtml.instants import SECOND, Instant, to_instant, to_text
from streaming.entries import Entries
from streaming.gate import id64
from tests.oracle import Event

KEYS = ("a", "b|{c}", "")
STARTS = ["2024-02-28T23:58:00Z", "2024-02-28T12:00:00Z", "2024-02-29T21:30:00.000001Z"]
TEXTS = ["", "🛫", "often", "a|b", "x" * 200]


def draw_readings(rng: random.Random, lateness: int, skew: int, count: int) -> list[list[Event]]:
    """Draw what arrives in each of two partitions; a repetition comes where its event was."""
    partitions: list[list[Event]] = [[], []]
    gap = rng.choice([50_000, 400_000, 3 * SECOND, 40 * SECOND])
    now = to_instant(rng.choice(STARTS))
    for number in range(count):
        now += 1 + int(rng.expovariate(1 / rng.choice([gap, gap, gap * 10])))
        events = partitions[rng.random() < 0.33]
        again = rng.choice(events[-30:]) if events and rng.random() < 0.12 else None
        if again is not None:
            values = {**draw_values(rng), "ref": again.values["ref"]} if rng.random() < 0.4 else again.values
            events.append(replace(again, ingested=now, values=values))
            continue
        ref = f"{number}"
        values = {**draw_values(rng), "ref": ref}
        time = _time(rng, now, lateness, skew)
        events.append(Event(rng.choice(KEYS), time, id64(ref), now, values))
    return partitions


def _time(rng: random.Random, now: Instant, lateness: int, skew: int) -> Instant:
    delay = rng.choices(
        [
            rng.uniform(0, lateness),
            rng.uniform(0, 500_000),
            -rng.uniform(0, skew),
            lateness,
            lateness + 1,
            lateness + rng.uniform(0, rng.choice([300, 20_000]) * SECOND),
            -skew - 1,
        ],
        weights=[6, 6, 3, 1, 1, 1, 0.2],
    )[0]
    time = now - int(delay)
    grid = rng.choice([1, 1, 50_000, 10 * SECOND])
    return max(time // grid * grid, time if delay == lateness else 0)


def draw_values(rng: random.Random) -> dict[str, Any]:
    """Draw what is measured, as a consumer sees it: of a boolean 0 or 1."""
    values = {
        "f": rng.choice([rng.gauss(100, 30), rng.gauss(1e6, 3), 0.0, -0.0, float(rng.randrange(-5, 6))]),
        "n": rng.choice([rng.randrange(-5, 6), rng.randrange(-(2**40), 2**40)]),
        "b": rng.randrange(2),
        "s": rng.choice([*TEXTS, f"{rng.randrange(40)}", f"once {rng.random()}"]),
    }
    return {name: None if rng.random() < 0.1 else value for name, value in values.items()}


def entries(partition: int, events: Sequence[Event], start: int) -> Entries:
    """Return events as they are read from a partition, from a place on."""
    stamps = [event.ingested for event in events]
    offsets = [f"{start + place + 1}-0" for place in range(len(events))]
    return Entries(partition, offsets, stamps, stamps, [_payload(event) for event in events])


def _payload(event: Event) -> bytes:
    told = {**event.values, "b": None if event.values["b"] is None else bool(event.values["b"])}
    return json.dumps({**told, "at": to_text(event.time), "key": event.key}).encode()
