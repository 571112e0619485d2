"""Child processes that do not outlive us: how they are started, signalled and buried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

# What runs first in the child: it asks the kernel to be told when the parent dies, and becomes the program.
# A `preexec_fn` could do the same, but would fork this process with all of its threads and locks.
_LAST_WILL = """
import ctypes, os, signal, sys
wish, parent = int(sys.argv[1]), int(sys.argv[2])
# What a parent ignores or blocks, its children would, and could not be stopped.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, wish)
    if os.getppid() != parent:
        os._exit(1)
os.execvpe(sys.argv[3], sys.argv[3:], os.environ)
"""


class _Midwife:
    """One thread that starts all children: to the kernel, a parent is dead when the thread that started is."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[tuple[_Start, Future[subprocess.Popen[bytes]]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, request: _Start) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rtml-children", daemon=True)
                self._thread.start()
        born: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((request, born))
        return born.result()

    def _run(self) -> None:
        while True:
            request, born = self._requests.get()
            try:
                born.set_result(request())
            except OSError as error:
                born.set_exception(error)


class _Start:
    """A process to be started, and where its output goes."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, wish: signal.Signals) -> None:
        self._argv, self._env, self._log, self._wish = list(argv), dict(env), log, wish

    def __call__(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        will = [sys.executable, "-I", "-S", "-c", _LAST_WILL, str(int(self._wish)), str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*will, *self._argv],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches us alone, and its own children can be found by its pid.
                start_new_session=True,
            )


_midwife = _Midwife()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    on_our_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a program whose output is appended to `log`, and which gets a signal (on Linux) if we die first.

    Raises:
        OSError: it could not be started.
    """
    return _midwife.start(_Start(argv, env, log, on_our_death))


def bury(process: subprocess.Popen[bytes]) -> int | None:
    """Return a child's exit code once it is dead, and end what it left behind; `None` while it lives."""
    if process.returncode is not None:
        return process.returncode
    code = process.poll()
    if code is not None:
        _end_session(process.pid)
    return code


def kill(process: subprocess.Popen[bytes], timeout: float = 10) -> None:
    """End a child and its own children with SIGKILL, and wait until it is gone."""
    if bury(process) is None:
        _end_session(process.pid)
        process.wait(timeout)


def _end_session(leader: int) -> None:
    """Kill what is in the process group that a child of ours leads, which is nobody else's."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
