"""The page: what it is made of, and what it does in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from rtml import instants
from rtml.settings import Settings
from rtml_assets.runtime.keys import create_key
from serving.openapi import openapi
from serving.page import page
from tests.serving.online import REGISTRY, eventually

TEXT = page().body.decode()


def test_it_loads_nothing_from_elsewhere(served):
    assert re.findall(r"(?:src|href|url|action)\s*[=(]\s*[\"']?(?:https?:|//)", TEXT) == []
    assert "innerHTML" not in TEXT
    answer = served.http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text == TEXT


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_it_shows_the_services_and_reads_features(browser, served, feature_redis):
    browser.set_window_size(1200, 1600)
    browser.get(f"http://127.0.0.1:{served.port}/docs")
    eventually(lambda: texts(browser, "#ready") == ["ready"])
    eventually(lambda: texts(browser, "#list h3") == ["shopping", "spending"])
    assert len(texts(browser, "#operations summary")) == sum(len(methods) for methods in openapi()["paths"].values())

    for field, value in zip(browser.find_elements(By.CSS_SELECTOR, "#entities input"), ["bob", "7"], strict=True):
        field.send_keys(value)
    browser.find_element(By.ID, "at").send_keys(instants.to_text(feature_redis.present))
    browser.find_element(By.CSS_SELECTOR, "button.main").click()
    eventually(lambda: "200 in" in browser.find_element(By.ID, "answer").text)
    assert texts(browser, "#answer tr") == [
        "bob · 7", "user_purchases fresh", "count_3h 3", "shop_visits fresh", "count_1h 100",
    ]  # fmt: skip

    browser.find_element(By.CSS_SELECTOR, "#entities input").send_keys("y")
    browser.find_element(By.ID, "at").send_keys("yesterday")
    browser.find_element(By.CSS_SELECTOR, "button.main").click()
    eventually(lambda: "400 invalid_instant" in browser.find_element(By.ID, "answer").text)


def test_it_fits_a_phone(browser, served):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get(f"http://127.0.0.1:{served.port}/docs")
    eventually(lambda: texts(browser, "#ready") == ["ready"])
    for found in browser.find_elements(By.CSS_SELECTOR, "summary"):
        found.click()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360


def test_the_browser_found_no_fault_and_asked_nobody_else(browser, served):
    faults = [entry["message"] for entry in browser.get_log("browser") if "status of 400" not in entry["message"]]
    assert faults == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert asked
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{served.port}/", "data:"))] == []


def test_where_keys_are_asked_for_it_asks_once(browser, serve, feature_redis, tmp_path):
    served = serve(feature_redis.url, RTML_AUTH="on")
    settings = Settings(home=str(tmp_path), redis_url=feature_redis.url)
    key = create_key(settings, REGISTRY, "page", ["read:*"]).splitlines()[0]
    browser.get(f"http://127.0.0.1:{served.port}/docs")
    eventually(lambda: browser.find_element(By.ID, "login").is_displayed())
    field, button = browser.find_element(By.ID, "key"), browser.find_element(By.CSS_SELECTOR, "#login button")
    field.send_keys("nonsense")
    button.click()
    eventually(lambda: "a valid API key is needed" in browser.find_element(By.ID, "refused").text)
    field.clear()
    field.send_keys(key)
    eventually(lambda: served.http.get("/v1/services", headers={"x-api-key": key}).status_code == 200)
    button.click()
    eventually(lambda: texts(browser, "#list h3") == ["shopping", "spending"])
    assert not browser.find_element(By.ID, "login").is_displayed()
    assert key not in browser.execute_script("return document.cookie + document.documentElement.outerHTML")
