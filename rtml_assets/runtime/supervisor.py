"""Keeps child processes running: starts them, restarts those that die, stops them all."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rtml.errors import UnavailableError, UnknownNameError
from rtml_assets.runtime import children

POLL_SECONDS = 0.05
FAILED_SECONDS = 1.0
"""So long the supervisor waits after it could not do what was due."""
ASKED_FOR = (0, 75)
"""Exit codes of a child that is done, or wants to be started anew (`EX_TEMPFAIL`)."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
RESTART_PATIENCE = 5.0
"""A child that is restarted on request has so many seconds to end by itself: one that is stuck does not."""
HEALTHY_AFTER = 30.0
"""A child that lived so many seconds is restarted as if it had never died."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Child:
    """A program to keep running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    on_our_death: signal.Signals = signal.SIGKILL
    """What it gets if we die without stopping it; SIGTERM for one that must end children of its own."""
    after: Callable[[], bool] = lambda: True
    """It is not started before this says yes."""


@dataclass(frozen=True)
class Status:
    """How a child is."""

    pid: int | None
    """`None` while it is dead."""
    restarts: int
    exit_code: int | None
    """That of its last death."""
    crashes: int = 0
    """Deaths that neither we nor the child asked for."""


class Spawn(Protocol):
    """Starts a program; `children.spawn` but in tests."""

    def __call__(
        self, argv: tuple[str, ...], *, env: Mapping[str, str], log: Path, on_our_death: signal.Signals
    ) -> subprocess.Popen[bytes]:
        """Start it."""
        ...


class Supervisor:
    """Runs children until `stop`; each one's output goes to `<logs>/<name>.log`.

    Args:
        children: what to run, with different names.
        logs: folder of the log files.
        requests: folder where other processes ask for restarts: see `request_restart`.
        patience: seconds that a child has to end by itself when a restart is asked for.
        clock: seconds that never go back.
        on_change: hears of it when a child was started or died.
    """

    def __init__(
        self,
        children: Iterable[Child],
        logs: Path,
        *,
        requests: Path | None = None,
        patience: float = RESTART_PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = children.spawn,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the children; none is started yet."""
        self._on_change, self._told = on_change, dict[str, Status]()
        self._logs, self._requests, self._patience, self._spawn = logs, requests, patience, spawn
        self._kept: dict[str, _Kept] = {}
        self._keep(children)
        self._clock = clock
        self._lock, self._telling = threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Supervisor:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start all children, and watch them from now on."""
        self._stopped.clear()
        if self._requests is not None:
            # Those of an earlier run: what they were about is gone.
            shutil.rmtree(self._requests, ignore_errors=True)
        self.tick()
        self._thread = threading.Thread(target=self._watch, name="rtml-supervisor", daemon=True)
        self._thread.start()

    def add(self, children: Iterable[Child]) -> None:
        """Run these, too, from now on."""
        with self._lock:
            self._keep(children)
        self.tick()

    def tick(self) -> None:
        """Look once: start what should run and is due."""
        with self._lock:
            for name, kept in self._kept.items():
                if self._requests is not None and _take_request(self._requests, name):
                    kept.restart(self._clock(), self._patience)
                kept.tick(self._clock())
        # One at a time: this is called by whoever adds children, too.
        with self._telling:
            status = self.status()
            if status != self._told:
                self._on_change()
                self._told = status

    def stop(self, timeout: float = 10) -> None:
        """End all children: SIGTERM, then SIGKILL for those alive after `timeout` seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            for kept in self._kept.values():
                kept.terminate()
            deadline = time.monotonic() + timeout
            while any(kept.alive for kept in self._kept.values()) and time.monotonic() < deadline:
                time.sleep(0.02)
            for kept in self._kept.values():
                kept.kill()

    def status(self) -> dict[str, Status]:
        """Return how each child is."""
        with self._lock:
            return {name: kept.status for name, kept in self._kept.items()}

    def crash(self, name: str) -> None:
        """End a child with SIGKILL, as a failing machine would; it is restarted like any that dies.

        Raises:
            UnknownNameError: there is no such child.
            UnavailableError: it is dead already.
        """
        if name not in self._kept:
            raise UnknownNameError.of("process", name, self._kept)
        with self._lock:
            self._kept[name].crash()

    def restart(self, name: str) -> None:
        """End a child with SIGTERM, and start it again; one that is dead is started anyway.

        Raises:
            UnknownNameError: there is no such child.
        """
        if name not in self._kept:
            raise UnknownNameError.of("process", name, self._kept)
        with self._lock:
            self._kept[name].restart(self._clock())

    def log(self, name: str, lines: int = 20) -> str:
        """Return the last lines that a child wrote."""
        file = self._kept[name].log
        text = file.read_text(errors="replace") if file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _keep(self, children: Iterable[Child]) -> None:
        for child in children:
            self._kept[child.name] = _Kept(child, log_file(self._logs, child.name), self._spawn)

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.tick()
            except OSError:
                # As on a full disk: the children go on being kept, and what failed is done again.
                logger.exception("the supervisor could not do all that was due")
                self._stopped.wait(FAILED_SECONDS)


def log_file(logs: Path, name: str) -> Path:
    """Return where a child's output goes; a colon is no character for a file's name everywhere."""
    return logs / f"{name.replace(':', '-')}.log"


def restart_requests(home: Path) -> Path:
    """Return the folder where restarts are asked for."""
    return home / "watch" / "restart"


def request_restart(requests: Path, name: str) -> None:
    """Ask whoever runs a child to restart it: with SIGTERM, and SIGKILL if that does not end it soon."""
    requests.mkdir(parents=True, exist_ok=True)
    _request_file(requests, name).touch()


def _request_file(requests: Path, name: str) -> Path:
    return requests / log_file(requests, name).stem


def _take_request(requests: Path, name: str) -> bool:
    """Say whether a child is to be restarted, once."""
    file = _request_file(requests, name)
    if not file.exists():
        return False
    file.unlink(missing_ok=True)
    return True


class _Kept:
    """One child, its present process, and when it is due again."""

    def __init__(self, child: Child, log: Path, spawn: Spawn) -> None:
        self.child, self.log = child, log
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._crashes, self._is_asked = 0, False
        self._starts = 0
        self._started = self._due = float("-inf")
        self._delay = FIRST_DELAY
        self._kill_at = float("inf")

    @property
    def alive(self) -> bool:
        return self._process is not None and children.bury(self._process) is None

    @property
    def status(self) -> Status:
        pid = self._process.pid if self._process is not None and self.alive else None
        return Status(pid, max(0, self._starts - 1), self._exit_code, self._crashes)

    def tick(self, now: float) -> None:
        if self._process is not None and self.alive and now >= self._kill_at:
            children.kill(self._process)
        if self.alive:
            return
        if self._process is not None:
            self._died(self._process.returncode, now)
        if now >= self._due and self.child.after():
            self._start(now)

    def terminate(self) -> None:
        if self._process is not None and self.alive:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            children.kill(self._process)
            self._exit_code = self._process.returncode
            self._process = None

    def crash(self) -> None:
        if self._process is None or not self.alive:
            raise UnavailableError(f"process {self.child.name!r} is not running; see {self.log}")
        # Left in place: the next tick finds it dead. A death on request is no sign of a child that cannot live.
        children.kill(self._process)
        self._started = float("-inf")

    def restart(self, now: float, patience: float = float("inf")) -> None:
        self._is_asked = self._process is not None
        self.terminate()
        self._started, self._kill_at = float("-inf"), now + patience

    def _start(self, now: float) -> None:
        child = self.child
        self._process = self._spawn(child.argv, env=child.env, log=self.log, on_our_death=child.on_our_death)
        self._started, self._kill_at = now, float("inf")
        self._starts += 1

    def _died(self, code: int, now: float) -> None:
        if now - self._started >= HEALTHY_AFTER:
            self._delay = FIRST_DELAY
        self._process, self._exit_code = None, code
        self._crashes += not self._is_asked and code not in ASKED_FOR
        self._is_asked = False
        self._due = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY)
