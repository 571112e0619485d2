"""Reading features in this process, straight from Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from rtml import instants
from rtml.errors import UnavailableError
from rtml.settings import Settings
from serving.entities import MOST_ENTITIES, Entities, as_rows
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge, Lookup, prepare
from serving.reader import Turns
from serving.redis_io import connect_reader, exchange
from serving.state import ServingState, Snapshot

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_SECONDS = 5.0
"""How long a client that is given a URL waits for Redis."""


class FeatureClient:
    """Reads features in this process, straight from Redis.

    Args:
        client: a Redis client, the settings that say where it is, or its URL.
        epoch: how often the stream's position moves, in microseconds; staleness is counted beyond it.
        background: refresh versions and positions every 100 ms by a thread; without it, before every request.
        log: takes what is served, of the services that ask for it; whoever made it starts, flushes and stops it.
    """

    def __init__(
        self,
        client: Redis | Settings | str,
        *,
        epoch: int = instants.SECOND,
        background: bool = True,
        log: FeatureLog | None = None,
    ) -> None:
        """Connect."""
        self._log = log
        self._owned = isinstance(client, Settings | str)
        self._client = connect_reader(client, TIMEOUT_SECONDS) if isinstance(client, Settings | str) else client
        self._epoch = epoch
        self._most = client.max_entities if isinstance(client, Settings) else MOST_ENTITIES
        self._background = background
        self._turns = Turns()
        self.state = ServingState(self._client, client.features if isinstance(client, Settings) else "")
        if background:
            self.state.refresh()
            self.state.start()

    def __enter__(self) -> FeatureClient:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop refreshing, and close the connections that this client opened itself."""
        self.state.stop()
        if self._owned:
            self._client.close()

    def snapshot(self) -> Snapshot:
        """Return what is served now."""
        return self.state.snapshot if self._background else self.state.refresh()

    def get(
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
                OverflowedError.
        """
        rows = as_rows(entities, self._most)
        lookup = prepare(self.snapshot(), self._turns, service, rows, at, leading_edge, self._epoch)
        fetch(self._client, lookup)
        vectors = lookup.vectors()
        if self._log is not None:
            self._log.take(lookup.question, rows, lookup.rows, vectors)
        return vectors


def fetch(client: Redis, lookup: Lookup) -> None:
    """Read all that a lookup needs: one round trip, or rarely more; and one for strings that are not remembered.

    Raises:
        UnavailableError: Redis does not answer.
        OverflowedError: an integer sum needs more than 64 bits.
    """
    try:
        while lookup.unfinished:
            lookup.absorb(exchange(client, lookup.commands()))
        if lookup.strings:
            for _ in lookup.merge(MOST_ENTITIES):
                pass
            if lookup.strings.unfinished:
                lookup.strings.absorb(exchange(client, lookup.strings.commands()))
    except redis.RedisError as error:
        raise UnavailableError(f"Redis does not answer: {error}") from None
