"""A running project: its Redis, two flows a source, the feature server, and Dagster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from rtml import access
from rtml.errors import SettingsError, UnavailableError
from rtml.instants import now
from rtml.settings import RUN_FILE, Settings
from rtml_assets.runtime import dagster_home
from rtml_assets.runtime.deployments import DeploymentWatch
from rtml_assets.runtime.ports import free_port, is_free
from rtml_assets.runtime.probes import dagster_is_up, redis_answers, server_is_up
from rtml_assets.runtime.processes import forget_processes, write_processes
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.runtime.supervisor import Child, Status, Supervisor, restart_requests

FLOWS = ("tiles", "mirror")
SERVER, DAGSTER_UI, WATCH = "serve", "dagster-ui", "watch"
POLL_SECONDS = 0.2


class Project:
    """The processes of a project, until `stop`; a context manager that stops them.

    Args:
        settings: where everything is; every process gets them as its environment.
        sources: the names of the sources to stream.
        embedded: start an own Redis, and tell other commands of it in `<home>/run.json`.
        server, dagster, watch: whether to run the feature server, Dagster's UI and daemon, and the watch over all.
    """

    def __init__(
        self,
        settings: Settings,
        sources: list[str],
        *,
        embedded: bool,
        server: bool = True,
        dagster: bool = True,
        watch: bool = True,
    ) -> None:
        """Take what to run; nothing is started yet."""
        self.settings = settings
        self._sources, self._embedded = sources, embedded
        self._server, self.has_dagster, self._watched = server, dagster, watch
        self._redis: EmbeddedRedis | None = None
        self._is_told = False
        requests = restart_requests(settings.home_path)
        self._supervisor = Supervisor([], settings.home_path / "logs", requests=requests, on_change=self._tell)
        self._watch: DeploymentWatch | None = None

    def __enter__(self) -> Project:
        """Return the project itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.stop()

    @property
    def server_url(self) -> str:
        """The feature server's page."""
        return self.settings.server_url

    @property
    def dagster_url(self) -> str:
        """Dagster's UI."""
        return f"http://{self.settings.host}:{self.settings.dagster_port}"

    def start_redis(self) -> None:
        """Start the embedded Redis, if that is wanted; from here on `settings` name the one in use.

        Where the server asks for keys and the settings have none, the run gets one of its own.

        Raises:
            SettingsError: this home is in use already, or a port is taken.
        """
        home = self.settings.home_path
        check_alone(home)
        self._check_ports()
        self._supervisor.start()
        told: dict[str, object] = {}
        if self._server and self.settings.needs_key and not self.settings.key:
            self.settings = with_own_key(self.settings)
            told["key"] = self.settings.key
        if self._embedded:
            self._redis = EmbeddedRedis(home).start()
            # It listens on this machine alone, and knows no users and no certificates.
            theirs = ("redis_username", "redis_password", "redis_ca", "redis_cert", "redis_key", "redis_read_url")
            plain = dict.fromkeys(theirs, "")
            self.settings = msgspec.structs.replace(self.settings, redis_url=self._redis.url, **plain)
            told |= {name: getattr(self.settings, name) for name in ("redis_url", "accept_stamps")}
            told["lake"] = self.settings.lake_root
        if told:
            self._is_told = True
            write_private(home / RUN_FILE, msgspec.json.encode(told))

    def start_dagster(self) -> None:
        """Start Dagster ahead of the rest, if it is wanted: it takes the longest."""
        if self.has_dagster and DAGSTER_UI not in self._supervisor.status():
            self._supervisor.add(self._dagster_processes())

    def start(self) -> None:
        """Start everything but the Redis."""
        if self._server and self.settings.needs_key:
            from rtml_assets.runtime.keys import fill_keys  # noqa: PLC0415  # Delta takes a while to load

            fill_keys(self.settings)
        self._supervisor.add([*self._flows(), *self._servers(), *self._watchers()])
        self.start_dagster()
        # Flows notice a deployment by themselves.
        readers = {dagster_home.CODE_SERVER: self.has_dagster, WATCH: self._watched}
        if reloaded := [name for name, runs in readers.items() if runs]:
            self._watch = DeploymentWatch(self.settings, partial(self._restart, reloaded))

    def stop(self) -> None:
        """Stop everything, the Redis last, since the others write to it until they end."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._supervisor.stop()
        forget_processes(self.settings.home_path)
        if self._is_told:
            (self.settings.home_path / RUN_FILE).unlink(missing_ok=True)
            self._is_told = False
        if self._redis is not None:
            self._redis.stop()
            self._redis = None

    def _restart(self, names: list[str]) -> None:
        for name in names:
            self._supervisor.restart(name)

    def _tell(self) -> None:
        write_processes(self.settings.home_path, self.status())

    def status(self) -> dict[str, Status]:
        """Return how each process is."""
        redis = {"redis": self._redis.status} if self._redis else {}
        return {**redis, **self._supervisor.status()}

    def wait_ready(self, timeout: float = 120, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Return when the feature server and Dagster's UI answer; `on_ready` hears the name of each that does.

        Raises:
            UnavailableError: one did not in `timeout` seconds; with the end of its log.
        """
        waiting = self._probes()
        deadline = time.monotonic() + timeout
        while waiting:
            for name in [name for name, is_up in waiting.items() if is_up()]:
                del waiting[name]
                on_ready(name)
            if waiting and time.monotonic() > deadline:
                raise UnavailableError(self._unready(next(iter(waiting)), timeout))
            if waiting:
                time.sleep(POLL_SECONDS)

    def log(self, name: str, lines: int = 20) -> str:
        """Return the last lines that a process wrote."""
        return self._supervisor.log(name, lines)

    @property
    def servers(self) -> list[str]:
        """The names of what `wait_ready` waits for."""
        return list(self._probes())

    def _probes(self) -> dict[str, Callable[[], bool]]:
        probes: dict[str, Callable[[], bool]] = {}
        if self._server:
            probes[SERVER] = lambda: server_is_up(self.settings)
        if self.has_dagster:
            probes[DAGSTER_UI] = lambda: dagster_is_up(self.settings.host, self.settings.dagster_port)
        return probes

    def _unready(self, name: str, timeout: float) -> str:
        where = self.settings.home_path / "logs" / f"{name}.log"
        return f"process {name!r} was not ready in {timeout:g} s ({where}); it said:\n{self.log(name)}"

    def _check_ports(self) -> None:
        wanted = {"port": self._server, "dagster_port": self.has_dagster}
        for name in [name for name, used in wanted.items() if used]:
            port = getattr(self.settings, name)
            if not is_free(self.settings.host, port):
                raise SettingsError(f"port {port} of {self.settings.host} is taken: set RTML_{name.upper()}")

    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.settings.environment()}

    def _flows(self) -> list[Child]:
        return [
            Child(f"stream:{source}:{flow}", python("streaming", source, "--flow", flow), self._env())
            for source in self._sources
            for flow in FLOWS
        ]

    def _servers(self) -> list[Child]:
        # Whoever asks this machine's one server has no other to turn to while it drains.
        return [Child(SERVER, python("serving"), {**self._env(), "RTML_DRAIN": "0s"})] if self._server else []

    def _watchers(self) -> list[Child]:
        return [Child(WATCH, python("rtml_assets.cli", "watch"), self._env())] if self._watched else []

    def _dagster_processes(self) -> list[Child]:
        env = dagster_env(self.settings)
        folder = Path(env["DAGSTER_HOME"])
        if not dagster_home.is_created(folder):
            dagster_home.create_storage(env)
        settings = self.settings
        where = (settings.host, settings.dagster_port, free_port())
        return dagster_home.dagster_children(folder, env, *where, settings.log_format)


def with_own_key(settings: Settings) -> Settings:
    """Return settings with a key by which this run's own processes read from this run's own server.

    That server alone takes it, for as long as it runs: the lake never hears of it, and there is nothing to revoke.
    """
    text, key = access.create_key(access.OF_RUN, [f"read:{access.EVERY}"], now())
    return msgspec.structs.replace(settings, key=text, run_key=access.fingerprint(key))


def check_alone(home: Path) -> None:
    """Refuse a home where a project runs with an embedded Redis.

    Raises:
        SettingsError: one does.
    """
    run = home / RUN_FILE
    url = msgspec.json.decode(run.read_bytes()).get("redis_url") if run.is_file() else None
    if url and redis_answers(url):
        raise SettingsError(f"a project runs in {home} already: stop it, or set RTML_HOME")


def forget_last_run(home: Path) -> None:
    """Remove what a project that was killed could not: its `run.json`, which would be taken for settings.

    Raises:
        SettingsError: it still runs.
    """
    check_alone(home)
    (home / RUN_FILE).unlink(missing_ok=True)


def write_private(file: Path, content: bytes) -> None:
    """Write a file that nobody else on this machine can read."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours."""
    return (sys.executable, "-m", module, *arguments)


def dagster_env(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of Dagster's processes."""
    environment = os.environ if environment is None else environment
    folder = dagster_home.prepare(settings.home_path)
    return {**environment, **settings.environment(), "DAGSTER_HOME": str(folder)}
