"""History into streams, under its own stamps, at a chosen pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import polars as pl
import redis
from rich.console import Console

from rtml import instants
from rtml.define.source import EventSource
from rtml.errors import RequestError, UnavailableError
from rtml.instants import Duration, Instant
from rtml.projection import INGESTED_AT
from rtml.settings import Settings
from rtml_assets.runtime.progress import progress_bar
from streaming.broker import connect
from streaming.producer import Producer

STEPS_PER_SECOND = 20
UNPACED_STEP = instants.HOUR


class Step(NamedTuple):
    """What arrives up to (not including) an instant, of each source."""

    until: Instant
    frames: dict[str, pl.DataFrame]


class Sent(NamedTuple):
    """How far a replay has come."""

    until: Instant
    counts: dict[str, int]
    """Events sent so far, by source."""


def replay(
    frames: Mapping[str, pl.DataFrame],
    producers: Mapping[str, Producer],
    speed: float,
    *,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Sent]:
    """Send the events of several sources in the order of their stamps, and yield after each step.

    Args:
        frames: events by source; the column `ingested_at` holds their stamps.
        producers: where they go, by source.
        speed: how many times faster than they came; 0 is as fast as the streams take them.
        stopped: asked before each step; when it says yes, the rest is left unsent.
    """
    counts = dict.fromkeys(frames, 0)
    started = clock()
    first: Instant | None = None
    for step in steps(frames, round(speed / STEPS_PER_SECOND * instants.SECOND) or UNPACED_STEP):
        if stopped():
            return
        first = step.until if first is None else first
        if speed and (wait := started + (step.until - first) / instants.SECOND / speed - clock()) > 0:
            sleep(wait)
        for name, frame in step.frames.items():
            if frame.height:
                counts[name] += producers[name].send(frame, ingested_at=INGESTED_AT)
            # Whatever the others bring, this source has nothing more from before the step's end.
            producers[name].tick(step.until)
        yield Sent(step.until, dict(counts))


def steps(frames: Mapping[str, pl.DataFrame], length: Duration) -> Iterator[Step]:
    """Cut frames into steps of a length, all at the same instants; the last one ends right after the last event."""
    ordered = {name: frame.sort(INGESTED_AT, maintain_order=True) for name, frame in frames.items()}
    stamps = {name: frame[INGESTED_AT].dt.epoch("us") for name, frame in ordered.items() if frame.height}
    if not stamps:
        return
    begin = min(int(column[0]) for column in stamps.values())
    end = max(int(column[-1]) for column in stamps.values()) + 1
    taken = dict.fromkeys(ordered, 0)
    while begin < end:
        until = min(instants.floor(begin, length) + length, end)
        parts = {}
        for name, frame in ordered.items():
            upto = int(stamps[name].search_sorted(until, "left")) if name in stamps else 0
            parts[name] = frame[taken[name] : upto]
            taken[name] = upto
        yield Step(until, parts)
        begin = until


def replay_one(console: Console, settings: Settings, source: EventSource, events: pl.DataFrame, speed: float) -> None:
    """Replay one source's events, with a progress bar.

    Raises:
        RequestError: there are none.
        SendError: their stamps are not accepted, or lie before what the stream has already.
        UnavailableError: Redis does not answer.
    """
    if events.is_empty():
        raise RequestError(f"there are no events of {source.name!r} to replay")
    producer = Producer(connect(settings, timeout=30), source, accept_stamps=settings.accept_stamps)
    try:
        with progress_bar(console) as bars:
            bar = bars.add_task(f"replaying {source.name}", total=events.height, detail="")
            for sent in replay({source.name: events}, {source.name: producer}, speed):
                at = instants.to_datetime(sent.until)
                bars.update(bar, completed=sent.counts[source.name], detail=f"{at:%Y-%m-%d %H:%M}")
    except redis.RedisError as error:
        raise UnavailableError(f"Redis does not answer: {error}") from None
    console.print(f"{events.height:,} events of {source.name} sent")
