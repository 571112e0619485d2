"""A producer that never stops: steady, seeded events, each kept until the broker has taken it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from zlib import crc32

import redis

from rtml.instants import MINUTE, SECOND, now

CUSTOMERS, STORES = 300, 12
PARTITIONS = 2
TICK_SECONDS = 0.1
HOT = "c0"

_BURST = """
local offsets = {}
for number, payload in ipairs(ARGV) do offsets[number] = redis.call('XADD', KEYS[1], '*', 'data', payload) end
return offsets
"""


@dataclass(frozen=True)
class Mix:
    """What is sent: events a second, and which shares of them are odd."""

    rate: int = 200
    repeated: float = 0.03
    hot: float = 0.0
    """Are of one customer."""
    late: float = 0.0
    """Are older than the source's lateness."""
    broken: float = 0.0
    """Have a string where a number belongs."""
    ahead: float = 0.0
    """Come from a clock that is ten minutes ahead."""


class Sent(NamedTuple):
    """A message, and where it goes."""

    key: str
    payload: bytes


class Traffic:
    """Sends by a thread of its own until `stop`; what the broker refuses, or does not answer, is sent again.

    Args:
        port: where the broker listens.
        seed: makes the events the same every time.
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        """Take the broker; nothing is sent yet."""
        self.mix = Mix()
        self.taken: dict[tuple[str, str], bytes] = {}
        """What the broker has taken: by key and offset."""
        self.refusals = 0
        """How often it was full or away."""
        self._redis = redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1, protocol=2)
        self._rng = random.Random(seed)
        self._number = 0
        self._recent: deque[Sent] = deque(maxlen=20)
        self._waiting: list[Sent] = []
        self._going, self._idle, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._going.set()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._going.set()
        self._thread.join()
        self._redis.close()

    def change(self, **changes: Any) -> None:
        """Send another mix from now on; without changes, the plain one."""
        self.mix = replace(Mix(), **changes)

    def pause(self, timeout: float = 60) -> None:
        """Return when all that was made is taken; nothing is sent until `resume`."""
        self._going.clear()
        assert self._idle.wait(timeout), f"{len(self._waiting)} events were not taken in {timeout} s"

    def resume(self) -> None:
        """Go on."""
        self._idle.clear()
        self._going.set()

    def burst(self, count: int, at_once: int = 2_000) -> None:
        """Have the broker itself append very many events at once."""
        with self._lock:
            made = [self._make(Mix(repeated=0.0)) for _ in range(count)]
            for key in sorted({sent.key for sent in made}):
                payloads = [sent.payload for sent in made if sent.key == key]
                for start in range(0, len(payloads), at_once):
                    chunk = payloads[start : start + at_once]
                    offsets: Any = self._redis.eval(_BURST, 1, key, *chunk)
                    self._took(key, offsets, chunk)

    def send_again(self, lost: Sequence[tuple[str, str]]) -> None:
        """Send anew what the broker has lost: by key and offset."""
        with self._lock:
            self._waiting += [Sent(key, self.taken.pop((key, offset))) for key, offset in lost]

    def _took(self, key: str, offsets: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        self.taken.update({(key, offset.decode()): payload for offset, payload in zip(offsets, payloads, strict=True)})

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            with self._lock:
                if self._going.is_set():
                    share = self.mix.rate * TICK_SECONDS
                    self._waiting += [self._next() for _ in range(int(share))]
                self._send()
                if not self._going.is_set() and not self._waiting:
                    self._idle.set()
            due = max(due + TICK_SECONDS, time.monotonic() - 1)
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _next(self) -> Sent:
        if self._recent and self._rng.random() < self.mix.repeated:
            return self._rng.choice(self._recent)
        self._recent.append(made := self._make(self.mix))
        return made

    def _make(self, mix: Mix) -> Sent:
        rng = self._rng
        self._number += 1
        age = rng.randrange(2 * SECOND)
        kind = rng.random()
        if kind < mix.late:
            age += rng.randrange(3, 6) * MINUTE
        elif kind < mix.late + mix.ahead:
            age -= 10 * MINUTE
        customer = HOT if rng.random() < mix.hot else f"c{rng.randrange(CUSTOMERS)}"
        amount: Any = round(rng.lognormvariate(3, 1), 2)
        event = {
            "event_id": f"o{self._number}",
            "event_time": now() - age,
            "customer": customer,
            "store": f"s{rng.randrange(STORES)}",
            "amount": str(amount) if rng.random() < mix.broken else amount,
            "items": rng.randrange(1, 6),
        }
        partition = crc32(customer.encode()) % PARTITIONS
        return Sent(f"orders:{partition}" if partition else "orders", json.dumps(event).encode())

    def _send(self) -> None:
        """Send what waits, in its order within each partition."""
        waiting = self._waiting[:5_000]
        pipeline = self._redis.pipeline(transaction=False)
        for sent in waiting:
            pipeline.xadd(sent.key, {"data": sent.payload})
        try:
            replies = pipeline.execute(raise_on_error=False)
        except (redis.ConnectionError, redis.TimeoutError):
            self.refusals += len(waiting)
            return
        kept = []
        for sent, reply in zip(waiting, replies, strict=True):
            if isinstance(reply, bytes):
                self._took(sent.key, [reply], [sent.payload])
            elif isinstance(reply, redis.RedisError):
                kept.append(sent)
        self.refusals += len(kept)
        self._waiting = [*kept, *self._waiting[len(waiting) :]]
