"""A tiles flow in several real processes: any of them may die, be paused or asked to end, and any number go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import xxhash

from rtml.algebra.custom import CUSTOM
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.instants import HOUR, MINUTE, SECOND, Instant, now, to_instant
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.runtime.behind import behind
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.runtime.supervisor import Child, Supervisor
from rtml_assets.store import FeatureStore
from streaming.broker import connect
from streaming.heartbeats import parse_heard, send_heartbeats
from streaming.producer import Producer
from tests import oracle
from tests.oracle import Event

DEFINITIONS = str(Path(__file__).parent / "gates.py")
LATENESS = 15 * MINUTE
PATIENCE = 90.0
GATES = [f"gate {number}" for number in range(40)]
FLOW = "tiles"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of their own: a deployment is everybody's."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


class Traffic:
    """What is sent to a source, some of it twice, late or out of order; and whether that is what is served."""

    def __init__(self, settings: Settings, source: str, seed: int = 1) -> None:
        self.settings, self.rng = settings, random.Random(seed)
        self.client = connect(settings)
        self.source: EventSource = load(settings.features).source(source)
        self.producer = Producer(self.client, self.source, key=["gate"], accept_stamps=True)
        self.now = to_instant("2024-02-01T00:00:00Z")
        self.events: list[Event] = []
        self.compared = 0

    def make(self, count: int) -> list[Event]:
        made: list[Event] = []
        for _ in range(count):
            self.now += int(self.rng.expovariate(1 / self.rng.choice([200_000, 2 * SECOND])))
            if made and self.rng.random() < 0.1:
                again = self.rng.choice(made[-20:])
                made.append(Event(again.key, again.time, again.id64, self.now, again.values))
                continue
            delay = self.rng.choice([0, 3, self.rng.randrange(LATENESS), LATENESS, LATENESS + 1, -MINUTE, HOUR])
            time = (self.now - delay) // self.rng.choice([1, MINUTE]) * 1
            name = f"p{len(self.events) + len(made)}"
            fare = None if self.rng.random() < 0.1 else round(self.rng.gauss(0, 50), 3)
            values = {"id": name, "fare": fare, "paid": None if fare is None else int(fare > 0)}
            gate = GATES[int(len(GATES) * self.rng.random() ** 2)]
            made.append(Event(gate, time, xxhash.xxh64_intdigest(name.encode()), self.now, values))
        self.events += made
        return made

    def send(self, count: int) -> None:
        events = self.make(count)
        frame = pl.DataFrame(
            {
                "pass_id": [str(e.values["id"]) for e in events],
                "at": pl.Series([e.time for e in events], dtype=pl.Int64).cast(TIMESTAMP),
                "gate": [e.key for e in events],
                "fare": pl.Series([e.values["fare"] for e in events], dtype=pl.Float64),
                "stamp": pl.Series([e.ingested for e in events], dtype=pl.Int64).cast(TIMESTAMP),
            }
        )
        self.producer.send(frame, ingested_at="stamp")

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send without pause."""
        stopped = threading.Event()

        def flow() -> None:
            while not stopped.wait(0.05):
                self.send(15)

        sender = threading.Thread(target=flow)
        sender.start()
        try:
            yield
        finally:
            stopped.set()
            sender.join()

    def position(self) -> Mapping[Any, Any]:
        found: Any = self.client.hgetall(keys.position(self.source.name))
        return found

    def settle(self) -> None:
        present = now()
        until(lambda: not behind(self.client, self.source, keys.position(self.source.name), present))

    def check(self) -> None:
        """Compare every feature of every gate with the oracle."""
        self.settle()
        truth: dict[str, list[Event]] = {gate: [] for gate in GATES}
        for event in oracle.counted(self.events, LATENESS):
            truth[event.key].append(event)
        instants = (self.now + 1, self.now + HOUR, self.now - self.rng.randrange(LATENESS))
        with FeatureStore(self.settings) as store:
            services = [one for one in store.registry.services.values() if one.views[0].source.name == self.source.name]
            for service, at in product(services, instants):
                got = store.get_online_features(service.name, [{"gate": gate} for gate in GATES], at=at)
                self.compare(store.registry.plans[service.views[0].name], got, truth, at)

    def compare(self, plan: Plan, got: pl.DataFrame, truth: dict[str, list[Event]], at: Instant) -> None:
        for feature in plan.features:
            values = got[f"{plan.view}__{feature.name}"].to_list()
            for gate, value in zip(GATES, values, strict=True):
                floor = 1 if feature.exact else plan.tiles.finest
                window = oracle.window(truth[gate], gate, at, feature.window, floor)
                aggregate = "sum" if feature.aggregate == CUSTOM else feature.aggregate
                expected = oracle.value(aggregate, window, feature.column)
                self.compared += 1
                assert oracle.agree(aggregate, value, expected, window, feature.column), (
                    f"{feature.name} of {gate} at {at}: got {value}, expected {expected}"
                )


class Flow:
    """A source's tiles flow, kept running by a supervisor."""

    def __init__(self, traffic: Traffic, supervisor: Supervisor) -> None:
        self.traffic, self.supervisor = traffic, supervisor

    @property
    def processes(self) -> list[int]:
        """The pids, the leader's first; none while it is dead."""
        leader = self.supervisor.status()[FLOW].pid
        return [] if leader is None else [leader, *children(leader)]

    def moves(self) -> None:
        """Return when it has come further than it was."""
        before = self.traffic.position()
        until(lambda: self.traffic.position() != before, self.supervisor)

    def kill(self, number: int) -> None:
        """Kill one process in the middle of its work; the others are ended, and all are started anew."""
        self.moves()
        time.sleep(self.traffic.rng.uniform(0, 0.3))
        before = self.processes
        os.kill(before[number], signal.SIGKILL)
        until(lambda: self.processes[:1] not in ([], before[:1]), self.supervisor)
        until(lambda: not any(is_alive(pid) for pid in before), self.supervisor)


@contextmanager
def running(traffic: Traffic, home: Path, processes: int, **environment: str) -> Iterator[Flow]:
    """Run a flow in so many processes; all of them end with the block."""
    child = Child(FLOW, argv(traffic), env(traffic, home, processes) | environment)
    with Supervisor([child], home / "logs") as supervisor:
        flow = Flow(traffic, supervisor)
        yield flow
        until(lambda: len(flow.processes) == processes, supervisor)
        alive = flow.processes
    until(lambda: not any(is_alive(pid) for pid in alive))


def argv(traffic: Traffic) -> tuple[str, ...]:
    return (sys.executable, "-m", "streaming", traffic.source.name, "--flow", "tiles")


def env(traffic: Traffic, home: Path, processes: int) -> dict[str, str]:
    settings = msgspec.structs.replace(traffic.settings, home=str(home), stream_processes=processes)
    return {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], supervisor: Supervisor | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        said = supervisor.log(FLOW) if supervisor else ""
        assert time.monotonic() < deadline, f"it did not come to it within {PATIENCE} s; the flow says:\n{said}"
        time.sleep(0.01)


def settings_of(redis_url: str, home: Path) -> Settings:
    return Settings(DEFINITIONS, str(home), redis_url, accept_stamps=True, tile_epoch="200ms")


def test_any_process_may_die_and_any_number_go_on(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(settings_of(redis_url, tmp_path), "busy")
    with running(traffic, tmp_path, 2) as flow:
        with traffic.flowing():
            flow.kill(1)
            flow.moves()
        traffic.check()
    monkeypatch.setenv("GATES_MORE", "1")  # a new view: all that there ever was is read again
    with running(traffic, tmp_path, 3, GATES_MORE="1") as flow:
        with traffic.flowing():
            flow.kill(0)
            flow.moves()
        traffic.check()
        figures_add_up(traffic)
        heartbeats_come_through(traffic)


def figures_add_up(traffic: Traffic) -> None:
    """Counts are those of all processes, and freshness is of what all of them have written."""
    key = keys.figures(traffic.source.name, "tiles")
    before = int(traffic.client.hgetall(key)[b"accepted"])
    traffic.send(500)
    until(lambda: int(traffic.client.hgetall(key)[b"accepted"]) >= before + 500)
    until(lambda: msgspec.json.decode(traffic.client.hgetall(key)[b"minute"])["accepted"] >= 500)
    shown = traffic.client.hgetall(key)
    assert 0 < float(shown[b"freshness_p50_ms"]) <= float(shown[b"freshness_p99_ms"])
    assert len(GATES) < float(shown[b"cached_entities"]) <= 2 * len(GATES)  # of two views, and of all processes
    assert {"gate", "route", "write"} <= msgspec.json.decode(shown[b"stages"]).keys()


def heartbeats_come_through(traffic: Traffic) -> None:
    sent = send_heartbeats(traffic.client, [traffic.source])[traffic.source.name]
    assert len(sent) == traffic.source.stream.partitions
    key = keys.heartbeat(traffic.source.name, "tiles")

    def heard() -> dict[int, str]:
        stored: Any = traffic.client.hgetall(key)
        return {number: one.offset for number, one in parse_heard(stored).items()}

    until(lambda: heard() == sent)


def test_a_paused_group_beside_its_successor(redis_url: str, tmp_path: Path) -> None:
    """One partition: all but one process write alone. What wakes too late is refused, and takes its group with it."""
    traffic = Traffic(settings_of(redis_url, tmp_path), "quiet", seed=2)
    log = tmp_path / "old.log"
    with log.open("wb") as said:
        old = subprocess.Popen(
            argv(traffic), env=env(traffic, tmp_path / "old", 2), stderr=said, start_new_session=True
        )
    try:
        traffic.send(500)
        traffic.check()
        members = [old.pid, *children(old.pid)]
        os.killpg(old.pid, signal.SIGSTOP)
        traffic.send(100)
        with running(traffic, tmp_path / "new", 2) as flow:
            traffic.check()
            os.killpg(old.pid, signal.SIGCONT)
            traffic.send(400)
            assert old.wait(PATIENCE) == 75, log.read_text()
            until(lambda: not any(is_alive(pid) for pid in members))
            traffic.check()
            a_deployment_starts_all_anew(flow)
            traffic.send(100)
            traffic.check()
    finally:
        if old.poll() is None:
            os.killpg(old.pid, signal.SIGKILL)
            old.wait()


def a_deployment_starts_all_anew(flow: Flow) -> None:
    """It is no crash."""
    before = flow.processes
    flow.traffic.client.incr(keys.DEPLOYED)
    until(lambda: bool(flow.processes) and flow.processes[0] != before[0], flow.supervisor)
    status = flow.supervisor.status()[FLOW]
    assert (status.exit_code, status.restarts, status.crashes) == (75, 1, 0)
