"""Setting the stage: history landed, materialised and published, and everything running up to the boundary."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from rtml.errors import UnavailableError
from rtml.lake import Lake
from rtml.registry import Registry
from rtml_assets.demo.figures import StreamFigures
from rtml_assets.demo.flights import Flights, read_flights
from rtml_assets.demo.phases import Bar, Phases
from rtml_assets.demo.settings import take_database
from rtml_assets.runtime.dagster_home import prepare as prepare_home
from rtml_assets.runtime.project import Project
from rtml_assets.tables.land import land
from streaming.broker import check, connect
from streaming.producer import Producer

if TYPE_CHECKING:
    from dagster import DagsterInstance

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05


class Stage:
    """A project whose streams have come to the boundary, and the flights that are still to come.

    Args:
        project: what runs; nothing does yet.
        registry: the definitions of the flights example.
        end: flights that were ingested from then on are left out.
    """

    def __init__(self, project: Project, registry: Registry, end: datetime) -> None:
        """Take the parts; `prepare` does the work."""
        self.project, self.registry, self._end = project, registry, end
        self.flights: dict[str, Flights] = {}
        self.producers: dict[str, Producer] = {}

    def prepare(self, phases: Phases) -> None:
        """Do all that comes before the first live event."""
        with phases.phase("redis", "Redis", 1):
            self._start_redis()
        with phases.phase("land", "landing January and February 2013", 2 * len(self.registry.sources)) as bar:
            self._land(bar)
        with phases.phase("materialise", "materialising the assets, publishing up to 1 March", 1) as bar:
            self.materialise(bar)
        with phases.phase("start", "starting the flows and servers", 1) as bar:
            self._start(bar)

    def materialise(self, bar: Bar) -> None:
        """Bring the assets of all touched days up to date through Dagster, and publish them."""
        # Dagster takes seconds to import.
        from rtml_assets.defs.materialize import materialize_days  # noqa: PLC0415

        with self._instance() as instance:
            # While one core builds, another can load the UI.
            self.project.start_dagster()
            for done, source in enumerate(self.registry.sources.values()):
                views = self.registry.views_of(source.name)
                bar.at(done, len(self.registry.sources), source.name)
                materialize_days(self.project.settings, Registry.of([source, *views]), instance=instance)

    def settle(self, until: int, bar: Bar) -> None:
        """Return when all flows have taken what was ingested before an instant.

        Raises:
            UnavailableError: they did not in a minute.
        """
        self._wait_for(lambda: self.figures.passed(until), bar, "take every event")

    def _instance(self) -> DagsterInstance:
        """Return what the UI shows; without a UI nobody looks, and Dagster's SQLite takes 20 ms an event."""
        from dagster import DagsterInstance  # noqa: PLC0415

        if not self.project.has_dagster:
            return DagsterInstance.ephemeral()
        return DagsterInstance.from_config(str(prepare_home(self.project.settings.home_path)))

    def _start_redis(self) -> None:
        self.project.start_redis()
        self.client = connect(self.project.settings, timeout=30)
        check(self.client)
        take_database(self.client)
        sources = self.registry.sources
        self.figures = StreamFigures(self.client, sources.values())
        self.producers = {name: Producer(self.client, source, accept_stamps=True) for name, source in sources.items()}

    def _land(self, bar: Bar) -> None:
        lake = Lake(self.project.settings.lake_root)
        for name, source in self.registry.sources.items():
            flights = self.flights[name] = read_flights(source, self._end)
            bar.step(f"{flights.history.height:,} {name}")
            land(lake, self.client, source, flights.history, until=flights.until)
            bar.step(f"{flights.history.height:,} {name}")

    def _start(self, bar: Bar) -> None:
        self.project.start()
        servers = len(self.project.servers)
        self._wait_for(self.figures.running, bar, "start")
        bar.at(self.figures.flows, self.figures.flows + servers)
        self.project.wait_ready(on_ready=bar.step)

    def _wait_for(self, count: Callable[[], int], bar: Bar, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        total = self.figures.flows
        while (done := count()) < total:
            if time.monotonic() > deadline:
                logs = self.project.settings.home_path / "logs"
                raise UnavailableError(
                    f"waited {PATIENCE_SECONDS:g} s for the flows to {what}: {done} of {total} did; see {logs}"
                )
            bar.at(done, total)
            time.sleep(POLL_SECONDS)
        bar.at(total, total)
