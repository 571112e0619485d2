"""The SLA page's files, and the chart library beside them: all that `/` loads comes from this server."""

from __future__ import annotations

from importlib.resources import files

from serving.wire import Reply

HTML, CSS, JS = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
FILES = {
    "/": ("sla.html", HTML),
    "/sla.css": ("sla.css", CSS),
    "/sla.js": ("sla.js", JS),
    "/vendor/uPlot.min.css": ("vendor/uPlot.min.css", CSS),
    "/vendor/uPlot.iife.min.js": ("vendor/uPlot.iife.min.js", JS),
}
"""By path: the file, and what it is. None of them holds data."""

# The browser, too, is told that nothing may come from or go elsewhere, and that no script runs but these files.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def sla_files() -> dict[str, Reply]:
    """Return the answers by path."""
    headers = [("content-security-policy", _POLICY), ("cache-control", "no-cache")]
    here = files("serving")
    return {path: Reply(200, (here / name).read_bytes(), kind, headers) for path, (name, kind) in FILES.items()}
