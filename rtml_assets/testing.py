"""`LocalPlatform`: the whole platform in one test, with real parts in a temporary folder.

    with LocalPlatform("features.py") as platform:
        platform.send("departures", events, ingested_at="ingested_at")
        platform.settle()
        frame = platform.online("eta", [{"origin": "JFK"}])

Tests may live in any year, and never sleep.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rtml import instants
from rtml.errors import UnavailableError
from rtml.instants import BEGINNING
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import Registry, load
from rtml.settings import Settings
from rtml_assets.runtime.behind import behind
from rtml_assets.runtime.project import FLOWS
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.runtime.supervisor import Child, Supervisor
from rtml_assets.store import FeatureStore, Labels
from rtml_assets.tables.promotion import Promotion, promote, rollback
from rtml_assets.tables.proof import prover
from rtml_assets.tables.training_set import Progress
from serving.feature_log import FeatureLog
from streaming.broker import connect
from streaming.producer import Producer

if TYPE_CHECKING:
    from redis import Redis

    from rtml_assets.defs.materialize import Summary

POLL_SECONDS = 0.01
EPOCH = "200ms"
START_TIMEOUT = "60s"
UPDATED = "updated_at"


class LocalPlatform:
    """An embedded Redis, the stream's processes, a lake and Dagster, from `with` to its end.

    Args:
        features: an import path or a `.py` file of definitions.
        processes: in how many processes each source's tiles flow runs.
    """

    def __init__(self, features: str, processes: int = 1) -> None:
        """Take the definitions; nothing is started before `with`."""
        self._features = _located(features)
        self._processes = processes

    def __enter__(self) -> LocalPlatform:
        """Start all parts, and return when events can be sent."""
        self.registry: Registry = load(self._features)
        self._folder = Path(tempfile.mkdtemp(prefix="rtml-"))
        self._redis = EmbeddedRedis(self._folder)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all parts, and remove the folder."""
        if hasattr(self, "store"):
            self.store.close()
        if hasattr(self, "_supervisor"):
            self._supervisor.stop()
        self._redis.stop()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._redis.start()
        self.settings = Settings(
            features=self._features,
            home=str(self._folder),
            redis_url=self._redis.url,
            accept_stamps=True,
            tile_epoch=EPOCH,
            mirror_epoch=EPOCH,
            stream_processes=self._processes,
        )
        self.client: Redis = connect(self.settings, timeout=30)
        self._log = FeatureLog(Lake(self.lake), self.settings.log_epoch_us)
        self._start_flows()

    def _start_flows(self) -> None:
        """Start both flows of every source, and return when they read."""
        environment = {
            **os.environ,
            **self.settings.environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._supervisor = Supervisor(
            [
                Child(f"{source}:{flow}", (sys.executable, "-m", "streaming", source, "--flow", flow), environment)
                for source in self.registry.sources
                for flow in FLOWS
            ],
            self._folder / "logs",
        )
        figures = [keys.figures(source, flow) for source in self.registry.sources for flow in FLOWS]
        for key in figures:
            self.client.hdel(key, UPDATED)
        self._supervisor.start()
        self.store = FeatureStore(self.settings, self.registry, log=self._log)
        self._wait_for(lambda: all(self.client.hexists(key, UPDATED) for key in figures), "the stream's processes")

    def redefine(self, features: str) -> None:
        """Deploy other definitions, as a restart of the whole project does: what is served goes on being served.

        A changed service is served when it is promoted.
        """
        self._supervisor.stop()
        self.store.close()
        self._features = _located(features)
        self.registry = load(self._features)
        self.settings = msgspec.structs.replace(self.settings, features=self._features)
        self._start_flows()

    def promote(self, service: str) -> Promotion:
        """Serve a service as it is defined now: see `rtml promote`.

        Raises:
            NotReadyError: something is in the way; names all of it.
        """
        lake = Lake(self.lake)
        prove = prover(lake, self.client, self.registry)
        return promote(lake, self.client, self.registry, service, instants.now(), prove)

    def rollback(self, service: str) -> Promotion:
        """Serve a service as it was before its last promotion: see `rtml rollback`.

        Raises:
            RequestError, NotReadyError: it cannot be.
        """
        return rollback(self.client, service, instants.now(), self.settings.version_grace_us)

    @property
    def redis_url(self) -> str:
        """Where the embedded Redis listens."""
        return self._redis.url

    @property
    def redis_pid(self) -> int:
        """The embedded Redis's process, for tests that kill it; it is restarted.

        Raises:
            UnavailableError: it is dead at the moment.
        """
        pid = self._redis.pid
        if pid is None:
            raise UnavailableError("the embedded Redis is not running")
        return pid

    @property
    def lake(self) -> str:
        """The lake's root folder."""
        return self.settings.lake_root

    def send(
        self,
        source: str,
        frame: pl.DataFrame,
        *,
        ingested_at: datetime | str | None = None,
        partition: int | None = None,
    ) -> None:
        """Append events to a source's stream, in the order of their stamps.

        Args:
            source: the source's name.
            frame: one row an event, with the contract's columns.
            ingested_at: when the events arrived: an instant for all, or the name of a column. By default now, with a
                warning when that makes all of them late.
            partition: the partition for all; by default each event's key decides.

        Raises:
            UnknownNameError: there is no such source.
            SendError: the stamps are no stamps, or go back in time.
        """
        self._producer(source).send(frame, ingested_at=ingested_at, partition=partition)

    def send_bytes(
        self, source: str, payloads: Sequence[bytes], *, ingested_at: datetime | None = None, partition: int = 0
    ) -> None:
        """Append messages just as they are, right or wrong."""
        stamp = None if ingested_at is None else instants.to_instant(ingested_at)
        self._producer(source).send_bytes(payloads, ingested_at=stamp, partition=partition)

    def settle(self, timeout: str = "30s") -> None:
        """Return when both flows of every source have passed the last entry sent, refused and late ones included.

        What was served before, of services that log it, is in the lake then.

        Raises:
            UnavailableError: that took longer; names the flow, and how far behind it is.
        """
        deadline = time.monotonic() + instants.parse_duration(timeout) / 1e6
        self._log.flush()
        for source in self.registry.sources.values():
            present = self._clock()
            for flow, key in (("tiles", keys.position(source.name)), ("mirror", keys.mirrored(source.name))):
                while lag := behind(self.client, source, key, present):
                    if time.monotonic() > deadline:
                        log = self._supervisor.log(f"{source.name}:{flow}")
                        late = f"flow {flow!r} of source {source.name!r} is still {lag} after {timeout}"
                        raise UnavailableError(f"{late}; its log ends:\n{log}")
                    time.sleep(POLL_SECONDS)

    def online(
        self, service: str, entities: Sequence[Mapping[str, Any]] | pl.DataFrame, at: datetime | None = None
    ) -> pl.DataFrame:
        """Return a service's features, one row an entity in their order: the join keys, then columns `view__feature`.

        `at` is by default the stream's own present: the instant up to which all of the service's sources are servable.
        """
        return self.store.get_online_features(service, entities, at=self._at(service, at))

    def status(
        self, service: str, entities: Sequence[Mapping[str, Any]] | pl.DataFrame, at: datetime | None = None
    ) -> pl.DataFrame:
        """Return the same shape as `online`, with each value's status."""
        return self.store.statuses(service, entities, at=self._at(service, at))

    def historical(
        self,
        service: str,
        spine: pl.DataFrame | pl.LazyFrame,
        known_at: str = "serving",
        labels: Labels = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Return a training set from what is compacted: see `FeatureStore.get_historical_features`."""
        return self.store.get_historical_features(service, spine, known_at, labels, progress)

    def compact(self) -> Summary:
        """Materialise the Dagster assets of all days that events have touched, and publish what was late.

        Days outside a source's `starts` and `ends` are left out, with a warning.
        """
        # Dagster takes seconds to import, which a test that never compacts need not wait for.
        from rtml_assets.defs.materialize import materialize_days  # noqa: PLC0415

        self._log.flush()
        summary = materialize_days(self.settings, self.registry, durable=False)
        for words in summary.warnings:
            warnings.warn(words, stacklevel=2)
        return summary

    def crash(self) -> None:
        """Kill the stream's processes with SIGKILL, each at a random moment; they are restarted."""
        for name in random.sample(sorted(self._supervisor.status()), k=len(self._supervisor.status())):  # nosec B311
            time.sleep(random.uniform(0, 0.1))  # nosec B311
            self._wait_for(lambda name=name: self._supervisor.status()[name].pid is not None, f"process {name}")
            self._supervisor.crash(name)

    def _producer(self, source: str) -> Producer:
        definition = self.registry.source(source)
        key = self.registry.partition_key(source)
        return Producer(self.client, definition, key=key, accept_stamps=True)

    def _clock(self) -> instants.Instant:
        seconds, micros = self.client.time()
        return int(seconds) * 1_000_000 + int(micros)

    def _at(self, service: str, at: datetime | None) -> instants.Instant | datetime:
        if at is not None:
            return at
        watermark = self.store.watermark(service)
        return self._clock() if watermark == BEGINNING else watermark

    def _wait_for(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + instants.parse_duration(START_TIMEOUT) / 1e6
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(self._supervisor.log(name, 5) for name in self._supervisor.status())
                raise UnavailableError(f"{what} did not start within {START_TIMEOUT}; the logs end:\n{logs}")
            time.sleep(POLL_SECONDS)


def _located(features: str) -> str:
    return str(Path(features).absolute()) if features.endswith(".py") else features
