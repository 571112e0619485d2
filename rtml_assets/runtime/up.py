"""Running processes in the foreground until Ctrl-C, and saying what becomes of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.documented import is_given
from rtml_assets.runtime.project import Project, python
from rtml_assets.runtime.supervisor import Child, Status, Supervisor

LOOK_SECONDS = 0.5


def run_up(
    console: Console, settings: Settings, registry: Registry, *, server: bool, dagster: bool, watched: bool = True
) -> int:
    """Run a project until it is told to stop; return the exit code."""
    embedded = not is_given("redis_url", settings)
    parts = {"server": server, "dagster": dagster, "watch": watched}
    project = Project(settings, list(registry.sources), embedded=embedded, **parts)
    with until_told(), project:
        with console.status("starting"):
            project.start_redis()
            project.start()
            project.wait_ready(on_ready=lambda name: console.print(f"[green]✓[/] {name}"))
        console.print(_addresses(project, server=server, dagster=dagster), soft_wrap=True)
        watch(console, project.status)
    console.print("stopped")
    return 0


def run_flows(console: Console, settings: Settings, source: str, flows: Sequence[str]) -> int:
    """Run flows of a source until told to stop; return the exit code."""
    env = {**os.environ, **settings.environment()}
    children = [Child(f"stream:{source}:{flow}", python("streaming", source, "--flow", flow), env) for flow in flows]
    logs = settings.home_path / "logs"
    with until_told(), Supervisor(children, logs) as supervisor:
        console.print(f"{' and '.join(flows)} of {source} run, with logs in {logs}; Ctrl-C stops", soft_wrap=True)
        watch(console, supervisor.status)
    return 0


def watch(console: Console, status: Callable[[], Mapping[str, Status]]) -> None:
    """Say which processes die and are started again; ends by an exception only."""
    known: dict[str, int] = {}
    while True:
        for name, now in status().items():
            if now.restarts > known.get(name, 0):
                console.print(f"[yellow]{name} ended with {now.exit_code} and was started again[/]")
            known[name] = now.restarts
        time.sleep(LOOK_SECONDS)


@contextmanager
def until_told() -> Iterator[None]:
    """Run the block until it ends or the first Ctrl-C or SIGTERM; further ones do not disturb the cleaning up."""

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        for name in previous:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {name: signal.signal(name, leave) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _addresses(project: Project, *, server: bool, dagster: bool) -> str:
    lines = [f"Redis     {project.settings.redis_shown}"]
    if server:
        lines.append(f"features  {project.server_url}")
    if dagster:
        lines.append(f"Dagster   {project.dagster_url}")
    lines.append(f"logs      {project.settings.home_path / 'logs'}; Ctrl-C stops all")
    return "\n".join(lines)
