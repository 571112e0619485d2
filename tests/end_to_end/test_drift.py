"""Drift over a whole platform: two populations are served, and the feature that moved is named and shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from rtml.columns import TIMESTAMP
from rtml.instants import DAY, HOUR, MINUTE, to_datetime, to_instant
from rtml.lake import Lake
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.compaction import range_tags
from rtml_assets.defs.deployment import Deployment
from rtml_assets.testing import LocalPlatform

DEFINITIONS = str(Path(__file__).parent / "baskets.py")
FIRST = to_instant("2024-03-01T10:00:00Z")
CUSTOMERS = 120


def baskets(at: int, price: float) -> pl.DataFrame:
    """What each customer takes within half an hour, and that all pay an hour later."""
    rng = np.random.default_rng(at)
    rows: list[dict[str, Any]] = []
    for customer in range(CUSTOMERS):
        taken = [(at + int(rng.integers(30 * MINUTE)), False) for _ in range(rng.integers(1, 6))]
        rows += [
            {
                "item_id": f"{at}-{customer}-{number}",
                "at": time,
                "customer": customer,
                "price": float(rng.normal(price, 2)),
                "pieces": int(rng.integers(1, 4)),
                "paid": paid,
            }
            for number, (time, paid) in enumerate([*taken, (at + HOUR + customer, True)])
        ]
    return pl.DataFrame(rows).with_columns(pl.col("at").cast(TIMESTAMP)).sort("at")


def live(platform: LocalPlatform, at: int, price: float) -> None:
    """Customers take things, and the model is asked before they pay."""
    rows = baskets(at, price)
    platform.send("items", rows.filter(~pl.col("paid")), ingested_at="at")
    platform.settle()
    entities = [{"customer": customer} for customer in range(CUSTOMERS)]
    platform.online("checkout", entities, at=to_datetime(at + 31 * MINUTE))
    platform.send("items", rows.filter(pl.col("paid")), ingested_at="at")
    platform.settle()


def run(platform: LocalPlatform, job: str, **given: Any) -> dg.ExecuteInProcessResult:
    definitions = definitions_of(Deployment(platform.settings, platform.registry))
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(job).execute_in_process(instance=instance, **given)


@pytest.fixture(scope="module")
def evaluations() -> Iterator[tuple[dg.AssetCheckEvaluation, dg.AssetCheckEvaluation, Path]]:
    """What the check came to on the day before the prices rose and on the day when they did, and the pages' folder."""
    with LocalPlatform(DEFINITIONS) as platform:
        for day, price in ((0, 10.0), (1, 10.0), (7, 10.0), (8, 13.0)):
            live(platform, FIRST + day * DAY, price)
        platform.compact()
        days = [to_datetime(FIRST + day * DAY).date() for day in (0, 1)]
        assert run(platform, "training_checkout", tags=range_tags(*days)).success
        found = [
            run(platform, "drift_checkout", run_config=config).get_asset_check_evaluations()
            for config in ({"ops": {"served__checkout_drift": {"config": {"day": "2024-03-08"}}}}, None)
        ]
        yield found[0][0], found[1][0], Path(Lake(platform.lake).root) / "quality" / "drift" / "checkout"


def test_a_feature_that_moved_is_named_and_no_other(evaluations: Any) -> None:
    before, after, _ = evaluations
    figures = {name: value.value for name, value in before.metadata.items()}
    assert before.passed, before.description
    assert figures["told"] == (
        "Served now: 120 rows of 2024-03-08. Training: 240 rows of 2024-03-01 to 2024-03-02. "
        "The week before: 240 rows of 2024-03-01 to 2024-03-02."
    )
    assert not after.passed
    assert (after.asset_key, after.check_name) == (dg.AssetKey(["served", "checkout"]), "drift")
    assert after.severity == dg.AssetCheckSeverity.ERROR
    words = after.description or ""
    assert words.startswith("2024-03-09: 1 of 3 features drifted. basket__price_mean_3h against ")
    assert "basket__price_mean_3h against training: psi" in words
    assert "basket__price_mean_3h against week: psi" in words
    assert "count_3h" not in words
    assert "pieces" not in words
    figures = {name: value.value for name, value in after.metadata.items()}
    assert (figures["drifted"], figures["compared"]) == (1, 6)
    assert figures["worst_psi"] > 1


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_the_page_shows_what_moved_first(evaluations: Any, browser: webdriver.Chrome) -> None:
    _, _, folder = evaluations
    browser.set_window_size(1200, 1400)
    browser.get(f"{(folder / 'index.html').as_uri()}")
    assert texts(browser, "h1") == ["drift of checkout 2024-03-09"]
    assert texts(browser, "header .badge") == ["1 of 3 features drifted"]
    assert texts(browser, "article h2")[0] == "basket__price_mean_3h drifted, critical"
    assert {words.split()[-1] for words in texts(browser, "article h2")[1:]} == {"bounds"}
    assert texts(browser, "article:first-of-type figcaption") == ["against training", "against week"]
    assert {row.split()[0] for row in texts(browser, "tr.bad")} == {"psi", "ks", "js"}
    drawn = browser.find_elements(By.CSS_SELECTOR, "figure > svg rect.now")
    assert max(bar.size["height"] for bar in drawn) > 50, "the bars are as high as the picture"
    assert browser.find_elements(By.CSS_SELECTOR, "nav a")[1].text == "2024-03-08"
    browser.find_elements(By.CSS_SELECTOR, "nav a")[1].click()
    assert texts(browser, "header .badge") == ["none of 3 features drifted"]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_schemes(evaluations: Any, browser: webdriver.Chrome, scheme: str) -> None:
    _, _, folder = evaluations
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{(folder / 'index.html').as_uri()}")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    ground, ink = (
        browser.execute_script(f"return getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("backgroundColor", "color")
    )
    assert (sum(ground) > sum(ink)) == (scheme == "light")
    assert abs(sum(ground) - sum(ink)) > 450, "what is written can be read"
