"""Heartbeats as the watch sends and awaits them: how long they take to the other end, or how long one is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtml.define.source import EventSource
from rtml.instants import Instant
from rtml.online import keys
from streaming.heartbeats import Heard, order, parse_heard, send_heartbeats
from streaming.positions import arrived_at

if TYPE_CHECKING:
    from redis import Redis

FLOWS = ("tiles", "mirror")
PATIENCE_SECONDS = 0.25
"""How long a look waits for the heartbeats that it sent."""
POLL_SECONDS = 0.005
MOST_AWAITED = 1_000


@dataclass(frozen=True)
class Beat:
    """How a partition's heartbeats come through a flow."""

    took_ms: float | None
    """What the newest that came through took; `None` when none ever did."""
    missing_ms: float
    """How long the oldest that was sent, and did not come through, is under way."""
    newest: str | None = None
    """The id of the newest that came through."""


Beats = dict[str, dict[int, Beat]]
"""By flow and partition."""


class Heartbeats:
    """What was sent, and has not been seen at the other end yet.

    Only what this object sent is awaited: a flow that reads its past again passes older ones, and a watch that was away
    has none missing.
    """

    def __init__(self, sources: Iterable[EventSource], sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the sources; nothing is sent yet."""
        self._sources = list(sources)
        self._sleep = sleep
        self._awaited: dict[tuple[str, str, int], list[str]] = {}
        self._heard: dict[tuple[str, str], dict[int, Heard]] = {}

    def send(self, client: Redis) -> None:
        """Send one to every partition that was ever written to.

        Raises:
            redis.RedisError: Redis does not take them.
        """
        for source, partitions in send_heartbeats(client, self._sources).items():
            for partition, offset in partitions.items():
                for flow in FLOWS:
                    awaited = self._awaited.setdefault((source, flow, partition), [])
                    if len(awaited) >= MOST_AWAITED:
                        del awaited[1]  # the oldest says how long it has been
                    awaited.append(offset)

    def wait(self, client: Redis, patience: float = PATIENCE_SECONDS) -> None:
        """Return when the tiles flows have passed all on, or after `patience` seconds.

        Flows that lacked some before this look are not waited for.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        self.hear(client)
        lost = {key for key, awaited in self._awaited.items() if len(awaited) > 1}
        deadline = time.monotonic() + patience
        while self._is_awaiting(lost) and time.monotonic() < deadline:
            self._sleep(POLL_SECONDS)
            self.hear(client)

    def _is_awaiting(self, lost: set[tuple[str, str, int]]) -> bool:
        return any(awaited for key, awaited in self._awaited.items() if key[1] == "tiles" and key not in lost)

    def hear(self, client: Redis) -> None:
        """Look which have come through.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        asked = [(source.name, flow) for source in self._sources for flow in FLOWS]
        pipeline = client.pipeline(transaction=False)
        for source, flow in asked:
            pipeline.hgetall(keys.heartbeat(source, flow))
        self._heard = {key: parse_heard(stored) for key, stored in zip(asked, pipeline.execute(), strict=True)}
        for (source, flow, partition), awaited in self._awaited.items():
            heard = self._heard[source, flow].get(partition)
            if heard is not None:
                awaited[:] = [offset for offset in awaited if order(offset) > heard.order]

    def beats(self, source: str, redis_clock: Instant) -> Beats:
        """Return how a source's heartbeats come through, as of the last `hear`; `redis_clock` is Redis' time."""
        found: Beats = {flow: {} for flow in FLOWS}
        for (name, flow, partition), awaited in self._awaited.items():
            if name != source:
                continue
            heard = self._heard.get((source, flow), {}).get(partition)
            missing = (redis_clock - arrived_at(awaited[0].encode())) / 1_000 if awaited else 0.0
            took = None if heard is None else heard.took_ms
            found[flow][partition] = Beat(took, max(0.0, missing), None if heard is None else heard.offset)
        return found
