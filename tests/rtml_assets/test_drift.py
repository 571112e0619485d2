"""Which rows drift is told from, what becomes of the figures, and the pages: over real tables, without a stream."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from rtml.errors import DefinitionError, NotReadyError
from rtml.instants import to_instant
from rtml.lake import Lake, training_schema
from rtml.registry import Registry, load
from rtml.settings import Settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.drift_checks import drift_of, drift_result
from rtml_assets.tables import drift as drift_module
from rtml_assets.tables.delta import Built, append, rebuild_days
from rtml_assets.tables.drift import FIGURES, Drifts, drift, write_page
from rtml_assets.tables.served import service_schema
from rtml_assets.tables.training_days import training_meaning

FEATURES = str(Path(__file__).parents[1] / "end_to_end" / "baskets.py")
TODAY = date(2024, 3, 9)
DAY, WEEK_BEFORE = date(2024, 3, 8), date(2024, 3, 1)
FINGERPRINT_OF_OTHERS = "000000000000.1"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load(FEATURES)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def values(seed: int, count: int, price: float = 10.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "basket__count_3h": rng.integers(1, 6, count),
        "basket__price_mean_3h": rng.normal(price, 2, count),
        "basket__pieces_sum_3h": rng.integers(1, 12, count),
    }


def serve(lake: Lake, registry: Registry, day: date, count: int = 200, price: float = 10.0, version: str = "") -> None:
    """Log vectors as servers do."""
    schema = service_schema(registry.service("checkout"), registry.plans)
    version = version or f"{registry.plans['basket'].fingerprint}.1"
    given = {**values(day.toordinal() + count, count, price), "basket__version": [version] * count}
    rows = pl.DataFrame(given).with_columns(service_version=pl.lit(1, pl.Int64), event_date=pl.lit(day))
    absent = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns]
    append(
        lake.served("checkout"), rows.with_columns(absent).select(pl.col(name).cast(schema[name]) for name in schema)
    )


def train(lake: Lake, registry: Registry, days: list[date], count: int = 200, meaning: str = "") -> None:
    """Build days of the training set."""
    schema = training_schema(registry.service("checkout"), registry.plans)
    meaning = meaning or training_meaning(registry, "checkout")
    frames = []
    for day in days:
        rows = pl.DataFrame(values(day.toordinal(), count)).with_columns(event_date=pl.lit(day))
        frames.append(rows.with_columns(pl.lit(None, kind).alias(n) for n, kind in schema.items() if n not in rows))
    rows = pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in schema.items())
    rebuild_days(lake.training("checkout"), schema, meaning, lambda: Built(rows, dict.fromkeys(days, count), None))


def look(lake: Lake, registry: Registry, **given: Any) -> Drifts:
    return drift(lake, registry, "checkout", **{"today": TODAY, **given})


def test_nothing_to_compare_passes_and_says_why(lake: Lake, registry: Registry) -> None:
    nothing = drift_result(look(lake, registry))
    assert nothing.passed
    assert nothing.description == "nothing was compared: Nothing that checkout served is logged yet."
    serve(lake, registry, DAY)
    found = look(lake, registry)
    assert found.told == (
        "Served now: 200 rows of 2024-03-08.",
        "Not compared with training: training/checkout is not built yet.",
        "Not compared with the week before: nothing that was served on 2024-03-01 to 2024-03-07 is logged.",
    )
    result = drift_result(found)
    assert result.passed
    assert (result.description or "").startswith(
        "nothing was compared: Served now: 200 rows of 2024-03-08. Not compared with"
    )
    assert write_page(lake, found) is None
    train(lake, registry, [WEEK_BEFORE], meaning="checkout other")
    serve(lake, registry, WEEK_BEFORE, version=FINGERPRINT_OF_OTHERS)
    assert look(lake, registry).told[1:] == (
        "Not compared with training: training/checkout is of another meaning than now; build it again.",
        "Not compared with the week before: 2024-03-01 is of another meaning or version.",
    )
    alone = look(lake, registry, day=WEEK_BEFORE)
    assert alone.told == ("Nothing served on 2024-03-01 is of the meaning and version that checkout has now.",)
    with pytest.raises(DefinitionError, match="service 'quiet' has drift=None"):
        drift(lake, registry, "quiet", today=TODAY)


def test_a_day_that_is_not_over_is_looked_at_only_where_there_is_no_other(lake: Lake, registry: Registry) -> None:
    serve(lake, registry, TODAY)
    assert look(lake, registry).day == TODAY
    serve(lake, registry, DAY)
    assert look(lake, registry).day == DAY
    assert look(lake, registry, day=TODAY).day == TODAY
    with pytest.raises(NotReadyError, match=r"served on 2024-03-07 is logged\. Did you mean '2024-03-0[89]'"):
        look(lake, registry, day=date(2024, 3, 7))


def test_days_of_few_rows_are_joined_and_so_are_those_a_week_before(lake: Lake, registry: Registry) -> None:
    for back in (0, 1, 3, 7, 10):
        serve(lake, registry, DAY - timedelta(days=back), count=40)
    found = look(lake, registry)
    assert found.told[0] == "Served now: 120 rows of 2024-03-05 to 2024-03-08."
    assert found.told[2] == "The week before: 80 rows of 2024-02-27 to 2024-03-01."
    assert {one.note for one in found.features} == {"too few rows: 80 of the 100 that a verdict takes"}
    result = drift_result(found)
    assert result.passed
    assert result.metadata["too_few"].value == 3
    assert "worst_psi" not in result.metadata
    page = write_page(lake, found)
    assert page is not None
    assert "too few rows" in page.read_text()


def test_the_newest_training_days_before_what_was_served_are_looked_at(lake: Lake, registry: Registry) -> None:
    serve(lake, registry, DAY)
    days = [DAY - timedelta(days=back) for back in range(-2, 40)]
    train(lake, registry, days[:3], count=50)
    assert look(lake, registry).told[1] == "Training: 150 rows of 2024-03-08 to 2024-03-10.", "there are no others"
    train(lake, registry, days, count=50)
    found = look(lake, registry)
    assert found.told[1] == "Training: 1,000 rows of 2024-02-09 to 2024-03-07.", "of 28 days"
    assert not found.drifted
    assert look(lake, registry).features == found.features, "the same rows every time"


def test_a_feature_that_drifted_is_named_kept_and_plotted(lake: Lake, registry: Registry) -> None:
    train(lake, registry, [WEEK_BEFORE])
    serve(lake, registry, WEEK_BEFORE)
    serve(lake, registry, DAY - timedelta(days=1))
    assert not look(lake, registry).drifted
    serve(lake, registry, DAY, price=14.0)
    found = look(lake, registry)
    assert {name: [one.reference for one in some] for name, some in found.drifted.items()} == {
        "basket__price_mean_3h": ["training", "week"]
    }
    assert [len(trend) for trend in found.trends.values()] == [2] * 6
    assert found.trends["basket__price_mean_3h", "week"][0] < 0.2 < 1 < found.trends["basket__price_mean_3h", "week"][1]  # type: ignore[operator]
    kept = pl.read_delta(lake.drift("checkout"))
    assert dict(kept.schema) == FIGURES
    assert kept.height == 6 + 6
    again = look(lake, registry)
    assert again == found
    assert pl.read_delta(lake.drift("checkout")).sort("event_date", "feature", "reference").equals(
        kept.sort("event_date", "feature", "reference")
    )  # fmt: skip
    result = drift_result(found, "http://here/quality/drift/checkout/2024-03-08.html")
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR, "its severity is critical"
    assert (result.description or "").startswith(
        "2024-03-08: 1 of 3 features drifted. basket__price_mean_3h against training: psi "
    )
    shown: dict[str, Any] = {name: value.value for name, value in result.metadata.items()}
    assert shown["drifted"] == 1
    assert shown["compared"] == 6
    assert shown["worst_ks"] > 0.5 > shown["worst_nulls"]
    assert shown["report"].endswith("/quality/drift/checkout/2024-03-08.html")
    rows = shown["features"].splitlines()
    assert rows[2].startswith("| `basket__price_mean_3h` ✗ | ")
    assert rows[2].count("![](data:image/svg+xml;base64,") == rows[2].count("](") >= 1
    assert len(rows) == 5
    assert max(len(row) for row in rows) < 2_500


def test_what_the_days_of_training_show_among_themselves_is_usual(lake: Lake, registry: Registry) -> None:
    """Prices that jump from day to day are no drift where they did so before."""
    days = [DAY - timedelta(days=back) for back in range(1, 7)]
    for number, day in enumerate(days):
        serve(lake, registry, day, price=10.0 + 2 * (number % 3))
    serve(lake, registry, DAY, price=14.0)
    found = look(lake, registry)
    assert not found.drifted
    psi = {one.feature: one.of("psi") for one in found.features}
    assert (psi["basket__price_mean_3h"] or 0) > 0.2, "and yet it is no drift"
    serve(lake, registry, TODAY, price=25.0)
    assert list(look(lake, registry, day=TODAY).drifted) == ["basket__price_mean_3h"]


def test_pages_are_kept_for_some_days_and_the_newest_is_the_index(
    lake: Lake, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_module, "PAGES", 2)
    train(lake, registry, [date(2024, 2, 1)])
    days = [DAY - timedelta(days=back) for back in (2, 0, 1)]
    for day in days:
        serve(lake, registry, day)
        assert write_page(lake, look(lake, registry, day=day)) is not None
    folder = Path(lake.root) / "quality" / "drift" / "checkout"
    assert {page.name for page in folder.iterdir()} == {"index.html", "2024-03-07.html", "2024-03-08.html"}
    assert (folder / "index.html").read_text() == (folder / "2024-03-08.html").read_text()
    assert 'href="2024-03-07.html"' in (folder / "2024-03-07.html").read_text()
    found = look(lake, registry)
    assert write_page(Lake("memory://lake"), found) is None, "an object store has no pages"


def test_every_service_that_logs_is_looked_at_once_a_day(tmp_path: Path, registry: Registry) -> None:
    deployment = Deployment(Settings(home=str(tmp_path), redis_url="redis://127.0.0.1:1/0"), registry)
    definitions = definitions_of(deployment)
    schedules = {schedule.name: schedule.cron_schedule for schedule in definitions.schedules or ()}  # type: ignore[union-attr]
    assert [name for name in schedules if name.startswith("drift")] == ["drift_checkout_schedule"]
    assert schedules["drift_checkout_schedule"] == "10 4 * * *"
    checking = drift_of(deployment, registry.service("checkout"), now=lambda: to_instant(TODAY))
    job = dg.Definitions(asset_checks=checking.checks, jobs=[checking.job]).resolve_job_def("drift_checkout")
    with pytest.raises(Exception, match=r"day must be a date such as 2024-03-01; got 'yesterday'"):
        job.execute_in_process(run_config={"ops": {"served__checkout_drift": {"config": {"day": "yesterday"}}}})
    serve(deployment.lake, registry, TODAY)
    serve(deployment.lake, registry, DAY)
    (evaluation,) = job.execute_in_process().get_asset_check_evaluations()
    assert evaluation.metadata["day"].value == str(DAY), "the day by the clock is not over"
