"""What the benchmarks found, as `results.md`: one table, and the machine that it is true of."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks import feast_env
from benchmarks.rows import Row
from rtml_assets.runtime.redis_server import find_binary

PACKAGES = ("bytewax", "polars", "numpy", "redis", "hiredis", "granian", "uvloop", "deltalake", "dagster", "duckdb")
HEADINGS = Row._fields


class Section(NamedTuple):
    """What one benchmark found, and how long it took."""

    name: str
    rows: Sequence[Row]
    seconds: float
    load: float
    """How many processes wanted to run, on average over the minute before it began."""

    @classmethod
    def of(cls, name: str, run: Callable[[], Sequence[Row]]) -> Section:
        """Run a benchmark; one that fails has a row that says so."""
        load, started = os.getloadavg()[0], time.perf_counter()
        rows: Sequence[Row]
        try:
            rows = run()
        # Whatever it was, the others must run, and the table must tell.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            rows = [Row(name, "", verdict=f"failed: {type(error).__name__}: {str(error).splitlines()[0]}")]
        return cls(name, rows, time.perf_counter() - started, load)


def machine() -> dict[str, str]:
    """Return what the figures depend on; nothing that says whose machine it is."""
    versions = {name: version(name) for name in PACKAGES}
    server = subprocess.run([find_binary(), "--version"], check=True, capture_output=True, text=True).stdout
    redis = next(part.removeprefix("v=") for part in server.split() if part.startswith("v="))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": f"{os.cpu_count()} × {_processor()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {found}" for name, found in versions.items()),
        "peers": f"redis-server {redis} for all, Feast {feast_env.VERSION}",
    }


def markdown(about: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the page."""
    lines = ["# Benchmarks", "", "Made by `make bench`; each figure beside a peer's, measured in the same run.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
    for section in sections:
        head = f"**{section.name}** ({section.seconds:.0f} s, load {section.load:.1f} before)"
        lines += [_line([head, *[""] * (len(HEADINGS) - 1)]), *(_line(_shown(row)) for row in section.rows)]
    return "\n".join(lines) + "\n"


def _shown(row: Row) -> list[str]:
    indented = row.what.replace("  ", "– ", 1) if row.what.startswith("  ") else row.what
    verdict = f"**{row.verdict}**" if row.verdict.startswith(("missed", "failed")) else row.verdict
    return [indented, *row[1:-1], verdict]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        found = subprocess.run(  # nosec B607
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
