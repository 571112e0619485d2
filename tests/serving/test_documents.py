"""`/quality/…`: the pages of a lake, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtml.lake import Lake
from serving.documents import Documents

PAGE = "docs/events/departures/2013-03-01.html"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    folder = tmp_path / "lake" / "quality"
    for path, text in {
        PAGE: "<p>a day</p>",
        "docs/events/departures/2013-03-02.html": "<p>the next</p>",
        "drift/eta.html": "<p>drift</p>",
        "static/quality.css": "p {}",
        "static/chart.js": "1",
        "notes.txt": "not served",
        ".secret.html": "hidden",
        "a & <b>/x.html": "odd",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (tmp_path / "lake" / "raw.html").write_text("outside")
    (tmp_path / "lake" / "quality-too").mkdir()
    (tmp_path / "lake" / "quality-too" / "x.html").write_text("outside")
    os.symlink(tmp_path / "lake" / "raw.html", folder / "link.html")
    return Lake(str(tmp_path / "lake"))


def test_pages_and_what_lies_beside_them_are_served(lake):
    documents = Documents(lake)
    page = documents.get(f"/quality/{PAGE}")
    assert (page.status, page.body, page.content_type) == (200, b"<p>a day</p>", "text/html; charset=utf-8")
    policy = dict(page.headers)["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert documents.get("/quality/static/quality.css").content_type == "text/css; charset=utf-8"
    assert documents.get("/quality/static/chart.js").content_type == "text/javascript; charset=utf-8"


def test_folders_are_listed_and_lead_on(lake):
    documents = Documents(lake)
    root = documents.get("/quality/").body.decode()
    assert '<a href="docs/">docs/</a>' in root
    assert '<a href="drift/">drift/</a>' in root
    assert '<a href="a%20%26%20%3Cb%3E/">a &amp; &lt;b&gt;/</a>' in root
    assert not any(word in root for word in ("static", "notes.txt", "secret", "../"))
    days = documents.get("/quality/docs/events/departures/").body.decode()
    assert days.index("2013-03-02.html") < days.index("2013-03-01.html")
    assert '<a href="../">' in days
    for path, location in {
        "/quality": "quality/",
        "/quality/docs": "docs/",
        "/quality/a%20&%20<b>": "a%20%26%20%3Cb%3E/",
    }.items():
        moved = documents.get(path)
        assert (moved.status, dict(moved.headers)["location"]) == (308, location)


@pytest.mark.parametrize(
    "path",
    [
        "/quality/../raw.html",
        "/quality/%2e%2e/raw.html",
        "/quality/..%2fraw.html",
        "/quality/docs/../../raw.html",
        "/quality/%2e%2e/quality-too/x.html",
        "/quality//etc/passwd",
        "/quality/..\\raw.html",
        "/quality/%00",
        "/quality/link.html",
        "/quality/.secret.html",
        "/quality/notes.txt",
        "/quality/docs/none.html",
        f"/quality/{PAGE}/more",
        "/quality/" + "x" * 5_000 + ".html",
        "/quality/" + "é" * 200 + ".html",
        "/quality/" + "a/" * 3_000,
    ],
)
def test_nothing_else_is(lake, path):
    answer = Documents(lake).get(path)
    assert answer.status == 404
    assert b"no document" in answer.body
    assert b"outside" not in answer.body


def test_where_nothing_was_checked_it_is_said(tmp_path):
    answer = Documents(Lake(str(tmp_path))).get("/quality/")
    assert answer.status == 404
    assert b"Nothing was checked yet" in answer.body
    away = Documents(Lake("s3://bucket/lake")).get("/quality/")
    assert away.status == 404
    assert b"s3://bucket/lake/quality/" in away.body


def test_a_real_server_shows_them(feature_redis, serve, tmp_path):
    served = serve(feature_redis.url)
    assert served.http.get("/quality/").status_code == 404
    page = tmp_path / "lake" / "quality" / PAGE
    page.parent.mkdir(parents=True)
    page.write_text("<p>a day</p>")
    assert served.http.get("/quality").headers["location"] == "quality/"
    answer = served.http.get(f"/quality/{PAGE}")
    assert (answer.text, answer.headers["content-type"]) == ("<p>a day</p>", "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert served.http.head(f"/quality/{PAGE}").status_code == 200
    assert served.http.post("/quality/").status_code == 405
    assert 'rtml_requests_total{route="/quality",status="200"}' in served.http.get("/metrics").text
