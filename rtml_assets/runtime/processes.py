"""`<home>/processes.json`: how the processes of a running project are, for whoever watches it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rtml_assets.runtime.supervisor import Status

FILE = "processes.json"


class Processes(msgspec.Struct, frozen=True):
    """All processes by name, and the pid of the supervisor that keeps them running."""

    supervisor: int
    processes: dict[str, Status]


def write_processes(home: Path, statuses: Mapping[str, Status]) -> None:
    """Write how they are, so that a reader sees the whole of it or what was there before."""
    home.mkdir(parents=True, exist_ok=True)
    written = home / f".{FILE}.{os.getpid()}"
    written.write_bytes(msgspec.json.encode(Processes(os.getpid(), dict(statuses))))
    written.replace(home / FILE)


def read_processes(home: Path) -> dict[str, Status]:
    """Return how they are; nothing where no project runs."""
    try:
        found = msgspec.json.decode((home / FILE).read_bytes(), type=Processes)
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return found.processes if _is_alive(found.supervisor) else {}


def forget_processes(home: Path) -> None:
    """Say that no project runs any more."""
    (home / FILE).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
