"""What all sources and services share: the lake, the disks, Dagster's daemon, and the supervisor's processes."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import httpx
import polars as pl

from rtml.instants import MINUTE, Instant
from rtml.settings import Settings
from rtml_assets.runtime.processes import read_processes
from rtml_assets.runtime.supervisor import Status
from rtml_assets.watch.report import DagsterLook, Disk, LakeLook, Process

PROBE = ".rtml-probe"
DAEMON, UI = "dagster-daemon", "dagster-ui"
DAEMON_SECONDS = 120.0
"""How old a daemon's heartbeat may be: they come every 30 seconds, and late where it loads all definitions first."""
DAGSTER_TIMEOUT = 5.0
LATELY = 2 * MINUTE
"""So long ago is lately, for crashes."""

_HEALTH = "{instance{daemonHealth{allDaemonStatuses{daemonType required lastHeartbeatTime}}}}"


def look_at_lake(root: str, now: Instant) -> LakeLook:
    """Write a tiny file to the lake, as Delta would, to see whether it can be written to."""
    try:
        if "://" in root:
            pl.DataFrame({"probed_at": [now]}).write_parquet(f"{root.rstrip('/')}/{PROBE}.parquet")
        else:
            _write(Path(root) / PROBE, str(now))
    # Object stores raise what they like; whatever it is, the lake is not writable.
    except Exception as error:  # noqa: BLE001
        return LakeLook(writable=False, words=f"the lake at {root} cannot be written: {error}", probed_at=now)
    return LakeLook(writable=True, probed_at=now)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    file.unlink()


def look_at_disks(settings: Settings) -> dict[str, Disk]:
    """Return the disks of the home and, where that is a folder, the lake."""
    places = {"home": str(settings.home_path)}
    if "://" not in settings.lake_root:
        places["lake"] = settings.lake_root
    return {name: _disk(path) for name, path in places.items()}


def _disk(path: str) -> Disk:
    there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    try:
        usage = shutil.disk_usage(there)
    except OSError as error:
        return Disk(path, words=f"{path}: {error.strerror}")
    return Disk(path, usage.free, usage.total)


def look_at_dagster(http: httpx.Client, url: str, now: Instant) -> DagsterLook:
    """Ask Dagster's UI when its daemons were last heard of."""
    try:
        answer = http.post(f"{url}/graphql", json={"query": _HEALTH}, timeout=DAGSTER_TIMEOUT)
        answer.raise_for_status()
        statuses = answer.json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return DagsterLook(words=f"Dagster's UI does not answer at {url}: {error!r:.200}")
    required = {status["daemonType"]: status["lastHeartbeatTime"] for status in statuses if status["required"]}
    if not any(required.values()):
        return DagsterLook(words="no daemon was ever heard of")
    silent = sorted(name for name, at in required.items() if at and now / 1e6 - at > DAEMON_SECONDS)
    if silent:
        words = f"Dagster's daemon was not heard of for {DAEMON_SECONDS:g} s: {', '.join(silent)}"
        return DagsterLook(up=False, words=words, unhealthy=silent)
    return DagsterLook(up=True)


class ProcessLook:
    """The supervisor's processes, and which of them died lately."""

    def __init__(self, home: Path) -> None:
        """Look at a project's home; deaths before the first look are not counted."""
        self._home = home
        self._crashes: dict[str, int] = {}
        self._seen: dict[str, deque[Instant]] = {}

    def look(self, now: Instant) -> dict[str, Process]:
        """Return how they are; nothing where no project runs."""
        return {name: self._process(name, status, now) for name, status in read_processes(self._home).items()}

    def _process(self, name: str, status: Status, now: Instant) -> Process:
        more = status.crashes - self._crashes.get(name, status.crashes)
        self._crashes[name] = status.crashes
        seen = self._seen.setdefault(name, deque(maxlen=100))
        seen.extend([now] * max(0, more))
        while seen and seen[0] < now - LATELY:
            seen.popleft()
        return Process(status.pid, status.restarts, status.crashes, len(seen), status.exit_code)


def with_processes(dagster: DagsterLook, processes: Mapping[str, Process]) -> DagsterLook:
    """Return a look at Dagster that knows of its processes: none are no fault, a dead daemon is one."""
    if processes and DAEMON not in processes:
        return DagsterLook()
    daemon = processes.get(DAEMON)
    if daemon is not None and daemon.pid is None and daemon.restarts:
        return DagsterLook(up=False, words=f"Dagster's daemon is dead (exit code {daemon.exit_code})")
    return dagster
