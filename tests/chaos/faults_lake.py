"""The offline half: a full disk, a rival writer, a tile that is wrong, and a daemon that does not live."""

from __future__ import annotations

import threading
import time
from datetime import date
from typing import ClassVar

import polars as pl
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from rtml.instants import now, to_datetime
from rtml.lake import EVENT_DATE
from rtml.online import keys
from rtml_assets.defs.materialize import CompactionError
from streaming.versions import live_version
from tests.chaos.definitions import SERVICE, SOURCE
from tests.chaos.fault import Fault
from tests.chaos.faults_redis import answers
from tests.chaos.world import World, until

CHUNK = bytes(1_000_000)
DAEMON = "dagster-daemon"
VIEW = "customer_orders"


class DiskFull(Fault):
    """No room in the lake."""

    name: ClassVar = "the lake's disk is full"
    does: ClassVar = "a file takes all that was free"
    holds: ClassVar = "online goes on, exactly; the mirror tries again, and loses nothing"
    alert: ClassVar = "disk_full"
    also: ClassVar = ("lake_unwritable", "stream_restarts", "stream_stalled", "run_failed", "check_failed")

    def cause(self, world: World) -> None:
        if not world.has_own_disk:
            pytest.skip("the lake has no disk of its own: mounting a tmpfs is not allowed here")
        self._filler = world.home / "lake" / "filler"
        with self._filler.open("wb", buffering=0) as file:
            for chunk in (CHUNK, CHUNK[:4096]):
                try:
                    while file.write(chunk) == len(chunk):
                        pass
                except OSError:
                    continue

    def behaves(self, world: World) -> None:
        until(lambda: world.told("fired", "lake_unwritable", "platform"), "lake_unwritable fires")
        assert world.agree("tiles") > 0
        answers(world)

    def mend(self, world: World) -> None:
        self._filler.unlink()


class DeltaConflict(Fault):
    """Somebody else writes the same days again and again."""

    name: ClassVar = "a rival writer in the lake"
    does: ClassVar = "another writer overwrites today's partition of `events/` as fast as it can while compaction runs"
    holds: ClassVar = "a few conflicts are retried; a run that meets nothing else fails, and changes nothing"
    alert: ClassVar = "delta_conflict"
    target: ClassVar = f"job:compact_{SOURCE}"

    def prepare(self, world: World) -> None:
        with Rival(world, most=2):
            world.compact()

    def cause(self, world: World) -> None:
        with Rival(world), pytest.raises(CompactionError):
            world.compact()

    def mend(self, world: World) -> None:
        world.compact()


class Rival:
    """Writes a day of `events/` just as it is, again and again, until the block is left, or `most` times."""

    def __init__(self, world: World, most: int = 1_000_000) -> None:
        """Take the day."""
        self._uri, self._most = world.lake.events(SOURCE), most
        self._day: date = to_datetime(now()).date()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.commits = 0

    def __enter__(self) -> Rival:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; it must have been there."""
        self._stopped.set()
        self._thread.join()
        assert self.commits, "the rival never came to write"

    def _run(self) -> None:
        day = pl.col(EVENT_DATE) == self._day
        while not self._stopped.is_set() and self.commits < self._most:
            try:
                rows = pl.scan_delta(self._uri).filter(day).collect()
                write_deltalake(self._uri, rows, mode="overwrite", predicate=f"{EVENT_DATE} = '{self._day}'")
                self.commits += 1
            except CommitFailedError:
                continue


class SkewFound(Fault):
    """What is served is wrong, and nobody but the canary can know."""

    name: ClassVar = "online and offline disagree"
    does: ClassVar = "tiles of one entity are deleted in Redis, and it is asked for"
    holds: ClassVar = "the canary names the features and the entity (it runs hourly; here it was run at once)"
    alert: ClassVar = "parity_broken"
    target: ClassVar = f"check:served/{SERVICE}:canary"

    def cause(self, world: World) -> None:
        customer = "c7"
        world.traffic.pause()
        world.settle()
        version = live_version(world.client, VIEW, world.registry.plans[VIEW].fingerprint)
        assert version is not None
        key = keys.entity_tag("customer", [customer]) + keys.versioned(VIEW, version.version)
        tiles = [name for name in world.client.hgetall(key) if len(name) == 5]
        assert tiles
        world.client.hdel(key, *tiles)
        world.ask([{"customer": customer, "store": "s1"}])
        world.traffic.resume()
        time.sleep(1)
        world.compact()
        assert not world.canary()

    def behaves(self, world: World) -> None:
        (said,) = world.told("fired", self.alert, self.target)
        assert "customer c7" in said["words"]

    def mend(self, world: World) -> None:
        assert "is ready" in world.rtml("backfill", VIEW, "--rebuild")
        world.traffic.pause()
        world.settle()
        world.traffic.resume()
        world.ask([{"customer": "c7", "store": "s1"}])
        time.sleep(1)
        world.compact()
        assert world.canary()


class DagsterDown(Fault):
    """A daemon that dies whenever it has come up."""

    name: ClassVar = "Dagster's daemon is down"
    does: ClassVar = "`SIGKILL` whenever it is started"
    holds: ClassVar = "online goes on, exactly"
    alert: ClassVar = "dagster_down"
    also: ClassVar = ("stream_restarts",)
    grace: ClassVar = 95.0
    """So young a watch says nothing of it: Dagster takes long to start."""

    def cause(self, world: World) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(world,), daemon=True)
        self._thread.start()

    def _run(self, world: World) -> None:
        while not self._stopped.wait(0.1):
            if world.project.status()[DAEMON].pid is not None:
                world.kill(DAEMON)

    def behaves(self, world: World) -> None:
        assert world.agree() > 0
        answers(world)

    def mend(self, world: World) -> None:
        self._stopped.set()
        self._thread.join()
