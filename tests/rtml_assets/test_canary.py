"""The canary's recompute against brute force: what some cut through the events explains agrees, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.instants import HOUR, MINUTE
from rtml.lake import PUBLISHED_TO, Lake, of_view, served_schema
from rtml.plan import Plan
from rtml_assets.tables.canary import Checked, check_vectors
from rtml_assets.tables.cuts import MOST
from streaming.versions import Version
from tests import oracle
from tests.oracle import Event
from tests.rtml_assets.orders import LATENESS, generate, plan_of, shop_orders, to_frame

PLAN = plan_of(shop_orders)


@dataclass(frozen=True)
class World:
    """What two partitions hold of one shop, and how far a server has read each of them."""

    events: list[Event]
    seen: list[Event]
    watermark: int
    at: int
    plan: Plan

    @staticmethod
    def random(rng: random.Random, apart: int, partitions: int) -> World:
        events = oracle.counted(generate(rng.randrange(2**32), 300, days=1.5, shops=["a"]), LATENESS)
        if rng.random() < 0.5:  # many of one instant of arrival, and no longer late or early for it
            events = [Event(e.key, e.time, e.id64, -(-e.ingested // HOUR) * HOUR, e.values) for e in events]
            events = oracle.counted(events, LATENESS)
        arrived = sorted(events, key=lambda event: (event.ingested, rng.random()))
        parts = [arrived[0::2], arrived[1::2]] if partitions == 2 else [arrived]
        end = rng.randrange(len(arrived) // 3, len(arrived))
        read = [part[: max(1, end // partitions - rng.randrange(apart + 1))] for part in parts]
        seen = [event for part in read for event in part]
        at = max(event.time for event in seen) + rng.choice([1, MINUTE, HOUR])
        watermark = min(part[-1].ingested for part in read)
        return World(events, seen, watermark, at, msgspec.structs.replace(PLAN, partitions=partitions))

    @property
    def last(self) -> int:
        return max(event.ingested for event in self.seen)

    @property
    def doubtful(self) -> int:
        return sum(self.watermark <= event.ingested <= self.last for event in self.events)

    def window(self, name: str, seen: Sequence[Event] | None = None) -> list[Event]:
        feature = self.plan.feature(name)
        floor = 1 if feature.exact else self.plan.tiles.finest
        return oracle.window(self.seen if seen is None else seen, "a", self.at, feature.window, floor, feature.offset)

    def served(self, seen: Sequence[Event] | None = None, **changes: Any) -> pl.DataFrame:
        """Return the vector as it is logged."""
        values = {
            f"shop_orders__{feature.name}": oracle.value(
                feature.aggregate, self.window(feature.name, seen), feature.column
            )
            for feature in self.plan.features
        }
        row = {
            **values,
            "shop": "a",
            "timestamp": self.at,
            "watermark": self.watermark,
            "shop_orders__last_ingested": self.last,
            "shop_orders__status": "fresh",
            **changes,
        }
        columns = [(PLAN.view, feature.name) for feature in self.plan.features]
        schema = served_schema([self.plan], columns)
        series = [
            pl.Series(name, [row.get(name)], dtype=pl.Int64).cast(TIMESTAMP)
            if kind == TIMESTAMP
            else pl.Series(name, [row.get(name)], dtype=kind)
            for name, kind in schema.items()
        ]
        return pl.DataFrame(series)

    def check(self, rows: pl.DataFrame, **version_changes: Any) -> Checked:
        def load(_lake: Lake, _source: EventSource, days: Sequence[date]) -> pl.LazyFrame:
            ids = pl.Series("id64", [event.id64 for event in self.events], dtype=pl.UInt64)
            frame = to_frame(self.events).with_columns(ids, event_date=pl.col("at").dt.date())
            return frame.lazy().filter(pl.col("event_date").is_in(list(days)))

        features = [feature.name for feature in self.plan.features]
        version = Version(self.plan, f"{self.plan.fingerprint}.1", "ready", **version_changes)
        return check_vectors(Lake("/nowhere"), shop_orders, self.plan, version, features, rows, load=load)


SEEDS = st.integers(0, 2**32)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=SEEDS, apart=st.sampled_from([0, 1, 3, 30]), partitions=st.sampled_from([1, 2]))
def test_whatever_the_server_may_have_seen_agrees(seed: int, apart: int, partitions: int) -> None:
    world = World.random(random.Random(seed), apart, partitions)
    parity = world.check(world.served()).parity
    assert parity.agrees, str(parity)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=SEEDS, apart=st.sampled_from([0, 1, 3, 30]), partitions=st.sampled_from([1, 2]))
def test_a_value_that_no_cut_explains_differs_and_alone(seed: int, apart: int, partitions: int) -> None:
    """However many events are doubtful."""
    rng = random.Random(seed)
    world = World.random(rng, apart, partitions)
    name = rng.choice(["count_24h", "items_sum_24h", "price_min_24h", "price_mean_24h", "items_last_24h"])
    wrong: dict[str, Any] = {f"shop_orders__{name}": 100_000}
    parity = world.check(world.served(**wrong)).parity
    assert [feature.feature for feature in parity.features if not feature.agrees] == [f"shop_orders__{name}"]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=SEEDS, apart=st.sampled_from([0, 1, 3]), partitions=st.sampled_from([1, 2]))
def test_a_certain_event_that_was_not_counted_is_found(seed: int, apart: int, partitions: int) -> None:
    rng = random.Random(seed)
    world = World.random(rng, apart, partitions)
    certain = [e for e in world.window("count_24h") if e.ingested < world.watermark and e.values["price"] is not None]
    if not certain or world.doubtful > MOST:
        return
    lost = rng.choice(certain)
    parity = world.check(world.served([event for event in world.seen if event is not lost])).parity
    assert not parity.agrees


def test_of_one_partition_only_the_last_instant_is_doubtful() -> None:
    """An event less is explained where another partition may have been behind, and not where there is only one."""
    values = {"till": 0, "big": False, "items": 1}
    start = 1_709_280_000_000_000
    events = [
        Event("a", start + n, n, start + MINUTE + n, {**values, "id": f"x{n}", "price": n + 0.5}) for n in range(4)
    ]
    for partitions, agrees in ((1, False), (2, True)):
        plan = msgspec.structs.replace(PLAN, partitions=partitions)
        world = World(events, events, start + MINUTE + 1, start + HOUR // 4, plan)
        fewer = [event for event in events if event.id64 != 2]
        parity = world.check(world.served(fewer)).parity
        assert parity.agrees == agrees, str(parity)
        assert bool(parity.total("unsettled")) == agrees
        assert not world.check(world.served(events[1:])).parity.agrees, "the first is before the watermark"
        assert not world.check(world.served(events[:3])).parity.agrees, "the last is what last_ingested tells of"


@pytest.mark.parametrize("salts", [1, 3])
def test_amid_a_publication_each_partial_state_has_all_late_events_or_none(salts: int) -> None:
    """However many they are: of an entity without salts there is only before and after."""
    start = 1_709_280_000_000_000
    values = {"till": 0, "big": False, "items": 1}
    on_time = [Event("a", start, 9, start, {**values, "id": "x", "price": 0.5})]
    late = [
        Event("a", start + n, n, start + 2 * HOUR + n, {**values, "id": f"y{n}", "price": 2.0**n}) for n in range(10)
    ]
    plan = msgspec.structs.replace(PLAN, salts=salts)
    world = World(on_time + late, on_time, start + 1, start + 3 * HOUR, plan)
    before, after = start + HOUR, late[-1].ingested
    for chosen in product([False, True], repeat=3):
        served = [*on_time, *(event for event in late if chosen[event.id64 % 3])]
        checked = world.check(world.served(served, **{of_view(PLAN.view, PUBLISHED_TO): before}), published_to=after)
        whole = len(set(chosen)) == 1
        assert checked.parity.agrees == (whole or salts == 3), str(checked.parity)
        assert checked.publishing == all(chosen)
        assert not checked.parity.agrees or bool(checked.parity.total("unsettled")) != whole
    torn = world.served([*on_time, *late[:2]], **{of_view(PLAN.view, PUBLISHED_TO): before})
    assert not world.check(torn, published_to=after).parity.agrees, "a partial state is published at once"
