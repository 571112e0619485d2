"""The checks of tiles as Dagster runs them: real runs, a real Redis, faults that are planted in one road."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
import pytest

from rtml.instants import DAY, to_instant
from rtml.lake import Lake
from rtml.online import keys
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.parity_checks import STREAM, TILES
from streaming.positions import Position, raise_position
from streaming.table_replay import replay_table
from tests.rtml_assets.orders import REGISTRY, generate, shop_orders, to_frame
from tests.rtml_assets.test_events import mirror
from tests.rtml_assets.test_parity import alter, compact

EVENTS = generate(11)


def mirror_up_to(client: Any, until: int) -> None:
    for partition in (0, 1):
        raise_position(client, keys.mirrored("orders"), partition, Position("1-0", until))


@pytest.fixture
def days(lake: Lake, client: Any) -> list[date]:
    """Four days, of which the last is not over."""
    mirror_up_to(client, EVENTS[-1].ingested)
    return compact(lake, EVENTS)


@pytest.fixture
def run(settings: Any) -> Iterator[Any]:
    """Run a view's job, and return what its checks came to."""
    with dg.DagsterInstance.ephemeral() as instance:

        def run(view: str = "shop_orders", day: str = "") -> dict[str, dg.AssetCheckEvaluation]:
            config = {f"tiles__{view}_{name}": {"config": {"day": day}} for name in (TILES, STREAM)}
            job = definitions_of(Deployment(settings, REGISTRY)).resolve_job_def(f"parity_{view}")
            result = job.execute_in_process(
                instance=instance,
                run_config={"ops": config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            return {found.check_name: found for found in result.get_asset_check_evaluations()}

        yield run


def figures_of(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


@pytest.mark.parametrize("view", REGISTRY.views)
def test_clean_data_passes_with_figures(run: Any, days: list[date], view: str) -> None:
    for evaluation in run(view).values():
        assert evaluation.passed, evaluation.description
        figures = figures_of(evaluation)
        assert figures["day"] == str(days[-2]), "the last day is not over"
        assert figures["compared"] == figures["equal"] > 100
        assert [figures[name] for name in ("differing", "missing", "unsettled")] == [0, 0, 0]
        assert 0 <= figures["largest_difference"] < 1e-3
        assert f"| `{view}__count` | " in figures["features"]
        assert "worst" not in figures
        assert f"{figures['day']}: " in (evaluation.description or "")


def test_a_row_of_tiles_that_was_changed_fails_both(run: Any, days: list[date], lake: Lake) -> None:
    row = alter(lake, "shop_orders", days[1], 1, **{"items.max": pl.lit(77, dtype=pl.Int64)})
    assert all(evaluation.passed for evaluation in run(day=str(days[0])).values())
    for evaluation in run(day=str(days[1])).values():
        assert not evaluation.passed
        assert evaluation.severity == dg.AssetCheckSeverity.ERROR
        words = evaluation.description or ""
        assert words.startswith(f"{days[1]}: shop_orders__items_max of shop {row['shop']}, tile 1h, start {days[1]}")
        assert "1 of 10 features disagree: shop_orders__items_max (1 differ" in words
        (worst,) = figures_of(evaluation)["worst"].records
        assert (worst.data["shop"], worst.data["tile"]) == (row["shop"], "1h")
        assert "77" in (worst.data["got"], worst.data["expected"])


def test_a_fault_of_the_stream_fails_its_check_alone(
    run: Any, days: list[date], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that leaves one tile out."""

    def faulty(given: Any, lake: Any, source: Any, views: Any, **arguments: Any) -> int:
        read = replay_table(given, lake, source, views, **arguments)
        key = keys.entity_tag("shop", ["a"]) + keys.versioned(shop_orders.name, views[0][1].version)
        stored = client.hgetall(key)
        client.hdel(key, next(name for name, value in sorted(stored.items()) if len(name) == 5 and value[:1] == b"R"))
        return read

    monkeypatch.setattr("streaming.table_replay.replay_table", faulty)
    found = run()
    assert found[TILES].passed
    assert not found[STREAM].passed
    assert "shop_orders__count" in (found[STREAM].description or "")
    assert "of shop a, tile" in (found[STREAM].description or "")
    assert str(days[-2]) in (found[STREAM].description or "")
    assert {record.data["shop"] for record in figures_of(found[STREAM])["worst"].records} == {"a"}
    assert not client.keys("rtml:{*")


def test_nothing_is_compared_before_a_day_is_over(run: Any, lake: Lake, client: Any) -> None:
    for evaluation in run().values():
        assert evaluation.passed
        assert evaluation.description == "nothing was compared: nothing is mirrored yet"
    days = compact(lake, EVENTS)
    mirror_up_to(client, to_instant(days[0]) + DAY)
    for evaluation in run().values():
        assert evaluation.passed
        assert evaluation.description == (
            f"nothing was compared: of the {len(days)} days that raw/ has rows of none is over yet"
        )
        figures = figures_of(evaluation)
        assert (figures["compared"], figures["days"], figures["days_over"]) == (0, len(days), 0)


def test_a_source_that_says_not_how_far_it_is_warns(run: Any, lake: Lake, client: Any) -> None:
    compact(lake, EVENTS)
    assert not client.exists(keys.mirrored("orders"))
    for evaluation in run().values():
        assert not evaluation.passed
        assert evaluation.severity == dg.AssetCheckSeverity.WARN
        assert "not all of the source's partitions say how far they have come" in (evaluation.description or "")


def test_days_that_are_over_and_not_built_warn(run: Any, days: list[date], lake: Lake) -> None:
    mirror(lake, to_frame(generate(12)))
    for evaluation in run().values():
        assert not evaluation.passed
        assert evaluation.severity == dg.AssetCheckSeverity.WARN
        words = f"nothing was compared: {len(days) - 1} days of raw/ are over, and tiles/shop_orders was built from"
        assert (evaluation.description or "").startswith(words)
        assert figures_of(evaluation)["days_over"] == len(days) - 1


def test_a_day_that_is_not_over_cannot_be_asked_for(run: Any, days: list[date]) -> None:
    with pytest.raises(Exception, match=rf"day '{days[-1]}' of view 'shop_orders' is not over, or not built\. Did you"):
        run(day=str(days[-1]))


def test_compaction_does_not_wait_for_parity(settings: Any) -> None:
    definitions = definitions_of(Deployment(settings, REGISTRY))
    names = {node.name for node in definitions.resolve_job_def("compact_orders").nodes}
    assert names == {
        "events__orders",
        *(f"{table}__{view}" for table in ("tiles", "published") for view in REGISTRY.views),
    }
    schedules = {schedule.name: schedule.cron_schedule for schedule in definitions.schedules or ()}  # type: ignore[union-attr]
    assert schedules["canary_sales_schedule"] == "20 * * * *"
    assert schedules["parity_shop_orders_schedule"] == "40 3 * * *"
