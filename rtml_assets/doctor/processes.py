"""The processes: the feature server, Dagster and its schedules, and what the supervisor keeps restarting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx

from rtml.settings import Settings
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from rtml_assets.runtime.dagster_home import LOCATION
from rtml_assets.runtime.ports import is_listening
from rtml_assets.runtime.project import SERVER
from rtml_assets.watch.look_platform import DAEMON
from rtml_assets.watch.report import DagsterLook, Platform, Process

MOST_CRASHES = 3
DAGSTER_SECONDS = 3.0
_AUTOMATION = (
    "query($of: RepositorySelector!){"
    "schedulesOrError(repositorySelector: $of){... on Schedules{results{name scheduleState{status}}}}"
    "sensorsOrError(repositorySelector: $of){... on Sensors{results{name sensorState{status}}}}}"
)
_REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}


class ProcessState(NamedTuple):
    """What was seen of the processes."""

    settings: Settings
    platform: Platform
    port_used: bool
    """Whether something listens where the feature server should."""
    stopped: list[str]
    """Schedules and sensors that somebody stopped."""


def examine(subject: Subject) -> list[Finding]:
    """Look, and judge."""
    return list(judge(look(subject)))


def look(subject: Subject) -> ProcessState:
    """Ask Dagster for what is stopped; nothing where it does not answer, which is another finding."""
    settings, platform = subject.settings, subject.second.platform
    port_used = not platform.server.up and is_listening(settings.host, settings.port)
    try:
        stopped = stopped_automation(f"http://{settings.host}:{settings.dagster_port}")
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        stopped = []
    return ProcessState(settings, platform, port_used, stopped)


def stopped_automation(url: str) -> list[str]:
    """Return the schedules and sensors that do not run, by Dagster's UI.

    Raises:
        httpx.HTTPError, ValueError, KeyError, TypeError: it does not answer, or with something else.
    """
    query = {"query": _AUTOMATION, "variables": {"of": _REPOSITORY}}
    with httpx.Client(trust_env=False, timeout=DAGSTER_SECONDS) as http:
        answer: Mapping[str, Any] = http.post(f"{url}/graphql", json=query).raise_for_status().json()["data"]
    schedules = {one["name"]: one["scheduleState"]["status"] for one in answer["schedulesOrError"].get("results", ())}
    sensors = {one["name"]: one["sensorState"]["status"] for one in answer["sensorsOrError"].get("results", ())}
    return sorted(name for name, status in (schedules | sensors).items() if status != "RUNNING")


def judge(state: ProcessState) -> Iterator[Finding]:
    """Return what does not run."""
    yield from _server(state)
    yield from _dagster(state.platform.dagster, state.platform.processes)
    for name in state.stopped:
        yield found("schedule_stopped", f"{name} is stopped", schedule=name)
    for name, process in state.platform.processes.items():
        if process.crashes >= MOST_CRASHES:
            words = f"process {name!r} died {process.crashes} times"
            yield found("process_dies", words, process=name, crashes=process.crashes, exit_code=process.exit_code)


def _server(state: ProcessState) -> Iterator[Finding]:
    server, settings = state.platform.server, state.settings
    ours = state.platform.processes.get(SERVER)
    if not server.up and ours is not None and ours.pid is not None and state.port_used:
        yield found("server_hangs", server.words, pid=ours.pid)
    elif not server.up and state.port_used:
        words = f"another program listens on port {settings.port} of {settings.host}"
        yield found("port_taken", words, port=settings.port)
    elif not server.up:
        yield found("server_away", server.words, port=settings.port)
    elif server.ready is False and state.platform.redis.up:  # without Redis no server is: that is said of Redis
        yield found("server_unready", server.words)


def _dagster(dagster: DagsterLook, processes: Mapping[str, Process]) -> Iterator[Finding]:
    if dagster.up is False:
        yield found("dagster_down", dagster.words, unhealthy=list(dagster.unhealthy))
    elif dagster.up is None and (not processes or DAEMON in processes):
        yield found("dagster_away", dagster.words or "Dagster does not run")
