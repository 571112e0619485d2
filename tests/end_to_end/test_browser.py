"""What a user sees of a running project in a real browser: Dagster's pages, a check's report, the SLA and API pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from rtml.columns import TIMESTAMP
from rtml.instants import now, to_datetime
from rtml.lake import Lake
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.defs.materialize import CompactionError, materialize_days
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.project import Project
from rtml_assets.tables.land import land
from streaming.broker import connect
from streaming.producer import Producer
from tests.browser import asked, chromium, faults, resize, texts
from tests.serving.online import eventually

FEATURES = str(Path(__file__).parent / "kiosks.py")
REGISTRY = load(FEATURES)
SALES = REGISTRY.source("sales")
PATIENCE = 120.0
"""Seconds: Dagster starts, and its sensors look every quarter of a minute."""


def sales_of(first: datetime, price: float, count: int = 60) -> pl.DataFrame:
    """One sale a second; every tenth costs a hundred times as much where the price is in cents."""
    times = [first + timedelta(seconds=number) for number in range(count)]
    frame = pl.DataFrame(
        {
            "sale_id": [f"{first:%d-%H%M%S}-{number}" for number in range(count)],
            "at": times,
            "kiosk": [f"k{number % 3}" for number in range(count)],
            "price": [price + number % 7 for number in range(count)],
        }
    )
    return frame.with_columns(pl.col("at").cast(TIMESTAMP))


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


class Running:
    """A project that was started once for all tests, with a good day, a bad one, and events that are coming in."""

    def __init__(self, project: Project, today: date) -> None:
        self.project = project
        self.good, self.bad = today - timedelta(days=2), today - timedelta(days=1)

    def build(self) -> None:
        """Land both days and build them, as Dagster would in the hour; the bad one is blocked."""
        settings = self.project.settings
        history = pl.concat([sales_of(noon(self.good), 3.0), sales_of(noon(self.bad), 300.0)])
        with connect(settings) as client:
            land(Lake(settings.lake_root), client, SALES, history.with_columns(ingested_at="at"))
            Producer(client, SALES).send(sales_of(to_datetime(now()) - timedelta(seconds=30), 3.0, 30))
        with (
            dg.DagsterInstance.from_config(str(settings.home_path / "dagster")) as instance,
            pytest.raises(CompactionError, match="price_in_euros"),
        ):
            materialize_days(settings, REGISTRY, instance=instance)

    def check_page(self, name: str) -> str:
        return f"{self.project.dagster_url}/assets/events/sales?view=checks&checkDetail={name}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        features=FEATURES,
        home=str(tmp_path_factory.mktemp("pages")),
        port=free_port(),
        dagster_port=free_port(),
        tile_epoch="200ms",
        mirror_epoch="200ms",
        watch_interval="500ms",
    )
    with Project(settings, ["sales"], embedded=True) as project:
        project.start_redis()
        project.start()
        running = Running(project, to_datetime(now()).date())
        running.build()
        project.wait_ready(PATIENCE)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as started:
        resize(started, 1600, 1000)
        yield started


def reads(browser: webdriver.Chrome, *words: str) -> bool:
    """Say whether all words are on the page."""
    (text,) = texts(browser, "body") or [""]
    return all(word in text for word in words)


def forget(browser: webdriver.Chrome) -> None:
    """Leave what pages before have asked for, and said on the console."""
    browser.get("about:blank")
    asked(browser)
    faults(browser)


def elsewhere(browser: webdriver.Chrome, running: Running) -> list[str]:
    """Return the requests that went to another than the feature server."""
    own = (f"{running.project.server_url}/", "data:", "about:")
    return [url for url in asked(browser) if not url.startswith(own)]


def test_the_asset_graph_shows_the_road_of_the_data_and_where_it_is_blocked(running, browser):
    browser.get(f"{running.project.dagster_url}/asset-groups")
    eventually(lambda: reads(browser, "Global asset lineage", "kiosk_sales", "sales", "served", "services"), PATIENCE)
    browser.get(f"{running.project.dagster_url}/locations/rtml/asset-groups/sales/lineage")
    eventually(lambda: reads(browser, "bytewax Delta Lake", "bytewax Redis", "2 / 6 Passed", "(1 failed)"), PATIENCE)


def test_a_failing_and_a_passing_check_say_why(running, browser):
    browser.get(running.check_page("price_known"))
    eventually(lambda: reads(browser, "Evaluation result Passed", "unexpected_percent 0"), PATIENCE)
    browser.get(running.check_page("price_in_euros"))
    # The day after was built: it passes, and the bad day still waits.
    eventually(lambda: reads(browser, "Evaluation result Failed", "failed_days 1"), PATIENCE)
    assert reads(
        browser, "This is a blocking asset check", f"{running.bad}: not built, what it held then is in quarantine"
    )


def test_the_report_that_a_check_links_to_is_served_and_styled_from_here(running, browser):
    browser.get(running.check_page("price_in_euros"))
    link = f"a[href^='{running.project.server_url}/quality/']"
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, link), PATIENCE)
    report = browser.find_element(By.CSS_SELECTOR, link).get_attribute("href")
    forget(browser)
    browser.get(report)
    assert reads(browser, "price_in_euros", str(running.bad), "300")
    weight = "return [...document.styleSheets].reduce((sum, one) => sum + one.cssRules.length, 0)"
    assert browser.execute_script(weight) > 50
    # Of itself the browser asks for an icon.
    assert [fault for fault in faults(browser) if "/favicon.ico " not in fault] == []
    assert elsewhere(browser, running) == []


def test_the_sla_page_shows_the_failing_check_beside_what_is_live(running, browser):
    forget(browser)
    browser.get(running.project.server_url)
    alert = "#alerts article[data-alert=check_failed]"
    eventually(lambda: texts(browser, alert), PATIENCE)
    (said,) = texts(browser, alert)
    assert "check failed check:events/sales:price_in_euros" in said
    assert f"{running.bad}: not built, what it held then is in quarantine" in said
    assert texts(browser, "#platform .value")[:2] == ["●up", "●ready"]
    assert texts(browser, ".list th[scope=row] button") == ["sales", "kiosk_sales", "pricing"]
    (quality,) = texts(browser, "[data-target='source:sales'] [data-label=quality]")
    assert quality == "▲1 of 3 checks failed price_in_euros"
    eventually(lambda: texts(browser, "[data-target='service:pricing'] [data-label=p99]")[0].endswith("own request"))
    assert faults(browser) == []
    assert elsewhere(browser, running) == []
    job = browser.find_element(By.CSS_SELECTOR, "#alerts article[data-alert=run_failed] .links a:last-of-type")
    where = job.get_attribute("href")
    browser.find_element(By.CSS_SELECTOR, f"{alert} .links a:last-of-type").click()
    eventually(lambda: reads(browser, "price_in_euros", "Evaluation result Failed"), PATIENCE)
    browser.get(str(where))
    eventually(lambda: reads(browser, "Jobs / compact_sales", "Job in rtml"), PATIENCE)


def test_the_api_page_reads_the_features_of_what_just_came_in(running, browser):
    browser.get(running.project.server_url)
    browser.find_element(By.LINK_TEXT, "API").click()
    eventually(lambda: texts(browser, "#ready") == ["ready"])
    eventually(lambda: texts(browser, "#list h3") == ["pricing"])
    browser.find_element(By.CSS_SELECTOR, "#entities input").send_keys("k1")
    browser.find_element(By.CSS_SELECTOR, "button.main").click()
    eventually(lambda: texts(browser, "#answer tr"))
    assert texts(browser, "#answer tr")[:3] == ["k1", "kiosk_sales fresh", "count_1h 10"]
    assert "/v1/sla" in " ".join(texts(browser, "#operations summary code"))
    browser.find_element(By.LINK_TEXT, "Platform").click()
    eventually(lambda: browser.find_elements(By.ID, "verdict"))
