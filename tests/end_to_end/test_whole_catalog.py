"""The whole catalog on every road, whatever happens: the server's answers and training sets are the oracle's.

`CATALOG_SEEDS=1000` plays so many examples instead of a few, `CATALOG_SEED=7` begins with that one, and
`CATALOG_SIZE=20` takes its first events only, to find the fewest that are wrong.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rtml.algebra import catalog
from rtml.errors import RtmlError
from rtml.lake import Lake
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.tables import base
from tests.end_to_end.schedule_of import Schedule
from tests.streaming.test_lifetimes import MortalRedis

RUNS = int(os.environ.get("CATALOG_SEEDS", "15"))
FIRST = int(os.environ.get("CATALOG_SEED", "1"))
SIZE = int(os.environ.get("CATALOG_SIZE", "0")) or None


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalRedis]:
    """A Redis of this test's own: it is emptied after each example."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server, MortalRedis.from_url(server.url, protocol=2) as one:
        yield one


def test_the_whole_catalog_is_the_oracle(client: MortalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SLACK", 0)
    tally: Counter[str] = Counter()
    drawn: set[str] = set()
    failed: list[Exception] = []
    for seed in range(FIRST, FIRST + RUNS):
        schedule = Schedule(client, Lake(str(tmp_path / str(seed))), seed, SIZE)
        drawn |= schedule.aggregates
        try:
            tally += schedule.run()
        except (AssertionError, RtmlError, redis.RedisError) as error:
            error.add_note(f"To repeat it: CATALOG_SEED={seed} CATALOG_SEEDS=1")
            failed.append(error)
            print(f"{seed} failed: {error}", flush=True)
        client.flushdb()
        client.script_flush()  # else the next one sends fewer commands, and dies elsewhere than when it is repeated
        shutil.rmtree(tmp_path / str(seed), ignore_errors=True)
        if (seed - FIRST) % 25 == 24:
            print(f"{seed}: {len(failed)} failed: {dict(tally)}", flush=True)
    print(f"{RUNS} examples: {dict(tally)}")
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {RUNS} examples", failed)
    if RUNS >= 15:
        assert drawn == set(catalog.AGGREGATES)
        assert min(tally[road] for road in ("online values", "serving values", "hindsight values")) > 0
        assert min(tally[what] for what in ("kills", "publishers killed", "promotions", "late published")) > 0
