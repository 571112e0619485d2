"""The page that shows the API: one file, which loads nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from serving.wire import Reply

# The browser, too, is told that nothing may come from or go elsewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def page() -> Reply:
    """Return the page."""
    body = files("serving").joinpath("page.html").read_bytes()
    return Reply(200, body, "text/html; charset=utf-8", [("content-security-policy", _POLICY)])
