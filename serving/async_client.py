"""Reading features in this process and in its event loop, straight from Redis."""

from __future__ import annotations

import asyncio

from rtml import instants
from rtml.instants import to_instant
from rtml.settings import Settings
from serving.batches import Batches
from serving.client import TIMEOUT_SECONDS
from serving.entities import MOST_ENTITIES, Entities
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge
from serving.metrics import Metrics
from serving.redis_io import RedisReader, connect_reader
from serving.state import ServingState, Snapshot


class AsyncFeatureClient:
    """Reads features as `FeatureClient` does, without blocking the loop; an async context manager.

    Requests that wait together are read together, as the server does: hundreds may be asked at once. It belongs to the
    loop in which it is entered.

    Args:
        where: the settings that say where Redis is, or its URL.
        epoch: how often the stream's position moves, in microseconds; staleness is counted beyond it.
        background: refresh versions and positions every 100 ms by a thread; without it, before every request.
        log: takes what is served, of the services that ask for it; whoever made it starts, flushes and stops it.
    """

    def __init__(
        self,
        where: Settings | str,
        *,
        epoch: int = instants.SECOND,
        background: bool = True,
        log: FeatureLog | None = None,
    ) -> None:
        """Take where Redis is; nothing is connected before it is entered."""
        self._background = background
        self._client = connect_reader(where, TIMEOUT_SECONDS)
        self._reader = RedisReader(where, TIMEOUT_SECONDS)
        self.state = ServingState(self._client, where.features if isinstance(where, Settings) else "")
        self.metrics = Metrics(lambda: self.state.snapshot)
        """What this client tells Prometheus, in a registry of its own."""
        most = where.max_entities if isinstance(where, Settings) else MOST_ENTITIES
        self._batches = Batches(self.state, self._reader, self.metrics, epoch, log, most)
        self._refreshing = asyncio.Lock()
        self._refreshes = 0

    async def __aenter__(self) -> AsyncFeatureClient:
        """Look at what is served, and return the client itself.

        Raises:
            UnavailableError: Redis does not answer.
        """
        if self._background:
            try:
                await asyncio.to_thread(self.state.refresh)
            except BaseException:
                await self.close()
                raise
            self.state.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Stop refreshing, and close all connections."""
        await asyncio.to_thread(self.state.stop)
        await self._reader.close()
        self._client.close()

    async def snapshot(self) -> Snapshot:
        """Return what is served now.

        Raises:
            UnavailableError: Redis does not answer.
        """
        if not self._background:
            await self._refresh()
        return self.state.snapshot

    async def _refresh(self) -> None:
        """Look at what is served, together with all who asked for it since the last look began."""
        begun = self._refreshes
        async with self._refreshing:
            if self._refreshes == begun:
                self._refreshes += 1
                await asyncio.to_thread(self.state.refresh)

    async def get(
        self,
        service: str,
        entities: Entities,
        *,
        at: object = None,
        leading_edge: LeadingEdge = "wall_clock",
    ) -> FeatureVectors:
        """Return a service's features of entities.

        Args:
            service: a feature service's name.
            entities: one mapping of join keys a row; or by join key a list of values, or one value for all rows.
            at: the instant that windows end at; by default the `leading_edge`.
            leading_edge: `wall_clock` (now), or `watermark`: up to where the service's sources are servable.

        Raises:
            UnknownNameError, RequestError, TooLargeError, NotReadyError, StaleError, InstantError, UnavailableError,
                OverflowedError, DeadlineError (the loop was too busy to begin within Redis' timeout).
        """
        if not self._background:
            await self._refresh()
        instant = None if at is None else to_instant(at)
        return await self._batches.get(service, entities, instant, leading_edge)
