"""`/quality/…`: the pages that checks wrote under the lake, and lists of what there is."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import quote, unquote

from rtml.lake_paths import Lake
from serving.wire import Reply, failure

QUALITY = "/quality"
MOST_PARTS, LONGEST_PART = 12, 255
"""A file system says no to longer names and paths, by an error."""

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""What is served, and as what; other files are not."""

# Pages show values of events, which anybody may have sent: no script runs but files of ours, nothing goes elsewhere.
_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS = [("content-security-policy", _POLICY), ("x-content-type-options", "nosniff"), ("cache-control", "no-cache")]

_LIST = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
li {{ overflow-wrap: anywhere; }}
</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""


class Documents:
    """Serves the files of a lake's `quality/` folder."""

    def __init__(self, lake: Lake) -> None:
        """Take the lake; whether there is anything is looked up at each request."""
        self._root = lake.quality
        self._folder = None if "://" in lake.quality else Path(lake.quality)

    def get(self, path: str) -> Reply:
        """Return a file or a list of a folder; `path` is that of the request, from `/quality` on."""
        if self._folder is None:
            words = f"the lake is an object store: what checks wrote is at {self._root}/, and is not served from here"
            return failure(404, "not_found", words)
        parts = [part for part in unquote(path.removeprefix(QUALITY)).split("/") if part]
        place = _below(self._folder, parts)
        if place is None:
            return failure(404, "not_found", f"no document {path!r}")
        if place.is_dir():
            # Relative links of a list need the slash.
            return _listing(self._folder, place) if path.endswith("/") else _moved(path)
        if place == self._folder:
            return _empty()
        if not place.is_file() or place.suffix not in TYPES:
            return failure(404, "not_found", f"no document {path!r}: {QUALITY}/ lists what there is")
        return Reply(200, place.read_bytes(), TYPES[place.suffix], HEADERS)


def _below(folder: Path, parts: list[str]) -> Path | None:
    """Return a place in a folder; none where a part is hidden, leads upwards, or is a link to elsewhere."""
    if len(parts) > MOST_PARTS or any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    if any(len(part.encode(errors="replace")) > LONGEST_PART for part in parts):
        return None
    place = folder.joinpath(*parts)
    return place if place.resolve().is_relative_to(folder.resolve()) else None


def _listing(folder: Path, place: Path) -> Reply:
    """List a folder: folders first, then pages, the newest name first."""
    here = place.relative_to(folder)
    entries = [entry for entry in place.iterdir() if not entry.name.startswith(".") and entry.name != "static"]
    folders = sorted(f"{entry.name}/" for entry in entries if entry.is_dir())
    pages = sorted((entry.name for entry in entries if entry.is_file() and entry.suffix == ".html"), reverse=True)
    up = [] if place == folder else ["../"]
    items = "".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in [*up, *folders, *pages])
    title = "quality" if place == folder else f"quality/{here.as_posix()}"
    return _html(200, title, f"<ul>{items}</ul>")


def _empty() -> Reply:
    words = (
        "<p>Nothing was checked yet. Pages are written by checks of <code>events/</code> and <code>features/</code>: "
    )
    return _html(404, "quality", f"{words}materialise them, or run a job <code>quality_…</code> in Dagster.</p>")


def _html(status: int, title: str, body: str) -> Reply:
    text = _LIST.format(title=escape(title), body=body)
    return Reply(status, text.encode(), TYPES[".html"], HEADERS)


def _moved(path: str) -> Reply:
    # Only the last part: a path that begins with two slashes would lead to another host.
    return Reply(308, b"", TYPES[".html"], [("location", f"{quote(unquote(path.rsplit('/', 1)[-1]))}/")])
