"""The API keys that a server knows: what Redis and the lake say together, looked at again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import redis

from rtml.access import Key, merge
from rtml.lake_paths import Lake
from streaming.access import projected_keys

if TYPE_CHECKING:
    from redis import Redis

REFRESH_SECONDS = 0.5
LAKE_SECONDS = 30.0
"""How often the lake is asked beside Redis: one that came back from an older copy may lack what was revoked since."""
LOST_SECONDS = 5.0
"""How often it is asked while Redis does not tell the keys."""

_log = logging.getLogger("rtml.serving")


class KeyRing:
    """Keeps the keys at most a second old, by a thread of its own once started; it writes nothing.

    Redis tells of changes at once. The lake is the truth: it is asked when Redis has lost the keys, and every
    `LAKE_SECONDS`. While neither answers, what was known last goes on to count; who never knew anything lets nobody in.
    """

    def __init__(
        self,
        client: Redis,
        lake: Lake,
        clock: Callable[[], float] = time.monotonic,
        own: Mapping[str, Key] = MappingProxyType({}),
    ) -> None:
        """Take where keys are, and those of this server alone; nothing is read before `refresh` or `start`."""
        self.own = dict(own)
        self._client, self._lake, self._clock = client, lake, clock
        self._projected: dict[str, Key] | None = None
        self._from_lake: dict[str, Key] | None = None
        self._was_lost = False
        self._looked_at = float("-inf")
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.keys: dict[str, Key] | None = None
        """By their ids; `None` before they could be read."""

    def refresh(self) -> None:
        """Look now; what cannot be read stays as it was."""
        self._look_at_redis()
        lost = self._projected is None
        since = self._clock() - self._looked_at
        if since >= (LOST_SECONDS if lost else LAKE_SECONDS) or (lost and not self._was_lost):
            self._look_at_lake()
        self._was_lost = lost
        # What Redis tells is complete; while it tells nothing, a key that was known is known still.
        known = [self._projected if not lost else self.keys, self._from_lake]
        if any(found is not None for found in known):
            self.keys = merge(key for found in (*known, self.own) if found is not None for key in found.values())

    def start(self) -> None:
        """Look, and go on looking until `stop`."""
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="rtml-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            self.refresh()

    def _look_at_redis(self) -> None:
        try:
            self._projected = projected_keys(self._client)
        except redis.RedisError:  # the serving state says so in the log
            return
        except msgspec.MsgspecError as error:
            _log.error("what Redis holds of API keys cannot be read: %s", error)

    def _look_at_lake(self) -> None:
        # Loaded where keys are asked for, and not by every server.
        from streaming.key_store import stored_keys  # noqa: PLC0415

        self._looked_at = self._clock()
        try:
            # A table that is not there may be one that cannot be reached: that is not to know, and not to have none.
            self._from_lake = stored_keys(self._lake) or self._from_lake
        # Whatever it was, the keys that are known go on to count.
        except Exception as error:  # noqa: BLE001
            _log.warning("%s cannot be read: %s", self._lake.access_keys, error)
