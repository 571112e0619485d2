"""Whether a server answers: asked again and again while it starts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection

import msgspec
import redis

from rtml.settings import Settings
from streaming.broker import connect

_NONE: Mapping[str, str] = {}
_LOCATIONS = (
    b'{"query": "{workspaceOrError{... on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"}'
)


def server_is_up(settings: Settings, path: str = "/healthz") -> bool:
    """Say whether the feature server is (`/readyz`: whether it can serve every service)."""
    return ask_server(settings, "GET", path) is not None


def ask_server(settings: Settings, method: str, path: str, body: bytes | None = None) -> bytes | None:
    """Return what the project's own feature server answers, shown the project's own key; `None` but for a 200."""
    if not settings.tls_cert:
        connection = HTTPConnection(settings.host, settings.port, timeout=5)
    else:
        connection = HTTPSConnection(settings.host, settings.port, timeout=5, context=own_tls(settings.tls_cert))
    headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
    return _ask(connection, method, path, body, headers)


def own_tls(certificate: str) -> ssl.SSLContext:
    """Trust our own certificate, whoever signed it and whatever name it is for: we ask by the address to listen at."""
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def dagster_is_up(host: str, port: int) -> bool:
    """Say whether Dagster's UI answers, and has loaded the definitions or knows why it cannot."""
    answer = _ask(HTTPConnection(host, port, timeout=5), "POST", "/graphql", _LOCATIONS)
    if answer is None:
        return False
    entries = msgspec.json.decode(answer)["data"]["workspaceOrError"].get("locationEntries", [])
    return bool(entries) and all(_is_loaded(entry) for entry in entries)


def redis_answers(where: Settings | str) -> bool:
    """Say whether there is a Redis of the settings, or at a URL, that lets us in."""
    client = connect(where, timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _is_loaded(entry: dict[str, object]) -> bool:
    loaded = entry["locationOrLoadError"]
    return entry["loadStatus"] == "LOADED" and loaded == {"__typename": "RepositoryLocation"}


def _ask(
    connection: HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = _NONE
) -> bytes | None:
    try:
        connection.request(method, path, body, {**headers, **({"content-type": "application/json"} if body else {})})
        response = connection.getresponse()
        text = response.read()
        return text if response.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
