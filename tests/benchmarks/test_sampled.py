"""Where the work of a process goes: work is found where it is done, and waiting is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.sampled import read, sampling, table

PROGRAM = """
import time

def heavy():
    return sum(number * number for number in range(20_000))

def light():
    return sum(number * number for number in range(2_000))

def waiting():
    time.sleep(0.002)

while True:
    heavy(), light(), waiting()
"""


def test_work_is_found_where_it_is_done(tmp_path: Path):
    (tmp_path / "busy_program.py").write_text(PROGRAM)
    file = tmp_path / "samples.json"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    argv = [sys.executable, "-m", "benchmarks.sampled", str(file), "busy_program"]
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            with sampling(file):
                # Long enough to be started, on a busy machine as well.
                while process.poll() is None and _work(process.pid) < 1.0:
                    time.sleep(0.02)
        finally:
            process.kill()
    profile = read(file)
    work = {name: _seconds(profile.stacks, name) for name in ("heavy", "light", "waiting")}
    assert work["heavy"] > 4 * work["light"] > 0
    assert work["waiting"] < work["heavy"] / 4
    shown = table(profile, 1_000, "round")
    assert "busy_program.py:heavy" in shown
    assert "1,000 × round" in shown


def _seconds(stacks: list[tuple[tuple[str, ...], float]], name: str) -> float:
    return sum(seconds for stack, seconds in stacks if any(part.endswith(f":{name}") for part in stack))


def _work(pid: int) -> float:
    """Return the seconds that processors worked for a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
