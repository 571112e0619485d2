"""What several commands need: the project, and a Redis that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

    from rtml.registry import Registry
    from rtml.settings import Settings


def load_settings() -> Settings:
    """Return the settings of this process."""
    from rtml.settings import load_settings as load

    return load()


def load_project() -> tuple[Settings, Registry]:
    """Return the settings, and the definitions that they name."""
    from rtml.registry import load

    chosen = load_settings()
    return chosen, load(chosen.features)


@contextmanager
def connected(settings: Settings) -> Iterator[Redis]:
    """Connect to Redis for a block.

    Raises:
        UnavailableError: it does not answer.
    """
    import redis

    from rtml.errors import UnavailableError
    from streaming.broker import connect

    with connect(settings, timeout=30) as client:
        try:
            yield client
        except redis.RedisError as error:
            raise UnavailableError(f"Redis does not answer at {settings.redis_shown}: {error}") from None
