"""A hot entity that is spread over partial states: who writes them, and by which name it is told of."""

from __future__ import annotations

import random

import msgspec
import pytest

from rtml.instants import SECOND
from rtml.online import keys
from rtml.online.salts import partial_tags
from streaming.contribution import together
from streaming.figures import Figures
from streaming.route import Router, shard_of
from streaming.versions import Version
from tests.oracle import Event
from tests.streaming.test_protocol import KEYS, REGISTRY, SOURCE, gated

PLAN = msgspec.structs.replace(REGISTRY.plans["exact"], salts=8)


@pytest.mark.parametrize(("processes", "apart"), [(1, 0), (2, 0), (4, 0), (8, 0), (3, 2), (5, 2)])
def test_any_count_of_processes_shares_an_entity_evenly(processes: int, apart: int) -> None:
    """Exactly so where it divides the shards' count."""
    for key in (*KEYS, *map(str, range(100))):
        shards = [shard_of(tag) for tag in partial_tags(PLAN, [key])]
        assert len(set(shards)) == 8
        assert shards[0] == shard_of(keys.entity_tag("key", [key]))
        parts = [sum(shard % processes == one for shard in shards) for one in range(processes)]
        assert max(parts) - min(parts) <= apart


def test_events_go_by_their_ids_and_figures_name_the_entity() -> None:
    rng = random.Random(1)
    values = {"x": 1.0, "n": 1, "s": "text"}
    events = [
        Event("hot" if n % 4 else f"k{n}", 1_000 * SECOND, rng.getrandbits(64), 1_000 * SECOND, values)
        for n in range(400)
    ]
    router = Router(SOURCE, [(REGISTRY.views["exact"], Version(PLAN, "salted", "ready"))])
    routed = router(gated([*events, *events[:100]]))
    (batch,) = routed.micro_batch.views
    ids = batch.records["id64"].tolist()
    tags = [
        partial_tags(PLAN, [event.key])[id64 % 8] for event, id64 in zip([*events, *events[:100]], ids, strict=True)
    ]
    assert batch.tags == tags
    assert len({tag for tag in tags if "|hot|" in tag}) == 8
    figures = Figures("salted", "tiles", now=lambda: 1_000 * SECOND)
    figures.seen(routed)
    hottest = msgspec.json.decode(together([figures._part(1_000 * SECOND)])["hot"])
    assert (hottest["entity"], hottest["share"], hottest["keys"]) == ("rtml:{key|hot}", 0.75, 101)
