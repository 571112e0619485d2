"""History up to the boundary by publish, from there on by the stream: no event twice, none left out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtml.instants import DAY, HOUR, MINUTE
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.runtime.supervisor import Child, Supervisor
from rtml_assets.store import FeatureStore
from rtml_assets.tables.canary import canary
from rtml_assets.tables.land import land
from serving.feature_log import FeatureLog
from streaming.positions import Position, raise_position, read_positions
from streaming.producer import Producer
from streaming.versions import find_version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets import orders as definitions
from tests.rtml_assets.orders import (
    LATENESS,
    REGISTRY,
    START,
    differences,
    entity_of,
    generate,
    orders,
    plan_of,
    sales,
    seen_by,
    shop_orders,
    till_orders,
    to_frame,
)

ROOT = Path(__file__).resolve().parents[2]
SKEW = MINUTE
VIEWS = [shop_orders, till_orders]
EVENTS = generate(21, 1500, days=4)


@pytest.fixture
def streaming(settings: Any, client: Any, tmp_path: Path) -> Iterator[Supervisor]:
    """The two flows, to be started when history is published."""
    stamped = msgspec.structs.replace(
        settings, features=definitions.__file__, accept_stamps=True, mirror_epoch="200ms", home=str(tmp_path)
    )
    environment = {**os.environ, **stamped.environment(), "PYTHONPATH": str(ROOT)}
    children = [
        Child(flow, (sys.executable, "-m", "streaming", "orders", "--flow", flow), environment)
        for flow in ("tiles", "mirror")
    ]
    supervisor = Supervisor(children, tmp_path / "logs")
    yield supervisor
    supervisor.stop()


def raise_mirrored(client: Any, instant: int) -> None:
    """Say that nothing else is to come up to an instant."""
    for partition, position in enumerate(read_positions(client, keys.mirrored("orders"), 2)):
        raise_position(client, keys.mirrored("orders"), partition, Position(position.offset, instant))


def wait_until_both_flows_passed(client: Any, stamp: int) -> None:
    deadline = time.monotonic() + 60
    names = (keys.position("orders"), keys.mirrored("orders"))
    while any(p.offset == "0-0" or p.ingested_at < stamp for key in names for p in read_positions(client, key, 2)):
        assert time.monotonic() < deadline, [read_positions(client, key, 2) for key in names]
        time.sleep(0.02)


def compare(settings: Any, events: list[Event], at: int, late_counts: Any) -> int:
    """Compare all features of all entities; `late_counts` says for a view and a late event whether it counts."""
    counted = {
        view.name: [
            event
            for event in oracle.counted(seen_by(view.name, events), LATENESS, late_too=True)
            if event.ingested - event.time <= LATENESS or late_counts(view, event)
        ]
        for view in VIEWS
    }
    entities = list({tuple(entity_of(event).items()): entity_of(event) for event in events}.values())
    log = FeatureLog(Lake(settings.lake_root), HOUR)
    with FeatureStore(settings, log=log) as store:
        assert differences(store.get_online_features("sales", entities, at=at), counted, at) == []
        assert set(store.statuses("sales", entities, at=at)["shop_orders__count_24h"]) <= {"fresh", "stale", "missing"}
    log.flush()
    return len(entities)


def test_every_event_counts_once_on_both_sides_of_the_boundary(settings, lake, client, streaming):
    until = START + 2 * DAY + 7 * HOUR + 3 * MINUTE
    history = [event for event in EVENTS if event.ingested < until]
    land(lake, client, orders, to_frame(history), until=until)
    materialize_days(settings, REGISTRY)
    versions = {view.name: find_version(client, plan_of(view)) for view in VIEWS}
    edges = {name: version.boundary for name, version in versions.items() if version}
    assert edges == {"shop_orders": START + 2 * DAY, "till_orders": START + 2 * DAY + 6 * HOUR}

    streaming.start()
    replayed = [event for event in EVENTS if event.ingested >= min(edges.values()) - SKEW]
    producer = Producer(client, orders, key=("shop",), accept_stamps=True)
    producer.send(to_frame(replayed), ingested_at="ingested_at")
    now = EVENTS[-1].ingested
    wait_until_both_flows_passed(client, now)

    def known_before(view: Any, event: Event) -> bool:
        return event.ingested <= until

    asked = [now, now - LATENESS, now + HOUR, now - 1]
    assert all(compare(settings, EVENTS, at, known_before) > 10 for at in asked)
    summary = materialize_days(settings, REGISTRY)
    assert summary.rows["events/orders"] > 0
    assert all(compare(settings, EVENTS, at, lambda *_: True) > 10 for at in asked)
    again = materialize_days(settings, REGISTRY)
    assert again.days == {"orders": []}
    assert {found["late_new"] for found in again.published.values()} == {0}

    # What is behind the boundary is known to every vector, whatever the stream had of its entity.
    raise_mirrored(client, now + 1)
    found = canary(lake, client, sales, REGISTRY.plans)
    assert found.parity.agrees, str(found.parity)
    assert (found.other_version, found.incomplete) == (0, 0)
    assert found.parity.total("equal") > 1_000
