"""Two cheap faults of `make chaos` in every run of the tests, without Dagster, so that none of it can rot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fault import Fault, Outcome, go_through
from tests.chaos.faults_redis import RedisFull, RedisIsOlder
from tests.chaos.table import BEGIN, END, table_of, write_table
from tests.chaos.world import World, until

OUTCOMES: list[Outcome] = []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        with World(tmp_path_factory.mktemp("chaos"), dagster=False, disk=False, interval="300ms") as world:
            until(lambda: world.age > 4, "the watch tells")
            yield world


@pytest.mark.parametrize("kind", [RedisFull, RedisIsOlder], ids=lambda kind: kind.__name__)
def test_a_fault_is_told_and_nothing_is_lost(world: World, kind: type[Fault]) -> None:
    OUTCOMES.append(go_through(kind(), world))
    assert OUTCOMES[-1].compared > 1_000


def test_the_table_goes_between_the_markers_of_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(table := table_of(OUTCOMES), page)
    assert page.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"
    assert len(table.splitlines()) == 2 + len(OUTCOMES)
