"""What all tests share: a real Redis, and that none of them lets a secret into a log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.testing import LocalPlatform
from tests.leaks import leaks, leaks_below

settings.register_profile("patient", settings(), deadline=None)  # a busy machine is no fault of an example
settings.load_profile("patient")

SAID: list[str] = []
"""Secrets in what tests printed and logged."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Look at what a test has printed and logged, whether it passed or not; a failed one may show what it compared."""
    SAID.extend(f"{report.nodeid}: …{found}…" for _, text in report.sections for found in leaks(text))


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session, after its last test, when a secret stands in anything that it logged."""
    remove = LocalPlatform._remove

    def look_and_remove(platform: LocalPlatform) -> None:
        # Its folder is elsewhere, and does not outlive it.
        SAID.extend(leaks_below(platform._folder))
        remove(platform)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalPlatform, "_remove", look_and_remove)
        yield
    assert [*SAID, *leaks_below(tmp_path_factory.getbasetemp())] == []


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the whole session; tests keep apart by their names."""
    home: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(home) as server:
        yield server.url
