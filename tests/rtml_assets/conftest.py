"""A lake in a temporary folder, and a Redis that is empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtml.lake import Lake
from rtml.settings import Settings
from rtml_assets.runtime.redis_server import EmbeddedRedis
from streaming.broker import connect


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that tests may empty."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def client(own_redis: str) -> Iterator[Any]:
    with connect(own_redis, timeout=10) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(own_redis: str, tmp_path: Path) -> Settings:
    return Settings(
        features="tests.rtml_assets.orders",
        home=str(tmp_path),
        redis_url=own_redis,
        accept_stamps=True,
        tile_epoch="200ms",
    )


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake_root)
