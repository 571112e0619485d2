"""`rtml demo --once`: one day through the stream, and then everything is checked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from rich.console import Console
from rich.table import Table

from rtml.columns import TIMESTAMP
from rtml.instants import Instant, to_datetime, to_instant
from rtml.lake import Lake
from rtml_assets.demo.check import SAMPLE, Checked, Mismatch, check, check_training, sample_entities
from rtml_assets.demo.phases import Bar, Phases
from rtml_assets.demo.stage import Stage
from rtml_assets.runtime.replay import replay
from rtml_assets.store import FeatureStore
from rtml_assets.tables.canary import Canary, canary

SERVICE = "eta"
SPEED = 14_400.0
SHOWN = 5
PATIENCE_SECONDS = 30.0
CANARY_COUNTS = ("compared", "equal", "differing", "missing", "unsettled")
RESULT_FILE = "demo.json"


@dataclass(frozen=True)
class Outcome:
    """What one day of flights has shown."""

    events: int
    """Events that went through the stream."""
    late: int
    lost: int
    """Events that are not in `events/`."""
    checked: Checked
    trained: list[Mismatch]
    """Served values that are not those of a training set."""
    canary: Canary
    freshness_ms: dict[str, float]
    phases: dict[str, float]
    problems: list[str]

    def tell(self, console: Console, folder: Path) -> int:
        """Print a summary, write it to a file, and return the exit code."""
        (folder / RESULT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self._figures())) + b"\n")
        console.print(self._table(folder))
        for found in [*self.checked.mismatches, *self.trained][:SHOWN]:
            console.print(f"[red]{found.feature} of {found.entity}: served {found.served}, not {found.expected}")
        for problem in self.problems:
            console.print(f"[bold red]{problem}")
        return 1 if self.problems else 0

    def _figures(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "late": self.late,
            "lost": self.lost,
            "served": self.checked.vectors,
            "values": self.checked.values,
            "mismatches": len(self.checked.mismatches),
            "training_mismatches": len(self.trained),
            "canary": {name: self._logged(name) for name in CANARY_COUNTS},
            "freshness_ms": self.freshness_ms,
            "phases": self.phases,
            "problems": self.problems,
        }

    def _logged(self, count: str) -> int:
        return self.canary.parity.total(count)

    def _table(self, folder: Path) -> Table:
        checked, fresh = self.checked, self.freshness_ms
        table = Table.grid(padding=(0, 2))
        rows = {
            "events": f"{self.events:,} through the stream, {self.late:,} of them late, {self.lost} lost",
            "served": f"{checked.vectors} vectors of {SERVICE!r} at {checked.at}: {checked.values:,} values, "
            f"{checked.telling:,} of them neither null nor 0",
            "mismatches": f"{len(checked.mismatches)} against a recompute by filter and aggregate, "
            f"{len(self.trained)} against a training set at the same instant",
            "canary": f"{self._logged('equal'):,} of {self._logged('compared'):,} logged values are what the lake says",
            "freshness": f"p50 {fresh['p50']:.1f} ms, p99 {fresh['p99']:.1f} ms, from the stream to servable",
            "seconds": ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.phases.items())
            + f": {sum(self.phases.values()):.1f} in all",
            "written to": str(folder / RESULT_FILE),
        }
        for name, text in rows.items():
            table.add_row(f"[dim]{name}", text)
        return table


def check_one_day(stage: Stage, phases: Phases, speed: float | None) -> Outcome:
    """Replay the flights that are still to come, settle, compact, and compare what is served with what happened.

    Raises:
        RtmlError: something did not even answer.
    """
    with phases.phase("replay", "replaying 1 March through the stream", 1) as bar:
        until = _replay(stage, speed or SPEED, bar)
        stage.settle(until, bar)
    freshness = stage.figures.freshness()
    with phases.phase("compact", "compacting, and publishing what was late", 1) as bar:
        stage.materialise(bar)
    with phases.phase("check", f"checking {SAMPLE} served vectors against the lake", 1):
        events = _events(stage)
        checked = _check(stage, events)
        trained = _trained(stage, checked)
        logged = _canary(stage, checked)
        lost = _lost(stage, events)
    sent = sum(flights.coming.height for flights in stage.flights.values())
    late = sum(int(figures.get("late", 0)) for (_, flow), figures in stage.figures.read().items() if flow == "tiles")
    problems = [*_problems(stage, checked, lost, sent), *_offline_problems(checked, trained, logged)]
    return Outcome(sent, late, lost, checked, trained, logged, freshness, dict(phases.seconds), problems)


def _replay(stage: Stage, speed: float, bar: Bar) -> Instant:
    frames = {name: flights.coming for name, flights in stage.flights.items()}
    total = sum(frame.height for frame in frames.values())
    until = 0
    for sent in replay(frames, stage.producers, speed):
        until = sent.until
        bar.at(sum(sent.counts.values()), total)
    return until


def _events(stage: Stage) -> dict[str, pl.LazyFrame]:
    lake = Lake(stage.project.settings.lake_root)
    return {name: pl.scan_delta(lake.events(name)) for name in stage.registry.sources}


def _check(stage: Stage, events: dict[str, pl.LazyFrame]) -> Checked:
    service = stage.registry.services[SERVICE]
    keys = list(dict.fromkeys(key for view in service.views for key in view.key_types))
    entities = sample_entities(events["departures"], keys)
    settings = stage.project.settings
    return check(settings.host, settings.port, service, events, entities)


def _trained(stage: Stage, checked: Checked) -> list[Mismatch]:
    """Compare what was served with a training set of the same rows."""
    service = stage.registry.services[SERVICE]
    keys = list(dict.fromkeys(key for view in service.views for key in view.key_types))
    at = pl.lit(to_datetime(to_instant(checked.at)), dtype=TIMESTAMP).alias("timestamp")
    with FeatureStore(stage.project.settings, stage.registry) as store:
        trained = store.get_historical_features(SERVICE, checked.answer.select(keys).with_columns(at))
    return check_training(service, checked.answer, trained)


def _canary(stage: Stage, checked: Checked) -> Canary:
    """Wait until the server has logged what it served, and recompute that."""
    lake, registry = Lake(stage.project.settings.lake_root), stage.registry
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = canary(lake, stage.client, registry.services[SERVICE], registry.plans)
        if found.vectors >= checked.vectors or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _offline_problems(checked: Checked, trained: list[Mismatch], logged: Canary) -> Iterator[str]:
    if trained:
        yield f"{len(trained)} of {checked.values:,} served values are not those of a training set"
    if not logged.parity.agrees:
        yield f"the canary: {logged.parity}"
    if logged.vectors < checked.vectors:
        yield f"only {logged.vectors} of {checked.vectors} served vectors were logged and could be recomputed"


def _lost(stage: Stage, events: dict[str, pl.LazyFrame]) -> int:
    """Return how many events are not in the lake, or there more than once."""
    lost = 0
    for name, flights in stage.flights.items():
        happened = pl.concat([flights.history, flights.coming]).select("event_id")
        kept = events[name].select("event_id").collect()
        lost += happened.join(kept, on="event_id", how="anti").height + kept.height - kept.n_unique()
    return lost


def _problems(stage: Stage, checked: Checked, lost: int, sent: int) -> Iterator[str]:
    if checked.mismatches:
        yield f"{len(checked.mismatches)} of {checked.values:,} served values are not what events/ says"
    if checked.vectors < SAMPLE:
        yield f"only {checked.vectors} vectors were served; expected {SAMPLE}"
    if not checked.telling:
        yield "every served value is null or 0: nothing was checked"
    if damaged := checked.statuses.get("damaged"):
        yield f"{damaged} rows have the status 'damaged'"
    if lost:
        yield f"{lost} events are missing from events/, or there twice"
    for flow in ("tiles", "mirror"):
        figures = [found for (_, name), found in stage.figures.read().items() if name == flow]
        accepted = sum(int(found.get("accepted", 0)) for found in figures)
        refused = sum(int(found.get("refused", 0)) for found in figures)
        if accepted < sent or refused:
            yield f"flow {flow!r} accepted {accepted:,} and refused {refused:,} of {sent:,} events"
