"""The watch's port for Prometheus: it asks for the same keys as the feature server, where that asks for any."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from rtml.access import of_run
from rtml.errors import SettingsError
from rtml.lake import Lake
from rtml.settings import Settings
from serving.denied import DeniedLog
from serving.guard import Guard, security_headers
from serving.keyring import KeyRing
from serving.wire import failure
from streaming.broker import connect

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

METRICS = "/metrics"
CALLER_SECONDS = 10.0
"""So long a caller may take with his request."""
REDIS_SECONDS = 1.0

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Headers(NamedTuple):
    """The headers of a request as WSGI has them."""

    environ: dict[str, Any]

    def get(self, key: str, /) -> str | None:
        found: str | None = self.environ.get(f"HTTP_{key.upper().replace('-', '_')}")
        return found


@dataclass
class _Asked:
    """A request, as the guard sees it."""

    method: str
    path: str
    client: str
    headers: _Headers


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = CALLER_SECONDS

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def shown_to_prometheus(settings: Settings, registry: CollectorRegistry) -> Iterator[None]:
    """Show figures at `watch_port` for as long as the block runs; nothing where that is 0.

    Raises:
        SettingsError: nothing can listen there.
    """
    if not settings.watch_port:
        yield
        return
    lake = Lake(settings.lake_root)
    with connect(settings, timeout=REDIS_SECONDS) as client:
        ring = KeyRing(client, lake, own=of_run(settings.run_key)) if settings.needs_key else None
        guard = Guard(ring, DeniedLog(lake), settings.rate_limit, secure=bool(settings.tls_cert))
        guard.start()
        try:
            with _listening(settings, guarded(make_wsgi_app(registry), guard, secure=bool(settings.tls_cert))):
                yield
        finally:
            guard.stop()


def guarded(metrics: App, guard: Guard, *, secure: bool) -> App:
    """Return what answers `/metrics` to who may see it, and nothing else."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        asked = _Asked(method, path, f"[{environ['REMOTE_ADDR']}]:0", _Headers(environ))
        reply = guard.check(asked)
        if reply is None and path == METRICS and method in ("GET", "HEAD"):
            return metrics(environ, start)
        if reply is None:
            reply = failure(404, "not_found", f"only {METRICS} is here, to be read")
        headers = [("content-type", reply.content_type), *security_headers(path, secure=secure), *reply.headers]
        start(f"{reply.status} {HTTPStatus(reply.status).phrase}", headers)
        return [reply.body]

    return answer


@contextmanager
def _listening(settings: Settings, app: App) -> Iterator[None]:
    host, port = settings.host, settings.watch_port
    try:
        server = make_server(host, port, app, _Server6 if ":" in host else _Server, _Quiet)
    except OSError as error:
        raise SettingsError(f"cannot listen at {host}:{port} (RTML_HOST, RTML_WATCH_PORT): {error.strerror}") from None
    if settings.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        # The handshake is left to the caller's own thread.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, name="rtml-scrapes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
