"""Redis: full, hanging, and gone for good but for an older copy of itself."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import ClassVar

from tests.chaos.fault import Fault
from tests.chaos.world import ENTITIES, MIRROR, TILES, World, until

REDIS_DEADLINE = 2.0
"""Seconds within which the feature server must say that Redis is away: its patience is half a second."""
FEW = ENTITIES[:5]


def answers(world: World) -> None:
    """Assert that the feature server serves."""
    answer = world.ask(FEW)
    assert answer.status == 200, answer


def says_that_redis_is_away(world: World) -> None:
    """Assert that the feature server answers 503, with a reason, within its deadline."""
    for _ in range(3):
        answer = world.ask(FEW)
        assert answer.status == 503, answer
        assert "Redis" in str(answer.body), answer
        assert answer.seconds < REDIS_DEADLINE, answer


def flows(world: World) -> tuple[int, int]:
    """Return the processes of both flows."""
    return world.pid(TILES), world.pid(MIRROR)


class RedisFull(Fault):
    """No memory for anything new."""

    name: ClassVar = "Redis is full"
    does: ClassVar = "`CONFIG SET maxmemory` at what is used"
    holds: ClassVar = "producers and flows are refused and try again, no process dies; the server serves what there is"
    alert: ClassVar = "redis_memory"
    also: ClassVar = ("stream_lag", "freshness", "stream_stalled")

    def cause(self, world: World) -> None:
        self._flows, self._refusals = flows(world), world.traffic.refusals
        used = world.client.info("memory")["used_memory"]
        world.client.config_set("maxmemory", used + 100_000)

    def behaves(self, world: World) -> None:
        until(lambda: world.traffic.refusals > self._refusals, "the producer is refused")
        time.sleep(2)
        answers(world)
        assert flows(world) == self._flows

    def mend(self, world: World) -> None:
        world.client.config_set("maxmemory", 0)


class RedisHangs(Fault):
    """It is there, and answers nobody."""

    name: ClassVar = "Redis hangs"
    does: ClassVar = "`SIGSTOP` for 15 s"
    holds: ClassVar = "503 with the reason within 2 s; the flows wait, none dies"
    alert: ClassVar = "redis_unavailable"
    seconds: ClassVar = 15.0

    def cause(self, world: World) -> None:
        self._flows, self._begun = flows(world), time.monotonic()
        assert world.redis.pid is not None
        os.kill(world.redis.pid, signal.SIGSTOP)

    def behaves(self, world: World) -> None:
        says_that_redis_is_away(world)
        time.sleep(max(0.0, self._begun + self.seconds - time.monotonic()))
        assert flows(world) == self._flows

    def mend(self, world: World) -> None:
        assert world.redis.pid is not None
        os.kill(world.redis.pid, signal.SIGCONT)


class RedisIsOlder(Fault):
    """It dies, and what comes back is a copy of 5 seconds before."""

    name: ClassVar = "Redis is gone, and comes back older"
    does: ClassVar = "ended, and started from a copy of 5 s before; producers send again what it lost"
    holds: ClassVar = "503 with the reason within 2 s; the flows begin anew from the positions in the copy"
    alert: ClassVar = "redis_unavailable"

    def prepare(self, world: World) -> None:
        self._data, self._copy = world.home / "redis", world.home / "redis-copy"
        shutil.copytree(self._data, self._copy)
        time.sleep(5)

    def cause(self, world: World) -> None:
        world.redis.stop()

    def behaves(self, world: World) -> None:
        says_that_redis_is_away(world)

    def mend(self, world: World) -> None:
        shutil.rmtree(self._data)
        self._copy.rename(self._data)
        world.redis.start()
        lost = world.truth.missing(world.traffic.taken)
        assert lost, "the copy has all that was sent since"
        world.truth.forget()
        world.traffic.send_again(lost)
