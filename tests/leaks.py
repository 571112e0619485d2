"""Looking for secrets where none may be: in what processes logged, and in what Dagster noted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MARKER = "zq9planted"
"""Every secret that a test makes up has this in it; a log that shows it shows a secret."""
NAMES = re.compile(r"\.(log|out|err|db|db-wal|sqlite3?|sqlite3?-wal|json|jsonl|ndjson|html)$|^(stdout|stderr|output)$")
"""Logs, databases (Dagster's, the ledger, Bytewax's), what processes tell each other in files, Delta's logs, pages."""

_SECRET = re.compile(rb"zq9planted|\brtml_[0-9a-f]{8}_[0-9a-f]{64}\b")


def leaks(text: str | bytes) -> list[str]:
    """Return the secrets in a text, each with a little of what stands around it."""
    content = text.encode(errors="replace") if isinstance(text, str) else text
    return [
        content[max(0, found.start() - 80) : found.end() + 20].decode(errors="replace")
        for found in _SECRET.finditer(content)
    ]


def leaks_below(folder: Path) -> Iterator[str]:
    """Return the secrets in all logs and databases below a folder, each with its file."""
    for file in sorted(folder.rglob("*")):
        if NAMES.search(file.name) and file.is_file():
            yield from (f"{file}: …{found}…" for found in leaks(file.read_bytes()))
