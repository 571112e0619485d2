"""`rtml demo --once`, whole: history, one streamed day, 200 vectors checked; about half a minute."""

import json
import os
import subprocess
import sys

from tests.cli.test_cli import ROOT


def test_one_day_of_flights_is_right(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RTML_")}
    argv = [sys.executable, "-m", "rtml_assets.cli", "demo", "--once", "--speed", "28800"]
    run = subprocess.run(
        argv,
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / ".rtml" / "demo.json").read_text())
    assert found["problems"] == []
    assert (found["served"], found["mismatches"], found["lost"]) == (200, 0, 0)
    assert found["training_mismatches"] == 0
    assert found["canary"]["equal"] == found["canary"]["compared"] >= 200 * 33
    assert found["events"] > 1_800
    assert found["late"] > 0
    assert 0 < found["freshness_ms"]["p50"] <= found["freshness_ms"]["p99"]
    assert set(found["phases"]) == {"redis", "land", "materialise", "start", "replay", "compact", "check"}
    assert not (tmp_path / ".rtml" / "demo" / "run.json").exists()
