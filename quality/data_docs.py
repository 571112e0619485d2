"""Data Docs: what Great Expectations makes of results, as pages that load nothing from elsewhere and run no script.

The library's own page takes styles, scripts, fonts and a logo from six other servers. Ours is built of the same parts,
around a template of our own; its styles lie beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from quality.judgement import Judged
from rtml.lake import Lake

DOCS = "docs"
STATIC = "static"
_STYLES = (("vendor", "bootstrap.min.css"), ("pages", "quality.css"))
_TO_SUITES = re.compile(r'<a href="[^"]*expectations/[^"]*"[^>]*>(.*?)</a>')
_NO_ASSET = re.compile(r"Data asset: None\s*<br>")
"""What the library says of stores and assets, of which there are none here."""
_ANGLES = str.maketrans({"<": "\u2039", ">": "\u203a"})
_HEAVY = ("unexpected_list", "unexpected_index_list", "unexpected_index_query", "partial_unexpected_index_list")
"""Parts of a result that grow with the rows: a page does without them."""


def render(library: Any, results: Any, judged: Sequence[Judged], title: str, day: str) -> str:
    """Return a page of results and judgements; `library` is Great Expectations, which only `suites.py` loads."""
    for result in results.results:
        plain = result.to_json_dict()["result"]
        result.result = {name: _plain(part) for name, part in plain.items() if _shown(name, plain)}
    view = library.render.view.DefaultJinjaPageView()
    own = view.env.from_string(files("quality").joinpath("pages/page.j2").read_text())
    renderer = library.render.renderer.page_renderer.ValidationResultsPageRenderer(run_info_at_end=True)
    document = renderer.render(results).to_json_dict()
    page = str(own.render(document, heading=f"{title} {day}", title=title, day=day, checks=judged))
    return _NO_ASSET.sub("", _TO_SUITES.sub(r"\1", page))


def _shown(name: str, result: dict[str, Any]) -> bool:
    """Whether a page shows a part of a result; of unexpected distinct values the renderers can show nothing."""
    return name not in _HEAVY and ("unexpected_percent" in result or "unexpected" not in name)


def _plain(value: Any) -> Any:
    """Return a value that no page takes for markup, and without numbers of numpy.

    The library shows samples of data as they are, and its renderers stumble over such numbers.
    """
    if isinstance(value, str):
        return value.translate(_ANGLES)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {_plain(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def folder_of(lake: Lake) -> Path | None:
    """Return the folder of a lake's documents; an object store has none."""
    return None if "://" in lake.quality else Path(lake.quality)


def page_of(table: str, name: str, day: date | str) -> str:
    """Return where the page of a day lies, in the folder of documents."""
    return f"{DOCS}/{table}/{name}/{day}.html"


def write_page(folder: Path, path: str, page: str) -> None:
    """Write a page, and the styles that it needs; whoever reads meanwhile sees the old one or the new one."""
    styles = [(f"{STATIC}/{name}", files("quality").joinpath(room, name).read_text()) for room, name in _STYLES]
    _write(folder, [*styles, (path, page)])


def _write(folder: Path, texts: Iterable[tuple[str, str]]) -> None:
    for path, text in texts:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=place.parent, prefix=".", delete=False, encoding="utf-8") as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, place)
