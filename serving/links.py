"""A server's connections: to the Redis that it reads from and, where that is a replica, to its primary.

All that an answer is made of comes from one node: the positions that say up to when features are servable never promise
more than the values beside them hold, however far a replica lags behind. Keys are the primary's: one that was revoked
is so at once.
"""

from __future__ import annotations

from rtml.errors import UnavailableError
from rtml.settings import Settings
from serving.redis_io import RedisReader, connect_reader

_PING = [("PING",)]


class Links:
    """The connections of one server; none is made before it is used."""

    def __init__(self, settings: Settings) -> None:
        """Take where both are."""
        timeout = settings.redis_timeout_seconds
        self.client = connect_reader(settings.reading, timeout)
        """Where features are read, for threads."""
        self.reader = RedisReader(settings.reading, timeout, settings.redis_connections)
        """Where features are read, for the loop."""
        self.primary = connect_reader(settings, timeout) if settings.redis_read_url else self.client
        """Where all is written, for threads."""
        self._of_primary = RedisReader(settings, timeout, 1) if settings.redis_read_url else None

    def said(self, error: UnavailableError) -> str:
        """Return an error of the Redis that features are read from, with its name if there are two."""
        return str(error) if self._of_primary is None else f"the replica (redis_read_url): {error}"

    async def check(self) -> None:
        """Ask the Redis that features are read from whether it is there.

        Raises:
            UnavailableError: it is not.
        """
        await self.reader.read(_PING)

    async def warnings(self) -> list[str]:
        """Return what is wrong and keeps nobody from getting features: a primary that does not answer."""
        if self._of_primary is None:
            return []
        try:
            await self._of_primary.read(_PING)
        except UnavailableError as error:
            return [f"the primary (redis_url): {error}; features are the replica's, and get no newer"]
        return []

    async def close(self) -> None:
        """Close all connections."""
        self.client.close()
        await self.reader.close()
        if self._of_primary is not None:
            self.primary.close()
            await self._of_primary.close()
