"""Whether a server answers: asked again and again while it starts."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException

import msgspec
import redis

_LOCATIONS = (
    b'{"query": "{workspaceOrError{... on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"}'
)


def server_is_up(host: str, port: int, path: str = "/healthz") -> bool:
    """Say whether the feature server is (`/readyz`: whether it can serve every service)."""
    return _ask(host, port, "GET", path) is not None


def dagster_is_up(host: str, port: int) -> bool:
    """Say whether Dagster's UI answers, and has loaded the definitions or knows why it cannot."""
    answer = _ask(host, port, "POST", "/graphql", _LOCATIONS)
    if answer is None:
        return False
    entries = msgspec.json.decode(answer)["data"]["workspaceOrError"].get("locationEntries", [])
    return bool(entries) and all(_is_loaded(entry) for entry in entries)


def redis_answers(url: str) -> bool:
    """Say whether there is a Redis at a URL."""
    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _is_loaded(entry: dict[str, object]) -> bool:
    loaded = entry["locationOrLoadError"]
    return entry["loadStatus"] == "LOADED" and loaded == {"__typename": "RepositoryLocation"}


def _ask(host: str, port: int, method: str, path: str, body: bytes | None = None) -> bytes | None:
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = connection.getresponse()
        text = response.read()
        return text if response.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
