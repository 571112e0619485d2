"""The page about drift as a file: complete, in order, and nothing in it is anything but text."""

from __future__ import annotations

import re
from base64 import b64decode
from xml.etree import ElementTree

import polars as pl

from quality.bins import NOTHING, Histogram
from quality.drift import FeatureDrift, compare
from quality.drift_page import Page, by_feature, drifted_words
from quality.drift_svg import bars, line, tiny_bars, tiny_line
from rtml.define.drift import Bounds

HELD = Bounds(minimum=30)
NASTY = "\"><script>alert(1)</script>&amp;'<!--ARTICLES-->"


def found() -> list[FeatureDrift]:
    now = pl.DataFrame({"v__same": [1, 2] * 50, "v__moved": [3.0] * 100, "v__text": [NASTY, "b"] * 50})
    then = pl.DataFrame({"v__same": [2, 1] * 50, "v__moved": [4.0] * 100, "v__text": ["b", NASTY] * 50})
    both = [compare(now, then, dict.fromkeys(now.columns, HELD), name) for name in ("training", "week")]
    return [one for some in both for one in some]


def test_what_is_shown_is_text_whatever_it_says() -> None:
    html = Page(f"s{NASTY}", f"d{NASTY}", found(), [f"told {NASTY}"], days=[f"x{NASTY}"]).html()
    assert "<script" not in html
    assert "alert(1)" in html
    assert "<!--" not in html.replace("&lt;!--", ""), "every place of the template is filled, and no other"
    assert html.count("<article ") == 3
    assert re.findall(r"(?:src|href|url|action)\s*[=(]\s*[\"']?(?:https?:|//)", html) == []
    for svg in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(svg)


def test_the_worst_is_first_and_every_measure_is_there() -> None:
    features = found()
    assert by_feature(features)[0][0].feature == "v__moved"
    html = Page("eta", "2024-03-08", features, ["Served now: 100 rows."], {("v__moved", "week"): [0.1, 0.4]}).html()
    assert "1 of 3 features drifted" in html
    assert re.findall(r'<article id="(\w+)"', html)[0] == "v__moved"
    assert len(re.findall(r'class="line"', html)) == 1
    assert 'title="bound 0.1, usual: too few days to tell">at most 0.1<' in html
    assert "now 50.0%, then 50.0%" in html
    assert drifted_words(0, 3) == "none of 3 features drifted"
    rare = FeatureDrift("v__rare", "week", 3, 3, 0, 0, note="too few rows: 3")
    assert "too few rows</span>" in Page("eta", "2024-03-08", [rare], []).html()


def test_pictures_are_small_and_whole() -> None:
    some = Histogram(("0", "9"), tuple(n / 276 for n in range(24)), tuple((23 - n) / 276 for n in range(24)))
    for uri in (tiny_bars(some), tiny_line([0.1, None, 0.3, 0.2] * 7, 0.2)):
        head, data = uri.split(",")
        assert head == "data:image/svg+xml;base64"
        ElementTree.fromstring(b64decode(data).decode())
        assert len(uri) < 1_000
    ElementTree.fromstring(line([1.0, 2.0], float("inf"), "no bound"))
    assert tiny_bars(NOTHING) == tiny_line([0.1], 0.2) == line([None, 0.1], 0.2, "") == ""
    assert "no values" in bars(NOTHING, "nothing")


def test_a_line_is_broken_where_there_is_no_value() -> None:
    path = re.findall(r'class="trend" d="([^"]+)"', line([0.1, 0.2, None, 0.3, 0.4], 0.2, "psi"))[0]
    assert re.sub(r"[^ML]", "", path) == "MLML"
