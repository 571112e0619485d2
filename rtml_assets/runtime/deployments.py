"""Deployments: definitions have changed, and the processes that run are to load them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis

from rtml.online import keys
from streaming.broker import connect

if TYPE_CHECKING:
    from redis import Redis

LOOK_SECONDS = 0.5


def deploy(client: Redis) -> int:
    """Have all processes load the definitions anew, and return how often that was done so far."""
    return int(client.incr(keys.DEPLOYED))


class DeploymentWatch:
    """Calls `changed` after each deployment, from a thread of its own, until `stop`."""

    def __init__(self, url: str, changed: Callable[[], None]) -> None:
        """Watch the Redis at a URL."""
        self._client = connect(url, timeout=5)
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
