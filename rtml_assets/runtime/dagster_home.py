"""Dagster's own folder and processes: one code server, the UI and the daemon, all of one project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rtml.errors import UnavailableError
from rtml_assets.runtime.ports import is_listening
from rtml_assets.runtime.supervisor import Child

DEFINITIONS, LOCATION = "rtml_assets.definitions", "rtml"
LOCAL = "127.0.0.1"
CODE_SERVER = "dagster-code"

# Without these two, the first page is a question, and Dagster calls home.
_INSTANCE = """\
telemetry: {enabled: false}
nux: {enabled: false}
"""
_WORKSPACE = """\
load_from:
  - grpc_server: {{host: {host}, port: {port}, location_name: {location}}}
"""


def prepare(home: Path) -> Path:
    """Return a project's `DAGSTER_HOME`, made with its `dagster.yaml` when it is not there."""
    folder = home.absolute() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dagster.yaml"
    if not file.exists():
        file.write_text(_INSTANCE)
    return folder


def create_storage(env: Mapping[str, str]) -> None:
    """Make the databases in `DAGSTER_HOME`, which several processes at once would spoil for each other.

    Raises:
        UnavailableError: Dagster did not; with what it said.
    """
    statement = "from dagster import DagsterInstance; DagsterInstance.get()"
    made = subprocess.run([sys.executable, "-c", statement], env=dict(env), capture_output=True, text=True, check=False)
    if made.returncode:
        raise UnavailableError(f"Dagster could not make its storage:\n{made.stderr.strip()[-2000:]}")


def is_created(folder: Path) -> bool:
    """Say whether the databases have been made."""
    return (folder / "schedules" / "schedules.db").exists()


def dagster_children(
    folder: Path, env: Mapping[str, str], host: str, port: int, code_port: int, log_format: str = "text"
) -> list[Child]:
    """Return what serves a project's assets: the code server, the UI on `host:port`, and the daemon."""
    workspace = folder / "workspace.yaml"
    workspace.write_text(_WORKSPACE.format(host=LOCAL, port=code_port, location=LOCATION))
    code = ("code-server", "start", "-h", LOCAL, "-p", str(code_port), "-m", DEFINITIONS)
    listen = ("-h", host, "-p", str(port))
    workspace_option = ("-w", str(workspace))
    lines = ("--log-format", "json" if log_format == "json" else "colored")
    quiet = (*lines, "--log-level", "warning")
    code_serves = partial(is_listening, LOCAL, code_port)
    # Told to end rather than killed, they end their own children too.
    child = partial(Child, env=env, on_our_death=signal.SIGTERM)
    return [
        child(CODE_SERVER, (_program("dagster"), *code, "--location-name", LOCATION, *quiet)),
        child(
            "dagster-ui",
            (_program("dagster-webserver"), *listen, *workspace_option, *lines, "--suppress-warnings"),
            after=code_serves,
        ),
        child("dagster-daemon", (_program("dagster-daemon"), "run", *workspace_option, *quiet), after=code_serves),
    ]


def _program(name: str) -> str:
    """Return a script of this environment, which need not be on the path."""
    return os.path.join(os.path.dirname(sys.executable), name)
