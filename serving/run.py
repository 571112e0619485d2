"""Running the feature server: one process, one event loop, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from prometheus_client import disable_created_metrics

from rtml import logs
from rtml.errors import SettingsError
from rtml.kernel.program import is_built
from rtml.secrets import mask_logs
from rtml.settings import Settings
from serving.app import App

CONNECTIONS = 1024
"""How many connections may wait to be accepted, and how many are served at once."""

_log = logging.getLogger("rtml.serving")


def serve(settings: Settings) -> None:
    """Serve features until SIGTERM, which drains first, or SIGINT; then finish what was begun.

    The server shares this process with its event loop: no worker can outlive it and keep the port.

    Raises:
        SettingsError: the Redis URL is none, or nothing can listen at the host and port.
    """
    mask_logs(settings.secrets)
    logs.configure(settings.log_format, process="serving")
    if not is_built():
        _log.warning("rtml/kernel was not compiled when rtml was installed: features take three times as long")
    disable_created_metrics()  # type: ignore[no-untyped-call]
    asyncio.Runner(loop_factory=_loop_factory()).run(_serve(settings))


async def _serve(settings: Settings) -> None:
    app = App(settings)
    server = Server(
        app,
        address=_address(settings.host, settings.port),
        port=settings.port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=CONNECTIONS,
        backpressure=CONNECTIONS,
        log_enabled=False,
        ssl_cert=_file(settings, "tls_cert"),
        ssl_key=_file(settings, "tls_key"),
    )
    url = settings.server_url
    greeting = f"features at {url}, documented at {url}/docs"
    as_json = settings.log_format == "json"
    server.on_startup(lambda: _log.info(greeting) if as_json else print(greeting, flush=True))  # noqa: T201
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        drain = settings.drain_seconds if number == signal.SIGTERM else 0
        loop.add_signal_handler(number, partial(_stop, server, app, drain))
    app.start()
    # What is loaded by now stays for good: the collector need not look at it again with every request.
    gc.collect()
    gc.freeze()
    try:
        await server.serve()
    finally:
        await app.close()


def _stop(server: Server, app: App, drain: float) -> None:
    """Finish what was begun, but for requests whose senders take their time.

    Before that, whoever sends requests here has `drain` seconds to hear that this server ends; told twice, it ends now.
    """
    if drain and not app.is_draining:
        app.drain()
        asyncio.get_running_loop().call_later(drain, _stop, server, app, 0)
        return
    app.drain()
    app.bodies.hurry()
    server.stop()  # type: ignore[no-untyped-call]


def _file(settings: Settings, name: str) -> Path | None:
    """Return a file of the certificate, where there is one."""
    file = Path(getattr(settings, name))
    if not getattr(settings, name):
        return None
    if not file.is_file():
        raise SettingsError(f"{name} (RTML_{name.upper()}) must be a file; got {str(file)!r}")
    return file


def _address(host: str, port: int) -> str:
    """Return the address of a host, after a try to listen there: Granian would share a port that is in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SettingsError(f"cannot listen at {host}:{port} (RTML_HOST, RTML_PORT): {error.strerror}") from None
    return str(address[0])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed, as it takes a quarter off a request; else Python's own."""
    if find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415

    return uvloop.new_event_loop
