"""Deployments: definitions have changed, and the processes that run are to load them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import redis

from rtml.errors import DefinitionError, NotReadyError
from rtml.instants import now
from rtml.online import keys
from rtml.registry import Registry
from rtml.settings import Settings
from streaming.broker import connect
from streaming.services import meanings_in_use
from streaming.versions import live_version

if TYPE_CHECKING:
    from redis import Redis

LOOK_SECONDS = 0.5


def deploy(client: Redis, registry: Registry, *, force: bool = False) -> list[str]:
    """Have all processes load the definitions anew, and return what people should know.

    Raises:
        NotReadyError: what is served could not be written on under them; `force` gives it up.
    """
    reasons = [] if force else list(endangered(client, registry))
    if reasons:
        words = [
            "these definitions would end what is served (--force does so):",
            *(f"- {reason}" for reason in reasons),
        ]
        raise NotReadyError("\n".join(words))
    client.incr(keys.DEPLOYED)
    return [
        f"source {source!r} has no flows yet: restart `rtml up`, or run `rtml stream {source}`"
        for source in registry.sources
        if not client.exists(keys.figures(source, "tiles"))
    ]


def endangered(client: Redis, registry: Registry) -> Iterator[str]:
    """Say which versions that are served now could not be computed from the sources as they are defined."""
    for view, fingerprints in meanings_in_use(client, now()).items():
        for fingerprint in sorted(fingerprints):
            version = live_version(client, view, fingerprint)
            if version is None or version.projection is None:
                continue
            source = registry.sources.get(version.plan.source)
            if source is None:
                yield f"view {view!r} reads source {version.plan.source!r}, which is not defined any longer"
                continue
            try:
                version.projection.over(view, source)
            except DefinitionError as error:
                yield str(error)


class DeploymentWatch:
    """Calls `changed` after each deployment, from a thread of its own, until `stop`."""

    def __init__(self, where: Settings | str, changed: Callable[[], None]) -> None:
        """Watch the Redis of the settings, or at a URL."""
        self._client = connect(where, timeout=5)
        self._changed = changed
        self._known = self._look()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtml-deployments", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            found = self._look()
            if found is not None and found != self._known:
                self._known = found
                self._changed()

    def _look(self) -> bytes | None:
        """Return the counter; nothing while Redis is away."""
        try:
            found: Any = self._client.get(keys.DEPLOYED) or b"0"
        except redis.RedisError:
            return None
        return bytes(found)
