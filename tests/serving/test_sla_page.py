"""The SLA page in a real browser, over a real server and Redis, with looks as the watch writes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys as Pressed

from rtml import instants
from rtml.instants import SECOND
from rtml.online import keys
from rtml.settings import Settings
from rtml_assets.runtime.keys import create_key
from rtml_assets.watch.report import Report
from rtml_assets.watch.shown import write_redis
from tests.browser import asked, chromium, faults, prefer, resize, texts
from tests.serving.conftest import Served
from tests.serving.looks import report_of, write_hour
from tests.serving.online import REGISTRY, OwnRedis, eventually, fill

STALE_ROWS = "return getComputedStyle(document.getElementById('tables')).opacity"


class Stage:
    """A server over a Redis of its own, and somebody who writes looks there as the watch does."""

    def __init__(self, redis: OwnRedis, client: redis.Redis, served: Served) -> None:
        self.redis, self.client, self.served = redis, client, served
        self.look: Callable[[], Report] | None = lambda: report_of(instants.now())
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}/"

    def watch(self) -> None:
        while not self.stopped.wait(0.5):
            if self.look is not None:
                write_redis(self.client, self.look())


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[Stage]:
    own = OwnRedis()
    served = None
    try:
        client = own.start()
        fill(client)
        write_hour(client, instants.now() - SECOND)
        served = Served(own.url, tmp_path_factory.mktemp("home"))
        stage = Stage(own, client, served)
        watch = threading.Thread(target=stage.watch)
        watch.start()
        try:
            yield stage
        finally:
            stage.stopped.set()
            watch.join()
    finally:
        if served is not None:
            served.end()
        own.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser, stage):
    stage.look = lambda: report_of(instants.now())
    resize(browser, 1600, 1000)
    browser.get(stage.url)
    eventually(lambda: texts(browser, "#verdict") == ["●all is well"])
    return browser


def row(browser: webdriver.Chrome, target: str) -> dict[str, str]:
    labels = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.dataset.label)",
        f"[data-target='{target}'] td",
    )
    return dict(zip(labels, texts(browser, f"[data-target='{target}'] td"), strict=True))


def test_one_screen_shows_every_source_view_and_service(page):
    assert texts(page, "h2") == ["Sources", "Views", "Services"]
    assert texts(page, ".list th[scope=row]") == [
        "purchases ●flowing", "visits ●quiet", "user_purchases ●ready of purchases", "shop_visits ●ready of visits",
        "spending ●ready version 3", "shopping ●ready version 1",
    ]  # fmt: skip
    source = row(page, "source:purchases")
    assert source["freshness"] == "240ms p99; half within 18 ms"
    assert source["lag"] == "640ms ≤ 5 s 77 entries waiting"
    assert source["heartbeat"] == "41ms"
    assert source["events"].startswith("118/s last ")
    assert source["last minute"] == "12 late 3 duplicates 2 refused"
    assert source["quality"] == "●1 check passed oldest 7 min ago"
    assert source["budget left"] == "93% lag"
    view = row(page, "view:user_purchases")
    assert view["freshness"] == "220ms ≤ 1 s"
    assert view["p99"] == "4.2ms ≤ 50 ms of spending"
    assert view["quality"] == "▲1 check failed quality"
    assert view["parity"] == "●2 checks passed oldest 7 min ago"
    service = row(page, "service:spending")
    assert service["p99"] == "4.2ms ≤ 50 ms of the last minute"
    assert service["availability"] == "99.97% ≥ 99 % of 420 requests"
    assert service["budget left"] == "41% p99"
    assert row(page, "service:shopping")["availability"] == "– of 1 request"
    assert texts(page, "#platform .value") == ["●up", "●ready", "●up", "●writable", "●41 GiB free", "●3 run"]
    assert texts(page, "#alerts article") == []
    assert page.execute_script("return document.documentElement.scrollHeight") <= 1000
    assert page.find_elements(By.CSS_SELECTOR, "[data-target='service:spending'] svg path")


def test_it_is_live_and_an_alert_is_on_top_with_its_runbook(page, stage):
    stage.look = lambda: report_of(instants.now(), p99=312.0, lag=12_400.0)
    eventually(lambda: texts(page, "#verdict") == ["▲1 open alert"])
    (alert,) = texts(page, "#alerts article")
    assert alert.startswith("▲warning: serving latency service:spending, for 4 min")
    assert "service 'spending': p99 312 ms, bound 50 ms" in alert
    assert (
        "serving-latency.md" in page.find_element(By.ID, "alerts").get_attribute("innerHTML") or "what to do" in alert
    )
    found = page.find_element(By.CSS_SELECTOR, "#alerts a:last-of-type")
    assert (found.text, found.get_attribute("href")) == ("in Dagster", "http://127.0.0.1:3000/assets/serving/spending")
    assert row(page, "service:spending")["p99"].startswith("■312ms over its bound, ≤ 50 ms")
    assert row(page, "view:user_purchases")["p99"].startswith("■312ms over its bound")
    assert row(page, "source:purchases")["lag"].startswith("■12.4s over its bound, ≤ 5 s")
    assert row(page, "service:spending")["budget left"] == "■0% overspent: p99"
    assert page.title.startswith("▲ 1 open alert")
    stage.look = lambda: report_of(instants.now())
    eventually(lambda: texts(page, "#verdict") == ["●all is well"])
    assert texts(page, "#alerts article") == []


def test_the_keyboard_opens_what_is_known_of_a_source_and_it_stays_open(page):
    button = page.find_element(By.CSS_SELECTOR, "[data-target='source:purchases'] button")
    button.send_keys(Pressed.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    details = page.find_element(By.ID, str(button.get_attribute("aria-controls")))
    eventually(lambda: len(details.find_elements(By.CSS_SELECTOR, "canvas")) == 2)
    said = " ".join(details.text.split())
    for words in (
        "tiles 1 ", "mirror 0 ", "late 12 4,410", "refused 2 120", "user o'hara 21 % of the events", "amount 3 %",
        "gate 0.2 ms 0.6 ms", "lag 640 ms ≤ 5 s ●kept 93 %", "events: contract ●passed", "all rows fit",
    ):  # fmt: skip
        assert words in said
    assert "lag (dashed)" in said
    looked = page.execute_script("return last.report.at")
    eventually(lambda: page.execute_script("return last.report.at") > looked)
    assert page.switch_to.active_element == button
    assert details.is_displayed()
    view = page.find_element(By.CSS_SELECTOR, "[data-target='view:user_purchases'] button")
    view.click()
    report = page.find_element(By.LINK_TEXT, "report")
    assert report.get_attribute("href").endswith("/quality/features/1.html")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_is_light_or_dark_as_the_reader_is(page, scheme, dark):
    prefer(page, scheme)
    shades = page.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color].map((one) => Math.max(...one.match(/\\d+/g).map(Number)))"
    )
    assert (shades[0] < 60 < 200 < shades[1]) if dark else (shades[1] < 60 < 200 < shades[0])


@pytest.mark.parametrize("width", [360, 390])
def test_it_fits_a_phone(page, width):
    resize(page, width, 844)
    for button in page.find_elements(By.CSS_SELECTOR, ".name"):
        page.execute_script("arguments[0].click()", button)
    eventually(lambda: len(page.find_elements(By.CSS_SELECTOR, "canvas")) == 2 * 4 + 2)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    label = "return getComputedStyle(document.querySelector('[data-label=lag]'), '::before').content"
    assert page.execute_script(label) == '"lag"'


def test_the_browser_found_no_fault_and_asked_nobody_else(page, stage):
    assert faults(page) == []
    found = asked(page)
    assert f"{stage.url}v1/sla" in found
    assert [url for url in found if not url.startswith((stage.url, "data:"))] == []


def test_a_watch_that_stopped_is_not_taken_for_a_platform_that_is_well(page, stage, serve):
    old = report_of(instants.now() - 40 * SECOND)
    stage.look = lambda: old
    # A server that saw no newer look.
    page.get(f"http://127.0.0.1:{serve(stage.redis.url).port}/")
    eventually(lambda: any("The watch last looked 4" in note for note in texts(page, "#notes p")))
    assert texts(page, "#verdict") == ["○not known now"]
    assert "rtml watch" in texts(page, "#notes p")[0]
    eventually(lambda: float(page.execute_script(STALE_ROWS)) < 1)


def test_without_a_watch_it_says_what_starts_one(page, stage, serve):
    stage.look = None
    eventually(lambda: stage.client.delete(keys.WATCH) == 0)
    page.get(f"http://127.0.0.1:{serve(stage.redis.url).port}/")
    eventually(lambda: texts(page, "#verdict") == ["○not watched"])
    assert texts(page, "#notes p") == ["▲No watch has looked yet. It is part of rtml up; rtml watch runs it alone."]


def test_where_keys_are_asked_for_it_asks_once(browser, stage, serve, tmp_path):
    stage.look = lambda: report_of(instants.now())
    served = serve(stage.redis.url, RTML_AUTH="on")
    settings = Settings(home=str(tmp_path), redis_url=stage.redis.url)
    key = create_key(settings, REGISTRY, "page", ["read:*"]).splitlines()[0]
    browser.get(f"http://127.0.0.1:{served.port}/")
    eventually(lambda: browser.find_element(By.ID, "login").is_displayed())
    assert texts(browser, "#verdict") == ["○not shown"]
    assert "a valid API key is needed" in texts(browser, "#notes p")[0]
    browser.find_element(By.ID, "key").send_keys(key)
    eventually(lambda: served.http.get("/v1/services", headers={"x-api-key": key}).status_code == 200)
    browser.find_element(By.CSS_SELECTOR, "#login button").click()
    eventually(lambda: texts(browser, "#verdict") == ["●all is well"])
    assert texts(browser, "#notes p") == []
    assert not browser.find_element(By.ID, "login").is_displayed()
    assert key not in browser.execute_script("return document.cookie + document.documentElement.outerHTML")


def test_redis_that_is_away_and_a_server_that_is_are_said(page, stage):
    stage.look = None
    stage.redis.stop()
    eventually(lambda: any("Redis does not answer" in note for note in texts(page, "#notes p")))
    assert "the last look that this server got" in texts(page, "#notes p")[0]
    assert row(page, "source:purchases")["lag"].startswith("640ms")
    faults(page)
    stage.served.end()
    eventually(lambda: any("This server has not answered for" in note for note in texts(page, "#notes p")))
    assert texts(page, "#verdict") == ["○not known now"]
