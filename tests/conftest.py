"""What many tests share: a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rtml_assets.runtime.redis_server import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the whole session; tests keep apart by their names."""
    home: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(home) as server:
        yield server.url
