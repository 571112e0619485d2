"""One look at the whole platform, again and again: `Observer.look` → `Report`. It never raises, and never waits long.

A dead Redis or server costs a look about a second at most; what may hang (a lake on a network, Dagster's UI) is looked
at in the background. What could not be seen is `None` in the report, with words.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import httpx
import msgspec
import redis

from rtml import instants
from rtml.define.sla import agreed
from rtml.instants import BEGINNING, Instant
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.project import SERVER
from rtml_assets.watch.agreements import agreements
from rtml_assets.watch.background import Background
from rtml_assets.watch.heartbeat import Heartbeats
from rtml_assets.watch.look_platform import ProcessLook, look_at_dagster, look_at_disks, look_at_lake, with_processes
from rtml_assets.watch.look_redis import StreamSeen, ViewSeen, look_at_redis, look_at_source, look_at_views
from rtml_assets.watch.look_server import Seen, ServerEyes
from rtml_assets.watch.objectives import objectives
from rtml_assets.watch.report import (
    DagsterLook,
    Disk,
    LakeLook,
    Platform,
    RedisLook,
    Report,
    ServerLook,
    Service,
    View,
)
from rtml_assets.watch.source_state import SourceState
from serving.redis_io import connect_reader

REDIS_TIMEOUT = 0.4
LAKE_EVERY, LAKE_PATIENCE = 15.0, 10.0
DAGSTER_EVERY, DAGSTER_PATIENCE = 5.0, 15.0
DISKS_EVERY, DISKS_PATIENCE = 5.0, 10.0
NO_SERVER = ServerLook(up=None, words="the project runs without a feature server")


class _Streams(NamedTuple):
    """What Redis showed of all sources and views."""

    sources: dict[str, StreamSeen]
    views: dict[str, ViewSeen]
    words: str = ""


class Observer:
    """Looks at a running platform.

    Args:
        settings: where everything is.
        registry: what is defined.
        now: the wall clock.
    """

    def __init__(self, settings: Settings, registry: Registry, now: Callable[[], Instant] = instants.now) -> None:
        """Take where everything is; nothing is connected yet."""
        self.registry, self._settings, self._now = registry, settings, now
        self._agreed = agreements(registry)
        self._client = connect_reader(settings, REDIS_TIMEOUT)
        self._eyes = ServerEyes(settings, registry, now)
        self._heartbeats = Heartbeats(registry.sources.values())
        self._states = {
            name: SourceState(agreed("source", source.sla), settings) for name, source in registry.sources.items()
        }
        self._processes = ProcessLook(settings.home_path)
        self._http = httpx.Client(trust_env=False)
        url = f"http://{settings.host}:{settings.dagster_port}"
        self._lake = Background(
            lambda: look_at_lake(settings.lake_root, now()),
            LakeLook(words="not probed yet"),
            lambda seconds: LakeLook(writable=False, words=f"the lake did not take a tiny file for {seconds:.0f} s"),
            every=LAKE_EVERY,
            patience=LAKE_PATIENCE,
        )
        self._dagster = Background(
            lambda: look_at_dagster(self._http, url, now()),
            DagsterLook(words="not asked yet"),
            lambda seconds: DagsterLook(words=f"Dagster's UI has not answered for {seconds:.0f} s"),
            every=DAGSTER_EVERY,
            patience=DAGSTER_PATIENCE,
        )
        self._disks = Background(
            lambda: look_at_disks(settings),
            dict[str, Disk](),
            lambda seconds: {"home": Disk(settings.home, words=f"the disks have not answered for {seconds:.0f} s")},
            every=DISKS_EVERY,
            patience=DISKS_PATIENCE,
        )

    def __enter__(self) -> Observer:
        """Return the observer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._eyes.close()
        self._http.close()
        self._client.close()

    def look(self) -> Report:
        """Return how the platform is now."""
        at, started = self._now(), time.perf_counter()
        redis_look = look_at_redis(self._client, self._now)
        words = self._send() if redis_look.up else redis_look.words
        processes = self._processes.look(at)
        seen = self._eyes.look() if SERVER in processes or not processes else Seen(NO_SERVER, {}, {}, {})
        platform = Platform(
            redis=redis_look,
            server=seen.server,
            dagster=with_processes(self._dagster.latest(wait=0.1), processes),
            lake=self._lake.latest(wait=0.1),
            disks=self._disks.latest(wait=0.1),
            processes=processes,
        )
        clock = at + round(1_000 * (redis_look.clock_offset_ms or 0.0))
        streams = self._streams(clock) if redis_look.up else _Streams({}, {}, redis_look.words)
        words = words or streams.words
        sources = {
            name: state.of(
                streams.sources.get(name),
                self._heartbeats.beats(name, self._redis_clock(redis_look)),
                seen.heartbeats.get(name),
                self._redis_clock(redis_look),
                words,
            )
            for name, state in self._states.items()
        }
        views = {name: self._view(name, streams, seen, self._redis_clock(redis_look)) for name in self.registry.views}
        services = {name: self._service(name, service, views) for name, service in seen.services.items()}
        took = round(1_000 * (time.perf_counter() - started), 3)
        report = Report(at, took, platform, sources, views, services)
        return msgspec.structs.replace(report, objectives=objectives(report, self._agreed))

    def _redis_clock(self, look: RedisLook) -> Instant:
        return self._now() + round(1_000 * (look.clock_offset_ms or 0.0))

    def _send(self) -> str:
        """Send heartbeats; return why Redis did not take them, if it did not."""
        try:
            self._heartbeats.send(self._client)
        except redis.RedisError as error:
            return f"Redis does not take heartbeats: {error}"
        return ""

    def _streams(self, clock: Instant) -> _Streams:
        try:
            self._heartbeats.wait(self._client)
            sources = {
                name: look_at_source(self._client, source, clock) for name, source in self.registry.sources.items()
            }
            fingerprints = {name: plan.fingerprint for name, plan in self.registry.plans.items()}
            return _Streams(sources, look_at_views(self._client, self.registry.views, fingerprints))
        except redis.RedisError as error:
            return _Streams({}, {}, f"Redis does not answer: {error}")

    def _view(self, name: str, streams: _Streams, seen: Seen, clock: Instant) -> View:
        source = self.registry.views[name].source.name
        found, version = streams.sources.get(source), streams.views.get(name)
        if found is None or version is None:
            return View(source, words=streams.words)
        watermark = None if found.watermark == BEGINNING else found.watermark
        age, words = self._age(found, clock)
        if version.version is None:
            age, words = None, "no version of it is served yet"
        nulls = seen.nulls.get(name, {})
        return View(source, version.version, version.state, watermark, age, nulls, words)

    def _age(self, found: StreamSeen, clock: Instant) -> tuple[float | None, str]:
        """Return how long ago, beyond an epoch, a source was servable to its end, in ms.

        On replay time the watermark is of another year: there the oldest entry that is not servable tells.
        """
        if found.watermark == BEGINNING:
            return None, "a partition was never written to"
        epoch = self._settings.tile_epoch_us / 1_000
        age = found.flows["tiles"].worst("lag_ms") if found.replayed else (clock - found.watermark) / 1_000
        return (None, "") if age is None else (round(max(0.0, age - epoch), 3), "")

    def _service(self, name: str, service: Service, views: dict[str, View]) -> Service:
        ages = [views[view.name].age_ms for view in self.registry.services[name].views]
        known = [age for age in ages if age is not None]
        if len(known) < len(ages) or not known:
            return service
        return msgspec.structs.replace(service, age_ms=max(known))
