"""`/runbooks/{name}`: what to do about an alert, at hand where it is shown, if this server runs from a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rtml.errors import near_miss
from serving.wire import Reply, failure

RUNBOOKS = "/runbooks/"
_FOLDER = Path(__file__).resolve().parents[1] / "docs" / "runbooks"


@cache
def runbooks() -> list[str]:
    """Return the names of the pages that there are."""
    return sorted(file.stem for file in _FOLDER.glob("*.md"))


def runbook(name: str) -> Reply:
    """Return a page as it was written: Markdown, for people."""
    if name not in runbooks():
        near = near_miss(name, runbooks())
        return failure(404, "not_found", f"no runbook {name!r} here: see docs/runbooks/ in rtml's repository.{near}")
    return Reply(200, (_FOLDER / f"{name}.md").read_bytes(), "text/plain; charset=utf-8")
