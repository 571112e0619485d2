"""The stream's own processes: killed again and again, hanging, and behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import ClassVar

from tests.chaos.fault import OF_SOURCE, Fault
from tests.chaos.faults_redis import answers
from tests.chaos.world import TILES, World, until

KILLS = 3
BURST = 150_000


class StreamKilled(Fault):
    """A flow that dies whenever it has come up."""

    name: ClassVar = "a flow is killed again and again"
    does: ClassVar = f"`SIGKILL` of the tiles flow, {KILLS} times"
    holds: ClassVar = "started again at once, goes on from its position; the server serves"
    alert: ClassVar = "stream_restarts"
    target: ClassVar = OF_SOURCE
    also: ClassVar = ("stream_lag",)
    lingers: ClassVar = True

    def cause(self, world: World) -> None:
        for _ in range(KILLS):
            died = world.pid(TILES)
            os.kill(died, signal.SIGKILL)
            _another(world, died)

    def behaves(self, world: World) -> None:
        answers(world)


class StreamStalled(Fault):
    """A flow that is there and does nothing."""

    name: ClassVar = "a flow hangs"
    does: ClassVar = "`SIGSTOP` of the tiles flow"
    holds: ClassVar = "the supervisor restarts it, asked by the watch; the server serves"
    alert: ClassVar = "stream_stalled"
    target: ClassVar = OF_SOURCE
    also: ClassVar = ("stream_lag", "freshness")

    def cause(self, world: World) -> None:
        self._pid = world.pid(TILES)
        os.kill(self._pid, signal.SIGSTOP)

    def behaves(self, world: World) -> None:
        answers(world)
        _another(world, self._pid)

    def mend(self, world: World) -> None:
        with suppress(ProcessLookupError):  # as it should be
            os.kill(self._pid, signal.SIGCONT)


def _another(world: World, pid: int) -> None:
    """Return when the tiles flow runs in another process."""
    until(lambda: world.pid(TILES) != pid, "the supervisor starts it again")


class Lag(Fault):
    """More events at once than the stream can take."""

    name: ClassVar = "a burst"
    does: ClassVar = f"{BURST:,} events at once"
    holds: ClassVar = "nothing is refused, nothing restarts; the server serves"
    alert: ClassVar = "stream_lag"
    target: ClassVar = OF_SOURCE
    also: ClassVar = ("freshness",)

    def cause(self, world: World) -> None:
        self._pid = world.pid(TILES)
        world.traffic.burst(BURST)

    def behaves(self, world: World) -> None:
        answers(world)
        assert world.pid(TILES) == self._pid
